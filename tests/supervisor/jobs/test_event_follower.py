"""Following events.jsonl: whole lines only, no line that stalls it, no more in memory than a piece."""

import json
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fuzz import CHANGES, EDITS, FUZZ, changed, damaged
from support.rig import Rig
from support.trainer_events import DONE, READY

from carbonsched.model.protocol import MOST_FRONTIER_POINTS
from carbonsched.model.setting import MOST_SETTINGS
from carbonsched.supervisor.jobs.event_follower import PIECE_BYTES, EventFollower
from carbonsched.text import one_line

AT = "2026-11-01T12:00:00Z"


def warning(text: str) -> bytes:
    return json.dumps({"at": AT, "event": "warning", "message": text}).encode() + b"\n"


def messages(follower: EventFollower, until: int | None = None) -> list[str]:
    return [event.message for event in follower.read(until)]  # type: ignore[union-attr]


def test_a_torn_last_line_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    follower = EventFollower(path)
    assert follower.read() == []
    whole = warning("one") + warning("two")
    path.write_bytes(whole[:-5])
    assert messages(follower) == ["one"]
    path.write_bytes(whole)
    assert messages(follower) == ["two"]
    assert follower.offset == len(whole)


def test_a_lone_carriage_return_stalls_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"10%\r20%\r\n" + warning("a\x0bb\x85c") + b"\r\n\n" + warning("two"))
    follower = EventFollower(path)
    assert messages(follower) == [one_line("a\x0bb\x85c"), "two"]
    assert follower.offset == path.stat().st_size
    assert len(caplog.records) == 1, "blank lines are no fault"


def test_a_piece_at_a_time_and_an_endless_line_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "events.jsonl"
    many = b"".join(warning(f"{n:07d}") for n in range(20_000))
    assert len(many) > PIECE_BYTES
    path.write_bytes(many + b"x" * (3 * PIECE_BYTES) + b"\n" + warning("last"))
    follower, found, calls = EventFollower(path), [], 0
    with caplog.at_level(logging.WARNING):
        while True:
            before = follower.offset
            found += messages(follower)
            calls += 1
            assert follower.offset - before <= 65 * PIECE_BYTES
            if not follower.behind:
                break
    assert found == [*(f"{n:07d}" for n in range(20_000)), "last"]
    assert calls <= 8
    assert [record.message.count("more than") for record in caplog.records] == [1]
    assert follower.offset == path.stat().st_size
    again = EventFollower(path)
    assert len(list(again.replay(follower.offset))) == 20_001


def test_a_line_that_outgrows_a_piece_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(warning("one") + b"y" * (PIECE_BYTES + 10))
    follower = EventFollower(path)
    assert messages(follower) == ["one"]
    assert messages(follower) == []
    successor = EventFollower(path)
    assert [e.event for e in successor.replay(follower.offset)] == ["warning"]
    assert successor.offset == follower.offset
    with path.open("ab") as file:
        file.write(b"y\n" + warning("two"))
    for each in (follower, successor):
        assert [m for _ in range(3) for m in messages(each)] == ["two"]


@given(st.lists(st.text(max_size=20), max_size=12), st.lists(st.integers(0, 400), max_size=8))
def test_however_it_grows_each_event_comes_once(texts: list[str], cuts: list[int]) -> None:
    whole = b"".join(warning(text) for text in texts)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.jsonl"
        follower, found = EventFollower(path), []
        for cut in [*sorted(min(c, len(whole)) for c in cuts), len(whole)]:
            path.write_bytes(whole[:cut])
            found += messages(follower)
    assert found == [one_line(text) for text in texts]


def test_a_job_that_wrote_much_and_ended_is_heard_to_its_last_word(tmp_path: Path) -> None:
    """`finished` stands behind megabytes of blanks: the job is finished, not failed."""
    rig = Rig(tmp_path)
    job = rig.running()
    for k in range(4):
        for _ in job.play(k):
            pass
    with (job.dir / "events.jsonl").open("ab") as file:
        file.write((b" " * 1023 + b"\n") * (3 * PIECE_BYTES // 1024))
    job.say("finished", step=40, reason="done")
    rig.launcher.end(job.dir)
    rig.run(2)
    assert job.show().state == "running", "it is not over before all it said was read"
    rig.run(4)
    assert job.show().state == "finished"
    assert job.id not in rig.supervisor.runs


# ---- fuzz


@pytest.mark.fuzz
@FUZZ
@given(edits=EDITS, event=st.sampled_from([READY, DONE]))
def test_any_bytes_in_a_line_cost_no_other_line(
    tmp_path: Path, tried: Callable[[], None], edits: list[tuple[int, int, bytes]], event: dict[str, Any]
) -> None:
    path = tmp_path / "events.jsonl"
    for data in damaged(json.dumps(event).encode(), edits):
        path.write_bytes(warning("before") + data + b"\n" + warning("after"))
        found = EventFollower(path).read()
        assert [found[0].event, found[-1].event] == ["warning", "warning"]
        assert 2 <= len(found) <= 3 + data.count(b"\n")
        tried()


@pytest.mark.fuzz
@FUZZ
@given(changes=CHANGES, event=st.sampled_from([READY, DONE]))
def test_any_values_in_a_line_cost_no_other_line(
    tmp_path: Path, tried: Callable[[], None], changes: list[tuple[int, Any, str]], event: dict[str, Any]
) -> None:
    path = tmp_path / "events.jsonl"
    lines = [json.dumps(document).encode() + b"\n" for document in changed(event, changes)]
    path.write_bytes(warning("before") + warning("between").join(lines) + warning("after"))
    found = EventFollower(path).read()
    assert sum(event.event == "warning" for event in found) >= len(lines) + 1
    for _ in lines:
        tried()


@pytest.mark.parametrize(("many", "most"), [("frontier", MOST_FRONTIER_POINTS), ("points", MOST_SETTINGS)])
def test_what_would_take_minutes_to_plan_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, many: str, most: int
) -> None:
    """All jobs wait for a plan: ten thousand settings in one event stopped the daemon for minutes."""
    one = {
        "frontier": {"rho": 0.5, "importance": 1.0},
        "points": {"setting": {"method": "full"}, "rho": 1.0, "gain": 0.1},
    }
    path = tmp_path / "events.jsonl"
    for number in (most, most + 1):
        event = READY | {"at": AT, many: [one[many]] * number}
        with path.open("a") as file:
            file.write(json.dumps(event) + "\n")
    [taken] = EventFollower(path).read()
    assert len(getattr(taken, many)) == most
    assert f"must have {most} entries or fewer" in caplog.text
