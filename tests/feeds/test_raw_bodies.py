"""Kept answers: found by hash, checked when read, capped, and never in the way."""

import hashlib
import html
import json
import os
import stat
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from support.http_server import Reply, serve

from carbonsched.errors import FeedError, InputError
from carbonsched.feeds.http import HttpTransport
from carbonsched.feeds.raw_bodies import RawBodies
from carbonsched.feeds.transport import Body

KEY = 'é"s3cr3t/<key> +&\\x'


def body(text: str) -> Body:
    return Body(None, hashlib.sha256(text.encode()).hexdigest(), text.encode())


def test_what_a_provider_answered_can_be_checked_by_its_hash(tmp_path: Path) -> None:
    bodies, transport = RawBodies(tmp_path / "bodies"), None
    with serve(lambda path: Reply(b' {"value": 1}\n')) as server:
        transport = HttpTransport(keep=bodies.keep)
        answer = transport.get(server.url, timeout_s=2)
        transport.close()
    assert bodies.read(answer.sha256) == b' {"value": 1}\n'


@pytest.mark.parametrize("where", ["params", "headers"])
def test_a_secret_that_an_answer_repeats_is_not_kept(tmp_path: Path, where: str) -> None:
    asked = {"params": {"api_key": "s3cr3t-key"}, "headers": {"Authorization": "Bearer s3cr3t-key"}}[where]
    bodies = RawBodies(tmp_path / "bodies")
    with serve(lambda path: Reply(b'{"request": {"api_key": "s3cr3t-key"}, "type": "Bearer"}')) as server:
        transport = HttpTransport(keep=bodies.keep)
        answer = transport.get(server.url, timeout_s=2, **{where: asked})  # type: ignore[arg-type]
        transport.close()
    assert bodies.read(answer.sha256).decode() == '{"request": {"api_key": "…"}, "type": "Bearer"}'
    assert answer.json["request"] == {"api_key": "…"}


@pytest.mark.parametrize(
    "echoed",
    [json.dumps(KEY)[1:-1], json.dumps(KEY)[1:-1].replace("/", "\\/"), quote(KEY), quote(KEY, safe=""), quote_plus(KEY),
     quote_plus(KEY).lower(), html.escape(KEY), KEY],
)  # fmt: skip
def test_a_secret_is_known_however_an_answer_escapes_it(tmp_path: Path, echoed: str) -> None:
    bodies = RawBodies(tmp_path / "bodies")
    with serve(lambda path: Reply(f"key: {echoed}.".encode(), 403 if "refuse" in path else 200)) as server:
        transport = HttpTransport(keep=bodies.keep)
        answer = transport.get(server.url, timeout_s=2, params={"api_key": KEY}, json=False)
        with pytest.raises(FeedError) as caught:
            transport.get(server.url + "/refuse", timeout_s=2, params={"api_key": KEY}, json=False)
        transport.close()
    assert bodies.read(answer.sha256).decode() == "key: …."
    assert echoed not in str(caught.value)


def test_bodies_are_the_daemons_user_alone(tmp_path: Path) -> None:
    folder, one = tmp_path / "bodies", body("one")
    folder.mkdir(mode=0o755)
    RawBodies(folder).keep(one)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / f"{one.sha256}.gz").stat().st_mode) == 0o600


def test_a_changed_or_dropped_body_is_told(tmp_path: Path) -> None:
    bodies, one, other = RawBodies(tmp_path), body("one"), body("other")
    bodies.keep(one)
    bodies.keep(other)
    (tmp_path / f"{one.sha256}.gz").write_bytes((tmp_path / f"{other.sha256}.gz").read_bytes())
    with pytest.raises(InputError, match="is not the body of that hash"):
        bodies.read(one.sha256)
    with pytest.raises(InputError, match="dropped, or never kept"):
        bodies.read("0" * 64)
    whole = (tmp_path / f"{other.sha256}.gz").read_bytes()
    for damaged in (whole[:12] + b"\xff" * 8, whole[:-9], whole[:3], b"", b"plain"):
        (tmp_path / f"{one.sha256}.gz").write_bytes(damaged)
        with pytest.raises(InputError, match=r"cannot be read|is not the body"):
            bodies.read(one.sha256)


def test_the_oldest_are_dropped_beyond_the_cap(tmp_path: Path) -> None:
    made = [body(str(i) * 50) for i in range(6)]
    for i, one in enumerate(made):
        RawBodies(tmp_path).keep(one)
        os.utime(tmp_path / f"{one.sha256}.gz", (i, i))
    size = (tmp_path / f"{made[0].sha256}.gz").stat().st_size
    last = body("last")
    RawBodies(tmp_path, cap_bytes=4 * size).keep(last)
    left = {path.name for path in tmp_path.iterdir()}
    assert f"{last.sha256}.gz" in left
    assert f"{made[5].sha256}.gz" in left
    assert f"{made[0].sha256}.gz" not in left


def test_a_folder_that_cannot_be_written_costs_the_evidence_and_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    bodies = RawBodies(tmp_path / "file" / "bodies")
    bodies.keep(body("one"))
    bodies.keep(body("two"))
    assert caplog.text.count("are not kept") == 1
