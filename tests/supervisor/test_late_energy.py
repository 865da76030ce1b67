"""A meter that was blind for minutes: what it tells late is charged to those whose time it was."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from support.rig import Played, Rig, spec

from carbonsched.errors import LedgerError
from carbonsched.ledger.rows import micros
from carbonsched.model.energy import EnergyDelta
from carbonsched.power.counter import DeviceCounter
from carbonsched.power.sample import Sample
from carbonsched.report import build


@contextmanager
def blind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every device's driver hangs."""
    add = DeviceCounter.add

    def fail(self: DeviceCounter, sample: Sample) -> EnergyDelta | None:
        return add(self, replace(sample, counter_mj=None, power_w=None, error="the driver hangs"))

    with monkeypatch.context() as patch:
        patch.setattr(DeviceCounter, "add", fail)
        yield


def told(rig: Rig, job: Played) -> tuple[float, float, float]:
    """(joules, grams, unknown seconds) of a job by the ledger."""
    sums = rig.ledger.totals(job.id)
    return sums.energy_j, sums.grams, sums.unknown_s


@pytest.mark.parametrize("restarted", [False, True])
def test_a_blind_meter_charges_everybody_their_own_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restarted: bool
) -> None:
    rig = Rig(tmp_path)
    a = rig.running(spec("a"))
    rig.run(8)
    with blind(monkeypatch):
        rig.run(90)
        a.finish()
        b = rig.running(spec("b"))
        rig.run(30)
        if restarted:
            rig.supervisor.flush()
            rig.die()
            rig.boot()
        rig.run(170)
        assert told(rig, a)[2] == pytest.approx(91, abs=2)
        run = rig.supervisor.runs[b.id]
        assert run.account.reserved_g > 0
    rig.run(30)
    rig.supervisor.flush()
    # 100 W all the time: a was charged some 900 J of 10,100 before, and b 31,000 J of 23,000
    assert told(rig, a) == pytest.approx((10_100, 10_100 / 3.6e6 * 400, 0), abs=200)
    run = rig.supervisor.runs[b.id]
    assert told(rig, b) == pytest.approx((23_200, 23_200 / 3.6e6 * 400, 0), abs=400)
    assert run.account.spent_g == pytest.approx(told(rig, b)[1])
    assert run.account.reserved_g == 0
    assert run.account.segment_mj[None] == pytest.approx(
        run.account.spent_mj, abs=1 if not restarted else 10**9
    )
    assert sum(rig.energy().values()) == rig.metered_mj()
    audit = rig.ledger.verify()
    assert audit.ok, audit
    assert all(balance.ok for balance in audit.conservation)
    rows = {row["id"]: row for row in rig.ledger.rows()}
    late = [row for row in rows.values() if row["replaces"] is not None]
    assert late
    for row in late:
        before = rows[row["replaces"]]
        same = ("board", "start_us", "end_us", "account", "job_id", "segment", "g_per_kwh", "pue")
        assert [row[name] for name in same] == [before[name] for name in same]
        assert (before["energy_mj"], row["method"]) == (None, "estimated")
    report = build(rig.ledger, a.id, now=rig.clock.now())
    assert report.totals.energy_j == told(rig, a)[0]
    assert (report.totals.unknown_s, [gap.kind for gap in report.gaps]) == (0, [])
    assert any("Restated" in note for note in report.notes)


def refuse(*_: object) -> None:
    raise LedgerError("disk full")


def test_what_the_ledger_refuses_is_charged_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(tmp_path)
    job = rig.running()
    with blind(monkeypatch):
        rig.run(60)
    with monkeypatch.context() as patch:
        patch.setattr(rig.ledger, "append", refuse)
        rig.run(20)
        assert told(rig, job)[2] > 50
    rig.run(5)
    rig.supervisor.flush()
    assert told(rig, job)[2] == 0
    assert sum(rig.energy().values()) == rig.metered_mj()


def test_a_job_that_ends_while_a_meter_waits_is_charged_its_last_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path)
    job = rig.running()
    rig.run(8)
    with monkeypatch.context() as patch:
        patch.setattr(rig.supervisor.meter, "read", tuple)  # an odd value: the next one tells
        rig.run(3)
        job.finish()
        rig.run(2)
        assert job.show().state == "running"
    rig.run(1)
    assert job.show().state == "finished"
    rig.supervisor.flush()
    ended = rig.launcher.poll(job.dir).exit
    assert ended is not None
    assert max(row["end_us"] for row in rig.ledger.rows(job.id)) == micros(ended.at)
    assert sum(rig.energy().values()) == rig.metered_mj()


def test_a_meter_that_tells_nothing_more_does_not_keep_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path)
    job = rig.running()
    rig.run(8)
    monkeypatch.setattr(rig.supervisor.meter, "read", tuple)
    job.finish()
    rig.run(25)
    assert job.show().state == "finished"
