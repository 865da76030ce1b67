"""A state folder of the first landed version (tests/fixtures/make_first_state.py made it by that version's own code) under today's daemon:
all its rows are there and verify as they were written, its reports come, and its jobs go on."""

import re
import sqlite3
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.first_state import write_first_state
from support.manual_clock import ManualClock
from support.replay_launcher import ReplayLauncher
from support.rig import ME, START, Played, Rig

from carbonsched.clock import Clock
from carbonsched.launch.base import ProcessStatus
from carbonsched.ledger.ledger import Ledger
from carbonsched.ledger.rows import moment
from carbonsched.model.job_state import JobState
from carbonsched.model.protocol import RunRecord
from carbonsched.model.views import ReportQuery

FIXTURES = Path(__file__).parents[1] / "fixtures"
AWAY_S = 20.0
"""Between the last row of the old version and the first tick of today's."""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The folder as that version left it; its directory is the rig's root."""
    folder = tmp_path / "state"
    write_first_state(folder)
    return folder


def written(state: Path, table: str) -> list[dict[str, Any]]:
    """Every row as it was before any of today's code saw it."""
    database = sqlite3.connect(state / "ledger.db")
    database.row_factory = sqlite3.Row
    rows = [dict(row) for row in database.execute(f'SELECT * FROM "{table}" ORDER BY 1')]  # noqa: S608
    database.close()
    return rows


def with_a_process(path: Path, clock: Clock) -> ReplayLauncher:
    """The trainer of one job outlived the daemon of the old version."""
    run = RunRecord(pid=1, start_time=1, boot_id="replay", started_at=START, argv=("trainer",))
    return ReplayLauncher(clock, statuses={path: ProcessStatus("running", run=run)})


def test_every_row_is_kept_and_verifies_as_it_was_written(state: Path) -> None:
    intervals, journal = written(state, "intervals"), written(state, "journal")
    segments = written(state, "segments")
    assert len(intervals) > 15
    with Ledger.open(f"sqlite:///{state}/ledger.db") as ledger:
        assert ledger.schema_version != "0001"
        found = ledger.verify()
        assert (found.ok, found.rows, found.entries) == (True, len(intervals), len(journal)), found
        kept = [{key: row[key] for key in intervals[0]} for row in ledger.rows()]
        assert kept == intervals
        assert all(row["schema"] is None for row in ledger.rows()), (
            "hashed as the version that wrote them did"
        )
    assert [{key: row[key] for key in segments[0]} for row in written(state, "segments")] == segments
    assert [{key: row[key] for key in journal[0]} for row in written(state, "journal")] == journal


def test_a_row_of_the_old_version_that_was_changed_is_still_found_out(state: Path) -> None:
    database = sqlite3.connect(state / "ledger.db")
    triggers = database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        database.execute(f'DROP TRIGGER "{name}"')
    database.execute("UPDATE intervals SET grams = grams * 0.5 WHERE id = 7")
    for _, sql in triggers:
        database.execute(sql)
    database.commit()
    database.close()
    with Ledger.open(f"sqlite:///{state}/ledger.db") as ledger:
        found = ledger.verify()
    assert (found.ok, found.first_bad) == (False, 7)


def test_its_jobs_are_shown_reported_and_go_on(state: Path) -> None:
    ids = {path.name.rpartition("-")[0]: path.name for path in (state / "jobs").iterdir()}
    amid_dir = state / "jobs" / ids["amid"]
    last = max(row["end_us"] for row in written(state, "intervals"))
    rig = Rig(
        state.parent,
        clock=ManualClock(moment(last) + timedelta(seconds=AWAY_S)),
        launchers=partial(with_a_process, amid_dir),
    )
    before = {job.name: job for job in rig.service.jobs(ME, every=True).jobs}
    assert {name: job.state for name, job in before.items()} == {
        "done": JobState.FINISHED,
        "cancelled": JobState.CANCELLED,
        "held": JobState.PAUSED,
        "amid": JobState.RUNNING,
        "queued": JobState.QUEUED,
    }
    assert before["done"].segments_over == 4
    assert before["done"].energy_j > 4 * 10 * 100
    pieces, _ = rig.service.render_report(ReportQuery(job=ids["done"]), "json", ME)
    assert re.search(rf'"energy_j":\s*{before["done"].energy_j:.0f}', "".join(pieces))
    rig.run(1)
    amid = Played(rig, ids["amid"])
    amid.done(1, amid.control()["rho"], 20.0)
    rig.run(1)
    for k in (2, 3):
        for _ in amid.play(k):
            pass
    amid.finish()
    assert amid.show().state is JobState.FINISHED, amid.show().reason
    assert [segment.k for segment in amid.show().segments_done] == [0, 1, 2, 3]
    assert amid.show().energy_j > before["amid"].energy_j + AWAY_S * 100 * 0.5, "it ran meanwhile"
    rig.service.resume(ids["held"], ME)
    for name in ("queued", "held"):
        played = Played(rig, ids[name])
        rig.run(1)
        assert played.show().state is JobState.RUNNING, played.show().reason
        played.started()
        rig.run(1)
        for k in range(4):
            for _ in played.play(k):
                pass
        played.finish()
        rig.run(1)
        assert played.show().state is JobState.FINISHED
    rig.supervisor.flush()
    assert rig.ledger.verify().ok
    rig.die()
