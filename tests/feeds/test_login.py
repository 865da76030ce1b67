"""A token that a login lends: how long it is used, and what a refusal of it leads to."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest
from support.http_server import Reply, Server, serve
from support.manual_clock import ManualClock

from carbonsched.errors import FeedError
from carbonsched.feeds.base import Answer, Site
from carbonsched.feeds.http import HttpTransport
from carbonsched.feeds.http_settings import LoginSettings
from carbonsched.feeds.login import LoginFeed
from carbonsched.feeds.raw_bodies import RawBodies
from carbonsched.feeds.transport import Limit, RetryLaterError
from carbonsched.feeds.zone import Zone
from carbonsched.model.grid import Basis

PASSWORD = "p4ssw0rd-of-a-test"  # noqa: S105
TOKEN = "t0ken-of-a-test"  # noqa: S105
LENT = Reply(f'{{"token": "{TOKEN}"}}'.encode())


class SunSettings(LoginSettings):
    provider: Literal["sun"] = "sun"
    way: str = "basic"

    def build(self, site: Site) -> "SunFeed":
        return SunFeed(self, site)


class SunFeed(LoginFeed):
    SHOWN, LIMITS, LOGIN_LIMITS = "the Sun", (Limit(30, per_s=60.0),), (Limit(6, per_s=60.0),)

    def __init__(self, settings: SunSettings, site: Site) -> None:
        super().__init__(settings, site, "XX", Basis.AVERAGE_DIRECT)
        self._way = settings.way

    def log_in(self, password: str) -> tuple[str, float]:
        if self._way == "basic":
            return str(self.ask_login("/login", "sunny", password).json["token"]), 1800.0
        return str(self.post_login("/login", {"email": "sunny", "password": password}).json["token"]), 1800.0

    def poll(self) -> Answer:
        self.ask_logged_in("/now")
        return Answer(())


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(lambda path: LENT if path == "/login" else Reply()) as running:
        yield running


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
def feed(server: Server, clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SunFeed:
    return make("basic", server, clock, tmp_path, monkeypatch)


def make(way: str, server: Server, clock: ManualClock, folder: Path, env: pytest.MonkeyPatch) -> SunFeed:
    env.setenv("SUN", PASSWORD)
    transport = HttpTransport(backoff_s=0.01, keep=RawBodies(folder / "bodies").keep)
    site = Site(Zone(name="XX"), clock, folder, transport)
    return SunSettings(url=server.url, password_env="SUN", way=way).build(site)


@pytest.mark.parametrize("way", ["basic", "post"])
def test_one_login_lasts_as_long_as_it_is_lent(
    server: Server, clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    feed = make(way, server, clock, tmp_path, monkeypatch)
    feed.poll()
    feed.poll()
    assert server.paths == ["/login", "/now", "/now"]
    assert server.headers[1]["Authorization"] == f"Bearer {TOKEN}"
    clock.advance(1801)
    feed.poll()
    assert server.paths[3:] == ["/login", "/now"]
    if way == "basic":
        assert server.headers[0]["Authorization"] == "Basic c3Vubnk6cDRzc3cwcmQtb2YtYS10ZXN0"
    else:
        assert server.sent[0] == f'{{"email": "sunny", "password": "{PASSWORD}"}}'.encode()
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(kept) == 1, "the answer of a login is kept"


@pytest.mark.parametrize(
    "refusal", [Reply(b"{}", 401), Reply(b"<html>", 403, type="text/html"), Reply(b"{}", 403)]
)
def test_a_token_that_is_refused_leads_to_one_new_login(
    server: Server, feed: SunFeed, refusal: Reply
) -> None:
    feed.poll()
    server.answer = lambda path: (
        LENT if path == "/login" else Reply() if server.paths[-2] == "/login" else refusal
    )
    feed.poll()
    assert server.paths == ["/login", "/now", "/now", "/login", "/now"]


def test_a_new_token_that_is_refused_too_is_an_error_and_no_loop(server: Server, feed: SunFeed) -> None:
    server.answer = lambda path: LENT if path == "/login" else Reply(b"{}", 401)
    for polls in (1, 2):
        with pytest.raises(FeedError, match="HTTP 401"):
            feed.poll()
        assert server.paths == ["/login", "/now"] * polls


@pytest.mark.parametrize("way", ["basic", "post"])
@pytest.mark.parametrize(
    "answer",
    [
        Reply(f"no user with {PASSWORD}, {TOKEN}".encode(), 401),
        Reply(f'{{"token": "{TOKEN}'.encode()),
        Reply(b'{"token": "two\\nlines"}'),
        Reply(b'{"token": ""}'),
    ],
)
def test_a_login_that_fails_is_one_line_without_the_secrets(
    server: Server,
    clock: ManualClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    answer: Reply,
) -> None:
    server.answer = lambda path: answer
    with pytest.raises(FeedError) as caught:
        make(way, server, clock, tmp_path, monkeypatch).poll()
    said = str(caught.value)
    assert "\n" not in said
    assert PASSWORD not in said
    assert TOKEN not in said or answer.status == 401
    assert ("check the name and the password" in said) == (answer.status == 401)


def test_logins_have_a_limit_of_their_own(server: Server, feed: SunFeed) -> None:
    server.answer = lambda path: LENT if path == "/login" else Reply(b"{}", 401)
    for _ in range(2):
        with pytest.raises(FeedError, match="HTTP 401"):
            feed.poll()
    with pytest.raises(RetryLaterError, match="limit of 6 requests"):
        feed.poll()
