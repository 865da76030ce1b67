"""What must be true of a box after `support.kills`: every job, every process, every millijoule and gram. Raises AssertionError."""

import contextlib
from collections.abc import Mapping
from datetime import datetime
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carbonsched.ledger import Ledger
from carbonsched.ledger.rows import moment
from carbonsched.model.files import load
from carbonsched.model.protocol import ExitRecord, RunRecord
from carbonsched.power.replay import read_curve
from carbonsched.units import grams

if TYPE_CHECKING:
    from support.kills import Job

MARK = "CARBONSCHED_KILLS"
"""In the environment of everything that a round starts."""
G_PER_KWH, PUE = 300.0, 1.2
SLACK_J = 60.0
"""A job's joules may be so far off what its processes' times say: a quarter of a second at the most watts, those times being noted to
the millisecond and read by two clocks."""


def lives_of(folder: Path) -> list[tuple[RunRecord, ExitRecord | None]]:
    """Every process that a job had, oldest first, with how it ended where its shim could say."""
    found = []
    for path in folder.glob("run*.json"):
        run = load(path, RunRecord)
        assert run is not None, path
        found.append((run, load(path.with_name(path.name.replace("run", "exit", 1)), ExitRecord)))
    return sorted(found, key=lambda life: life[0].started_at)


def check(folder: Path, jobs: "Mapping[str, Job]", unanswered: int) -> dict[str, Any]:
    """Everything. jobs: those whose submit was answered; unanswered: submits of which nobody knows."""
    with Ledger.open(f"sqlite:///{folder}/state/ledger.db") as ledger:
        assert ledger.verify().ok
        rows = [dict(row) for row in ledger.rows()]
        _check_sums(folder, rows)
        records = {job.id: job for job in ledger.jobs()}
        assert set(jobs) <= set(records), f"lost: {set(jobs) - set(records)}"
        assert len(records) <= len(jobs) + unanswered, f"made up: {set(records) - set(jobs)}"
        lives = 0
        for job_id, job in jobs.items():
            mine = lives_of(folder / "state" / "jobs" / job_id)
            lives += len(mine)
            _check_lives(job, mine)
            _check_end(job, records[job_id].state, records[job_id].reason, mine)
            if records[job_id].state == "finished":
                assert [segment.k for segment in ledger.segments(job_id)] == [0, 1, 2], job_id
            _check_energy(folder, ledger, job_id, mine, [row for row in rows if row["job_id"] == job_id])
    _check_nothing_runs(folder)
    return {"jobs": len(jobs), "lives": lives, "rows": len(rows)}


def _check_sums(folder: Path, rows: list[dict[str, Any]]) -> None:
    """All rows together are what the counter went up by from the first to the last, and each gram follows from its joules."""
    curve = read_curve(folder / "watts.csv")
    first, last = moment(min(row["start_us"] for row in rows)), moment(max(row["end_us"] for row in rows))
    for row in rows:
        assert row["grams"] is not None, row
        assert abs(row["grams"] - grams(row["energy_mj"] / 1000, G_PER_KWH, PUE)) < 1e-9, row
    total = sum(row["energy_mj"] for row in rows)
    metered = curve.counter_mj(last) - curve.counter_mj(first)
    assert total == metered, f"{total - metered} mJ too many"


def _check_lives(job: "Job", lives: list[tuple[RunRecord, ExitRecord | None]]) -> None:
    """No two at a time, and each ended as it was made to."""
    for (_, end), (after, _) in pairwise(lives):
        assert end is None or after.started_at >= end.at, f"{job.id} ran twice at a time"
    for run, end in lives:
        killed = job.killed.get(run.pid)
        if killed == "shim" and end is None:
            continue  # else it had written how the trainer ended, and was about to go
        if killed == "trainer":
            assert end is not None, f"{job.id}: its shim did not say how the trainer ended"
            assert end.signal == 9, f"{job.id}: {end}"
        else:
            assert end is not None, f"{job.id}: {run} ended without a word"
            deaf = job.kind == "deaf" and end.signal == 9  # by the daemon, which told it to stop
            early = job.told and end.signal == 15
            assert deaf or early or end.code in ((0, 7) if job.kind == "exit-7" else (0,)), f"{job.id}: {end}"


def _check_end(job: "Job", state: str, reason: str, lives: list[tuple[RunRecord, ExitRecord | None]]) -> None:
    if job.cancelled:
        assert state in ("cancelled", "finished"), f"{job.id} was cancelled and is {state}: {reason}"
        return
    assert lives, f"{job.id} never ran: {state}, {reason}"
    end = lives[-1][1]
    if job.kind == "exit-7":
        assert state == "failed", f"{job.id}: {state}, {reason}"
        assert "exit code 7" in reason, f"{job.id}: {reason}"
        assert end is not None
        assert end.code == 7, f"{job.id}: {end}"
    else:
        assert state == "finished", f"{job.id}: {state}, {reason}"
        assert end is not None
        assert end.code == 0, f"{job.id}: {end}"


def _check_energy(
    folder: Path,
    ledger: Ledger,
    job_id: str,
    lives: list[tuple[RunRecord, ExitRecord | None]],
    rows: list[dict[str, Any]],
) -> None:
    """Where a board has one job: no fewer joules than its processes are known to have lived, no more than they can have."""
    shared = "jobs_per_board = 1" not in (folder / "config.toml").read_text()
    curve = read_curve(folder / "watts.csv")
    notes = ledger.history(job_id, kinds=("started", "ended"))
    least = most = 0.0
    for run, end in lives:
        if end is not None:
            least += (curve.counter_mj(end.at) - curve.counter_mj(run.started_at)) / 1000
    for note, after in zip_longest(notes, notes[1:]):
        if note["kind"] != "started":
            continue
        begun = datetime.fromisoformat(note["at"])
        until = datetime.fromisoformat(after["at"]) if after is not None else begun
        for run, end in lives:
            if end is not None and begun <= run.started_at <= until:
                until = min(until, end.at)
        most += max(0.0, (curve.counter_mj(until) - curve.counter_mj(begun)) / 1000)
    # over the rows' own times: a delta that bridges a daemon's absence is split by time, whatever the power was meanwhile, and says so
    joules = sum(
        curve.counter_mj(moment(row["end_us"])) - curve.counter_mj(moment(row["start_us"])) for row in rows
    )
    joules /= 1000
    slack = SLACK_J * max(len(lives), 1)
    assert joules <= most + slack, (
        f"{job_id} is charged {joules:.0f} J, its processes can have used {most:.0f} J"
    )
    assert shared or joules >= least - slack, (
        f"{job_id} is charged {joules:.0f} J, its processes used {least:.0f} J"
    )


def _check_nothing_runs(folder: Path) -> None:
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in (path / "environ").read_bytes():
                command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                raise AssertionError(f"process {path.name} is left: {command}")
