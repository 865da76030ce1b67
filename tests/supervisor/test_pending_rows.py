"""A ledger that takes nothing: jobs are steered on, their rows are kept, and freed space heals without a hand."""

import logging
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from support.rig import ME, Rig, spec
from support.small_disk import small_disk

from carbonsched.errors import LedgerError, StateError
from carbonsched.model.job_state import JobState
from carbonsched.supervisor import pending_rows


def fill(rig: Rig) -> None:
    """From now on SQLite itself says that its disk is full: it may take no page more, and those it has are used up."""
    with rig.ledger._writer.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    for size in (3000, 300, 1):
        with suppress(LedgerError):
            for _ in range(1000):
                rig.ledger.note(None, "note", {"text": "x" * size}, "test", rig.clock.now())


def free(rig: Rig) -> None:
    with rig.ledger._writer.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=1000000")


def test_a_full_disk_neither_stops_a_tick_nor_loses_a_row(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(tmp_path, extra={"plan": {"lease_s": 60}})
    job = rig.running()
    assert list(job.play(0))
    fill(rig)
    caplog.clear()
    ticks = rig.supervisor.ticks
    job.ready(1)
    rig.run(2)
    first = job.control()
    assert (first["k"], first["action"]) == (1, "train"), "it is steered"
    rig.run(120)
    assert rig.supervisor.ticks == ticks + 122
    assert job.control()["lease"]["valid_until"] > first["lease"]["valid_until"], "its lease is renewed"
    spent = rig.supervisor.runs[job.id].account.spent_mj
    assert spent >= 140 * 100_000, "its account goes on"
    assert rig.supervisor.pending.rows
    kept = [record for record in caplog.records if "kept in memory" in record.message]
    assert 1 <= len(kept) <= 4, "one line a minute"
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]

    rig.service.pause(job.id, ME)
    assert rig.launcher.asked == [("terminate", job.dir)], "its stop goes through"
    folders = set((tmp_path / "state" / "jobs").iterdir())
    with pytest.raises(LedgerError, match="full"):
        rig.submit(spec("other"))
    assert set((tmp_path / "state" / "jobs").iterdir()) == folders, "no folder of what is no job"

    free(rig)
    job.finish("stopped")
    rig.run(3)
    assert job.show().state is JobState.PAUSED
    rig.supervisor.flush()
    assert not rig.supervisor.pending.rows
    assert not rig.supervisor.pending.notes
    rows = list(rig.ledger.rows())
    assert sum(r["energy_mj"] for r in rows) == rig.metered_mj()
    assert all(a["end_us"] == b["start_us"] for a, b in pairwise(rows))
    assert rig.ledger.verify().ok, rig.ledger.verify().problem
    said = [entry for entry in rig.ledger.history(job.id, kinds=("directive",)) if entry["k"] == 1]
    assert said, "what it was told meanwhile is in the journal"


def test_a_job_whose_folder_is_on_a_disk_that_is_really_full_is_steered_on(tmp_path: Path) -> None:
    with small_disk(tmp_path, 3) as disk:
        if disk is None:
            pytest.skip("a file system of three megabytes cannot be mounted here")
        rig = Rig(tmp_path, extra={"plan": {"lease_s": 60}})
        job = rig.running()
        job.ready(0)
        rig.run(1)
        disk.fill()
        first = job.control()
        rig.run(50)
        second = job.control()
        assert second["seq"] > first["seq"]
        assert second["lease"]["valid_until"] > first["lease"]["valid_until"], "its lease is renewed"
        disk.free()
        rig.run(50)
        assert job.control()["seq"] > second["seq"]
        rig.supervisor.flush()
        assert not rig.supervisor.pending.rows
        assert rig.ledger.verify().ok
        rig.die()


@pytest.mark.parametrize("carbon", [{"budget_share": 0.7}, {"budget_rate_g_per_h": 50.0}], ids=str)
def test_a_budget_that_is_worked_out_on_a_full_disk_holds_and_is_recorded_later(
    tmp_path: Path, carbon: dict[str, float]
) -> None:
    rig = Rig(tmp_path)
    job = rig.running(spec(budget_g=None, **carbon))
    reserve = tmp_path / "state" / "ledger.db.reserve"
    reserve.unlink()
    fill(rig)
    assert list(job.play(0)), "it is directed in the next tick, and by that budget"
    budget_g = rig.supervisor.runs[job.id].budget_g
    assert budget_g is not None
    old = rig.ledger.job(job.id).budget_g
    assert old != budget_g
    free(rig)
    if "budget_share" in carbon:
        rig.service.budget(job.id, 77.0, ME)  # a person's word comes after
    rig.run(1)
    said = [entry["budget_g"] for entry in rig.ledger.history(job.id, kinds=("budget",))]
    assert said[-2:] == [pytest.approx(budget_g), 77.0] if "budget_share" in carbon else said[-1] != old
    assert rig.ledger.job(job.id).budget_g == said[-1]
    assert rig.ledger.verify().ok
    assert reserve.stat().st_blocks * 512 >= 1024 * 1024, "room is kept anew"


def test_what_is_kept_is_bounded_and_what_is_lost_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pending_rows, "MOST_ROWS", 3)
    rig = Rig(tmp_path, devices=5)
    rig.run(1)
    fill(rig)
    rig.run(80)
    assert len(rig.supervisor.pending.rows) == 3
    assert "are lost" in caplog.text
    rig.supervisor.pending.close()
    assert "the ledger did not take its last lines: lost are 3 rows and 0 notes" in caplog.text
    free(rig)
    rig.run(1)
    assert not rig.supervisor.pending.rows


def test_a_row_that_contradicts_itself_holds_up_no_other(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.run(30)
    rig.supervisor.flush()
    rows = list(rig.ledger.rows())
    rig.clock.at = rig.clock.at.replace(year=2020)  # before the replayed counter began: below zero
    rig.run(60)
    rig.supervisor.flush()
    assert not rig.supervisor.pending.rows
    more = list(rig.ledger.rows())[len(rows) :]
    assert len(more) > 4
    assert (more[-1]["method"], more[-1]["energy_mj"]) == ("unavailable", None)
    assert "is not possible" in more[-1]["reason"]


def test_a_submission_without_room_for_its_folder_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("carbonsched.supervisor.service.save", refuse)
    with pytest.raises(StateError, match="No space left on device; free space"):
        rig.submit()
    assert not list((tmp_path / "state" / "jobs").iterdir())
    assert not rig.ledger.jobs()


def test_a_note_that_the_ledger_will_never_take_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path)
    rig.run(2)
    pending = rig.supervisor.pending

    def refuse(*_: object, **__: object) -> None:
        raise LedgerError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(rig.ledger, "transaction", refuse)
        pending.budget("no-such-job", 5.0, "as granted")
        pending.note(None, "note", {"text": "kept"})
    rig.run(1)
    assert (pending.notes, pending.lost) == ([], 1)
    assert rig.ledger.history(None, kinds=("note",))[-1]["text"] == "kept"
