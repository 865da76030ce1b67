"""What a job's events leave in the ledger, also where it says far more than any job has to say."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from support.rig import FRONTIER, ME, Played, Rig, spec

from carbonsched.errors import LedgerError
from carbonsched.ledger.tables import INTERVALS, JOURNAL, SEGMENTS
from carbonsched.model.base import rfc3339
from carbonsched.model.job_state import JobState
from carbonsched.supervisor.jobs import job_run
from carbonsched.supervisor.jobs.event_limit import BURST
from carbonsched.supervisor.jobs.job_run import MOST_ROWS
from carbonsched.supervisor.jobs.process_state import MOST_SPANS

FIGURES = dict.fromkeys(("rho_directed", "rho_planned", "rho_realised"), 0.6) | dict.fromkeys(
    ("flops", "flops_full", "loss", "seconds", "importance_seconds", "selection_seconds"), 1.0
)
DONE: dict[str, Any] = FIGURES | {"first_step": 0, "steps": 10, "selected": ["a"], "directive_seq": 1}
READY: dict[str, Any] = {
    "segments": 100_000, "first_step": 0, "steps": 10, "steps_left": 40, "importance_batches": 1, "flops_full": 1e12,
    "rho_floor": 0.4, "frontier": [{"rho": r, "importance": i} for r, i in FRONTIER],
}  # fmt: skip
STEP: dict[str, Any] = {"k": 0, "steps": 40, "loss": 2.0, "lr": 1e-5, "seconds": 0.1}
HERE: dict[str, Any] = {"k": 0, "step": 3}
SAID: dict[str, Callable[[int], tuple[str, dict[str, Any]]]] = {
    "warning": lambda n: ("warning", {"message": f"w{n}"}),
    "evaluated": lambda n: ("evaluated", {"when": "segment", "step": n, "loss": 2.0, "samples": 3, "tokens": 4, "seconds": 1}),
    "one segment again": lambda _: ("segment_done", {"k": 0} | DONE),
    "segments of no job": lambda n: ("segment_done", {"k": 4 + n} | DONE),
    "checkpoint": lambda n: ("checkpoint", HERE | {"path": "c", "seconds": 0.1, "bytes": n}),
    "step": lambda n: ("step", {"step": n, "rho": 0.6} | STEP),
    "another ρ": lambda n: ("step", {"step": n, "rho": 0.6 + (n % 2) / 10} | STEP),
    "ready": lambda n: ("segment_ready", {"k": n} | READY),
    "waiting": lambda n: ("waiting", HERE | {"until": None, "reason": "x"}) if n % 2 else ("resumed", HERE),
    "started": lambda n: ("started", {"pid": n, "segments": 4, "steps": 40, "params": 3, "device": "cpu"}),
    "nothing of ours": lambda n: ("progress", {"percent": n}),
}  # fmt: skip


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def flood(rig: Rig, job: Played, kind: str, number: int) -> None:
    """So many events at once, spread over the second that passes next."""
    with (job.dir / "events.jsonl").open("a") as file:
        for n in range(number):
            name, fields = SAID[kind](n)
            at = rig.clock.now() + timedelta(seconds=0.9 * n / number)
            file.write(json.dumps({"at": rfc3339(at), "event": name} | fields) + "\n")


def rows(rig: Rig) -> int:
    with rig.ledger.transaction() as connection:
        counts = [
            connection.execute(select(func.count()).select_from(t)) for t in (INTERVALS, JOURNAL, SEGMENTS)
        ]
    return sum(count.scalar_one() for count in counts)


def read_all(rig: Rig, job: Played) -> int:
    """Tick until all that it said is read; the most rows that one tick made."""
    most, before = 0, rows(rig)
    for _ in range(50):
        rig.run(1)
        most, before = max(most, rows(rig) - before), rows(rig)
        if not rig.supervisor.runs[job.id].follower.behind:
            return most
    raise AssertionError("it is never read to its end")


def notes(rig: Rig, job: Played) -> list[dict[str, Any]]:
    return [n for n in rig.ledger.history(job.id, kinds=("note",)) if n["actor"] == "trainer"]


def reboot(rig: Rig) -> None:
    rig.die()
    rig.boot()


@pytest.mark.parametrize("kind", SAID)
def test_a_flood_of_any_event_makes_few_rows_a_tick_and_charges_what_was_used(rig: Rig, kind: str) -> None:
    job, other = rig.running(), rig.submit(spec("other"))
    flood(rig, job, kind, 1000)
    assert read_all(rig, job) <= 100
    run = rig.supervisor.runs[job.id]
    assert len(run.progress.done) <= BURST + 1
    assert len(run.progress.evaluated) <= BURST + 3
    assert len(run.process.spans) <= MOST_SPANS
    limit = run.limit
    reboot(rig)
    again = rig.supervisor.runs[job.id]
    assert again.limit.unsaid() == limit.unsaid()
    assert [d.k for d in again.progress.done] == [d.k for d in run.progress.done]
    assert again.progress.step == run.progress.step
    rig.service.cancel(job.id, ME)
    job.finish("stopped")
    rig.run(20)
    assert job.show().state is JobState.CANCELLED
    assert other.show().state is JobState.RUNNING
    rig.supervisor.flush()
    assert sum(rig.energy().values()) == rig.metered_mj()
    assert rig.ledger.verify().ok


def many_segments(rig: Rig, number: int) -> Played:
    """A job that has announced so many segments and says at once that all have ended."""
    job = rig.submit()
    rig.run(1)
    job.steps, job.segment = number, 1
    job.started()
    rig.run(1)
    with (job.dir / "events.jsonl").open("a") as file:
        for k in range(number):
            line = {"at": rfc3339(rig.clock.now()), "event": "segment_done", "k": k} | DONE
            file.write(json.dumps(line) + "\n")
    return job


def test_a_job_of_very_many_segments_is_recorded_a_bounded_piece_a_tick(rig: Rig) -> None:
    number = MOST_ROWS + 50
    job = many_segments(rig, number)
    assert read_all(rig, job) <= 2 * MOST_ROWS + 5
    assert len(rig.ledger.segments(job.id)) == number, "none is lost: the job has announced them"


def test_events_that_a_full_disk_keeps_out_of_the_ledger_do_not_fill_the_memory(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_run, "MOST_ROWS", 10)
    monkeypatch.setattr(job_run, "MOST_UNSAVED", 50)
    job = many_segments(rig, 80)

    def refuse(*_: object, **__: object) -> None:
        raise LedgerError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(rig.ledger, "set_offset", refuse)
        rig.run(9)
        assert len(rig.supervisor.runs[job.id].unsaved) == 50
        assert "disk full" in job.show().reason
    rig.run(6)
    assert len(rig.ledger.segments(job.id)) == 80, "they are read once there is room"


@pytest.mark.parametrize("restarts", [False, True], ids=["one-daemon", "restarted"])
def test_of_a_flood_of_warnings_the_journal_has_the_first_and_the_number_of_the_others(
    rig: Rig, restarts: bool
) -> None:
    job = rig.running()
    with (job.dir / "events.jsonl").open("a") as file:
        for n in range(20_000):
            line = {"event": "warning", "at": rfc3339(rig.clock.now()), "message": f"w{n}"}
            file.write(json.dumps(line) + "\n")
    rig.run(4)
    said = notes(rig, job)
    assert [note["text"] for note in said[:20]] == [f"w{n}" for n in range(20)]
    assert len(said) == 21
    assert 0 < said[20]["more"] < 19_980, "at once, though the file has not been read to its end"
    if restarts:
        reboot(rig)
    rig.run(3)
    assert len(notes(rig, job)) == 21
    job.say("warning", message="the last")
    job.finish()
    rig.run(2)
    said = notes(rig, job)
    assert len(said) == 22
    assert sum(note.get("more", 1) for note in said) == 20_001, (
        "none is left out of the number, none counted twice"
    )
    assert rig.ledger.verify().ok
