from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from support.http_server import Reply, serve
from support.manual_clock import ManualClock

from carbonsched.config import Config, load
from carbonsched.errors import InputError
from carbonsched.feeds.base import Feed, FeedSettings, Site
from carbonsched.feeds.chain import Chain
from carbonsched.feeds.factory import build_chain
from carbonsched.feeds.zone import Zone
from carbonsched.model.grid import Kind

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def trace(tmp_path: Path) -> str:
    path = tmp_path / "trace.csv"
    rows = [f"2022-01-0{1 + h // 24}T{h % 24:02}:00:00Z,{100 + h}" for h in range(48)]
    path.write_text("\n".join(["datetime,g_per_kwh", *rows]))
    return str(path)


def config(*feeds: dict[str, Any], basis: str = "average-lifecycle") -> Config:
    return Config.parse({"zone": {"name": "GB", "basis": basis}, "feeds": list(feeds)})


def build(wanted: Config, clock: ManualClock, state: Path) -> Chain:
    return build_chain(wanted.feeds, Site(wanted.zone, clock, state))


def test_a_restarted_daemon_goes_on_in_the_same_phase(tmp_path: Path, trace: str) -> None:
    wanted = config({"provider": "replay", "file": trace, "hour_s": 60})
    clock = ManualClock(T0)
    first = build(wanted, clock, tmp_path / "state")
    first.poll_due()
    assert first.reading_at(clock.now()).g_per_kwh == 100.0  # type: ignore[union-attr]
    clock.advance(150)
    second = build(wanted, clock, tmp_path / "state")
    second.poll_due()
    assert second.reading_at(clock.now()).g_per_kwh == 102.0  # type: ignore[union-attr]
    assert second.reading_at(T0 + timedelta(seconds=70)).g_per_kwh == 101.0  # type: ignore[union-attr]


def test_an_anchor_in_the_config_wins_and_nothing_is_kept(tmp_path: Path, trace: str) -> None:
    wanted = config({"provider": "replay", "file": trace, "hour_s": 60, "anchor": "2026-03-01T11:59:00Z"})
    chain = build(wanted, ManualClock(T0), tmp_path)
    chain.poll_due()
    assert chain.reading_at(T0).g_per_kwh == 101.0  # type: ignore[union-attr]
    assert not (tmp_path / "replay-anchor.json").exists()


def test_a_broken_anchor_is_told_with_the_mend(tmp_path: Path, trace: str) -> None:
    (tmp_path / "replay-anchor.json").write_text("{}")
    with pytest.raises(InputError, match=r"replay-anchor\.json: cannot be read; remove it"):
        build(config({"provider": "replay", "file": trace}), ManualClock(T0), tmp_path)


REPLAY = {"provider": "replay", "file": "TRACE"}
FIXED = {"provider": "static", "g_per_kwh": 300, "basis": "average-lifecycle", "source": "utility bill 2025"}


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ([{"provider": "replay"}], "feeds[0].file: is missing; give a CSV"),
        ([{**REPLAY, "country": "DEU"}], "feeds[0].country: is not a key of provider 'replay'"),
        (
            [{"provider": "static", "country": "DEU", "file": "x"}],
            "feeds[0].file: is not a key of provider 'static'",
        ),
        (
            [{"provider": "static", "country": "DEU", "g_per_kwh": 3}],
            "feeds[0].country: stands beside g_per_kwh",
        ),
        ([{"provider": "static", "g_per_kwh": 3, "source": "x"}], "feeds[0].basis: is missing"),
        (
            [{"provider": "static", "g_per_kwh": 3, "basis": "average-lifecycle"}],
            "feeds[0].source: is missing",
        ),
        ([{"provider": "static", "country": "DEU", "source": "x"}], "feeds[0].source: is codecarbon's"),
        ([{"provider": "neso", "hour_s": 3}], "feeds[0].hour_s: is not a key of provider 'neso'"),
        ([{"provider": "neso"}], "neso speaks average-direct but zone.basis is average-lifecycle"),
        (
            [{"provider": "neso", "basis": "average-lifecycle"}],
            "feeds[0].basis: is average-lifecycle, and what neso",
        ),
        (
            [REPLAY, {"provider": "energy-charts"}],
            'feeds[1].basis: its provider does not state it, and energy-charts stands beside replay; add basis = "average-',
        ),
        ([FIXED, FIXED], "feeds[1].name: 'static' is taken"),
        ([{"provider": "static", "country": "DEE"}], "feeds[0].country: 'DEE' is not a country's"),
    ],
)
def test_keys_that_do_not_fit_the_provider_are_refused(
    tmp_path: Path, trace: str, feeds: list[dict[str, Any]], words: str
) -> None:
    # the keys are checked when the config is read, the rest when the feeds are built
    with_file = [{**feed, "file": trace} if feed.get("file") == "TRACE" else feed for feed in feeds]
    with pytest.raises(InputError) as caught:
        build(config(*with_file), ManualClock(T0), tmp_path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


UNSTATED = {"provider": "energy-charts", "country": "de"}


@pytest.mark.parametrize(
    ("zone", "feeds", "words"),
    [
        ({}, [UNSTATED], 'or add basis = "average-lifecycle" to the feed, if you know'),
        (
            {"basis": "marginal-direct"},
            [UNSTATED],
            "energy-charts speaks average-unstated but zone.basis is marginal",
        ),
        ({"basis": "average-direct"}, [UNSTATED], ""),
        ({"basis": "average-unstated"}, [UNSTATED], ""),
        ({}, [UNSTATED | {"basis": "average-lifecycle"}, FIXED], ""),
        ({"basis": "average-lifecycle"}, [UNSTATED, FIXED], ""),
    ],
)
def test_a_basis_that_no_provider_states_is_the_operators_word_or_refused(
    tmp_path: Path, zone: dict[str, str], feeds: list[dict[str, Any]], words: str
) -> None:
    wanted = Config.parse({"zone": {"name": "DE"} | zone, "feeds": feeds})
    if not words:
        build(wanted, ManualClock(T0), tmp_path)
        return
    with pytest.raises(InputError) as caught:
        build(wanted, ManualClock(T0), tmp_path)
    assert words in str(caught.value)


def test_country_basis_is_lifecycle_alone(tmp_path: Path) -> None:
    feed = {"provider": "static", "country": "DEU"}
    with pytest.raises(InputError, match=r"speaks average-lifecycle but zone\.basis is average-direct"):
        build(config(feed, basis="average-direct"), ManualClock(T0), tmp_path)


def test_a_config_file_with_relative_paths_is_taken(tmp_path: Path, trace: str) -> None:
    (tmp_path / "box.toml").write_text(
        'state_dir = "state"\n[[feeds]]\nprovider = "replay"\nfile = "trace.csv"\nlabel = "synthetic"\n'
        '[[feeds]]\nprovider = "static"\ncountry = "DEU"\n'
    )
    wanted = load(tmp_path / "box.toml")
    chain = build(wanted, ManualClock(T0), wanted.state)
    chain.poll_due()
    view = chain.view(24)
    assert (view.now.kind, view.now.note) == (Kind.ACTUAL, "synthetic")
    assert [(f.name, f.state) for f in view.feeds] == [("replay", "ok"), ("static", "standby")]


def test_a_provider_over_the_network_with_a_fallback(tmp_path: Path) -> None:
    with serve(lambda path: Reply(b"", 404)) as server:
        feeds = (
            {"provider": "neso", "url": server.url, "timeout": 2},
            {
                "provider": "static",
                "g_per_kwh": 181.0,
                "basis": "average-direct",
                "source": "mean of 2025",
                "label": "GB",
            },
        )
        chain = build(config(*feeds, basis="average-direct"), ManualClock(T0), tmp_path)
        chain.poll_due()
    now = chain.view(1).now
    assert (now.g_per_kwh, now.kind, now.note) == (181.0, Kind.FALLBACK, "GB; mean of 2025")
    assert [(f.name, f.state) for f in chain.status()] == [("neso", "failing"), ("static", "ok")]
    assert "HTTP 404" in (chain.status()[0].error or "")


CONSTANT = {"provider": "static", "g_per_kwh": 181.0, "basis": "average-direct", "source": "a bill"}


@pytest.mark.parametrize(
    ("feeds", "kind", "name"),
    [
        ([CONSTANT], Kind.STATIC, "static"),
        ([CONSTANT, CONSTANT | {"name": "second", "g_per_kwh": 5}], Kind.STATIC, "static"),
        ([CONSTANT, {"provider": "neso", "url": "http://127.0.0.1:9"}], Kind.STATIC, "static"),
        ([{"provider": "neso", "url": "http://127.0.0.1:9"}, CONSTANT], Kind.FALLBACK, "static"),
        (
            [CONSTANT | {"name": "stated"}, {"provider": "neso", "url": "http://127.0.0.1:9"}, CONSTANT],
            Kind.STATIC,
            "stated",
        ),
    ],
    ids=["alone", "two constants", "before another", "behind another", "both"],
)
def test_a_constant_is_the_source_that_is_stated_or_stands_in(
    feeds: list[dict[str, Any]], kind: Kind, name: str, tmp_path: Path
) -> None:
    clock = ManualClock(T0)
    chain = build(config(*feeds, basis="average-direct"), clock, tmp_path)
    chain.poll_due()
    now = chain.view(1).now
    assert (now.g_per_kwh, now.kind, now.provider) == (181.0, kind, name)
    clock.advance(400 * 86_400)
    assert chain.reading_at(clock.now()) is None, "one that has ended is not held on"


class Broken(FeedSettings):
    provider: Literal["broken"] = "broken"
    key: str = ""

    def build(self, site: Site) -> Feed:
        if self.key:
            raise InputError("key", "is wrong", "put it right")
        raise RuntimeError("two\nlines")


def test_what_a_plugins_build_raises_is_one_line_with_the_place(tmp_path: Path) -> None:
    site = Site(Zone(), ManualClock(T0), tmp_path)
    with pytest.raises(InputError, match=r"^feeds\[0\]\.key: is wrong; put it right$"):
        build_chain([Broken(key="x")], site)
    with pytest.raises(
        InputError, match=r"^feeds\[0\]: the plugin of 'broken' failed: RuntimeError: two lines; fix"
    ):
        build_chain([Broken()], site)
