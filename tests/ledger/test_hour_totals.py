"""The totals of hours: a report from them is the report from the rows, whatever happened to the rows, and a wrong one is named."""

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from support.job_history import T0, interval, submitted, write_history

from carbonsched.errors import LedgerError
from carbonsched.ledger import Ledger
from carbonsched.ledger.archives import Archive
from carbonsched.ledger.hours import HourSums
from carbonsched.ledger.rollup import Retention, RollUp
from carbonsched.ledger.rows import micros
from carbonsched.ledger.settlements import Settlement
from carbonsched.model.energy import EnergyDelta, EnergyMethod
from carbonsched.model.grid import Basis, Kind
from carbonsched.report import build

HOUR = timedelta(hours=1)
BOARDS = ("GPU-a", "GPU-b", "host")


class Box:
    """A box that lives by a script: rows, blind spells, settlements, roll-ups, starts anew, and hours that are added up meanwhile."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.now = ledger, T0
        self.counters = dict.fromkeys(BOARDS, 0)
        for job in ("a", "b"):
            ledger.add_job(submitted(job))

    def rows(self, n: int, seconds: int, what: int) -> None:
        """what: mixes owners, segments, unknown energy and intensity, and spells that are bridged."""
        for k in range(n):
            rows = []
            for place, board in enumerate(BOARDS):
                job = (None, "a", "b")[(what + place) % 3]
                unknown = (what + place) % 5 == 4
                energy = None if unknown else 100 * seconds + what
                g = None if what % 7 == 3 else 200.0 + what + (self.now.hour % 3)
                counter = self.counters[board]
                rows.append(
                    interval(
                        self.now,
                        seconds,
                        energy,
                        board=board,
                        job_id=job,
                        segment=what % 3 if job else None,
                        rho=0.5 if what % 2 else None,
                        g_per_kwh=g,
                        counter=counter,
                        bridged=what % 11 == 5,
                        method=EnergyMethod.ESTIMATED if board == "host" else EnergyMethod.COUNTER,
                        reason=f"split {k}" if what % 4 == 1 else None,
                    )
                )
                self.counters[board] += energy or 0
            self.ledger.append(rows)
            self.now += timedelta(seconds=seconds)

    def told_late(self, back_s: int) -> None:
        delta = EnergyDelta(
            device="GPU-a",
            start=self.now - timedelta(seconds=back_s),
            end=self.now,
            energy_mj=12_345,
            power_w=1.0,
            method=EnergyMethod.ESTIMATED,
            counter_epoch="boot-1:0",
            counter_start_mj=self.counters["GPU-a"],
            counter_end_mj=self.counters["GPU-a"] + 12_345,
            bridged=False,
            coverage=1.0,
            reason="told late",
            meter="nvml",
        )
        if self.ledger.recover(delta):
            self.counters["GPU-a"] += 12_345

    def settle(self, back_s: int, length_s: int, g: float) -> None:
        start = self.now - timedelta(seconds=back_s)
        self.ledger.note(
            None, "settled", entry(start, start + timedelta(seconds=length_s), g).detail(), "daemon", self.now
        )

    def roll(self, days: float) -> None:
        RollUp(self.ledger, Retention(raw_days=0.0, minute_days=days), None).work(self.now)

    def die(self, hours: int) -> None:
        """In the middle of a transaction; the next process knows nothing of what this one remembered."""
        with suppress(ZeroDivisionError), self.ledger.transaction():
            self.ledger.append([interval(T0, 10, 1, board="host")])
            self.ledger.total_hours(self.now, hours)
            raise ZeroDivisionError
        self.ledger._known.clear()
        self.ledger._hour_us = 0


def entry(start: datetime, end: datetime, g: float) -> Settlement:
    return Settlement(
        start_us=micros(start),
        end_us=micros(end),
        g_per_kwh=g,
        provider="neso",
        zone="GB",
        zones=("GB",),
        basis=Basis.AVERAGE_DIRECT,
        kind=Kind.ACTUAL,
        note="",
        issued_at=None,
        fetched_at="2026-11-21T10:00:00.000000Z",
        body_sha256=None,
        was=(200.0, "neso", Kind.FORECAST),
    )


LIVES = st.lists(
    st.one_of(
        st.tuples(
            st.just("rows"), st.integers(1, 12), st.sampled_from([7, 60, 600, 5000]), st.integers(0, 60)
        ),
        st.tuples(st.just("wait"), st.integers(1, 9000)),
        st.tuples(st.just("told_late"), st.integers(60, 20_000)),
        st.tuples(
            st.just("settle"),
            st.integers(0, 30_000),
            st.integers(0, 9000),
            st.sampled_from([0.0, 90.5, 333.0]),
        ),
        st.tuples(st.just("add_up"), st.integers(1, 9)),
        st.tuples(st.just("roll"), st.sampled_from([0.0, 0.2])),
        st.tuples(st.just("die"), st.integers(0, 5)),
    ),
    min_size=3,
    max_size=18,
)


@settings(max_examples=60, deadline=None)
@given(LIVES, st.integers(0, 40_000))
def test_a_report_from_totals_is_the_report_from_rows(life: list[tuple[Any, ...]], begin_s: int) -> None:
    with Ledger.open("sqlite://") as ledger:
        box = Box(ledger)
        for what, *given_ in life:
            if what == "wait":
                box.now += timedelta(seconds=given_[0])
            elif what == "add_up":
                ledger.total_hours(box.now, given_[0])
            else:
                getattr(box, what)(*given_)
        verified = ledger.verify()
        assert "totals" not in (verified.problem or ""), verified.problem
        late = box.now + 2 * HOUR
        ledger.total_hours(late)
        start = T0 + timedelta(seconds=begin_s)
        asked = [(None, None, None), ("a", None, None), ("b", None, None), (None, start, start + 5 * HOUR)]
        kept = [figures(ledger, *each, now=late) for each in asked]
        ledger.drop_hours()
        assert [figures(ledger, *each, now=late) for each in asked] == kept


def figures(
    ledger: Ledger, job: str | None, start: datetime | None, end: datetime | None, now: datetime
) -> Any:
    return near(build(ledger, job, start, end, now=now).model_dump(mode="json"))


def near(value: Any) -> Any:
    if isinstance(value, float):
        return pytest.approx(value, rel=1e-9, abs=1e-9)
    if isinstance(value, dict):
        return {key: near(one) for key, one in value.items()}
    return [near(one) for one in value] if isinstance(value, list | tuple) else value


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A job's history, every hour of it added up."""
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        end = write_history(opened, submitted())
        assert opened.total_hours(end + 2 * HOUR) > 10
        yield opened


def test_the_storys_reports_are_the_same_without_totals(ledger: Ledger) -> None:
    now = T0 + timedelta(days=2)
    kept = [figures(ledger, job, None, None, now) for job in (None, "scitldr-1")]
    ledger.drop_hours()
    assert [figures(ledger, job, None, None, now) for job in (None, "scitldr-1")] == kept


def test_an_hour_is_added_up_ten_minutes_after_its_end_and_anew_where_rows_come_later() -> None:
    with Ledger.open("sqlite://") as ledger:
        ledger.append([interval(T0, 60, 100), interval(T0 + HOUR, 60, 50)])
        assert ledger.total_hours(T0 + HOUR + timedelta(minutes=9)) == 0
        assert ledger.total_hours(T0 + 3 * HOUR) == 2
        ledger.append([interval(T0 + timedelta(minutes=5), 60, 7, board="host")])
        assert rows_kept(ledger) == [1], "the first hour's are gone"
        assert ledger.total_hours(T0 + 3 * HOUR) == 1
        assert rows_kept(ledger) == [2, 1]


def rows_kept(ledger: Ledger) -> list[int]:
    with ledger.transaction() as connection:
        return list(connection.execute(text("SELECT rows FROM hours ORDER BY hour_us")).scalars())


def test_an_hour_whose_rows_became_others_meanwhile_is_added_up_once_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Rows come between the reading of an hour and the transaction that keeps its sums."""
    late = [interval(T0 + timedelta(minutes=5), 60, 7)]
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        ledger.append([interval(T0, 60, 100)])
        text_of = HourSums.text

        def said(sums: HourSums) -> str:
            while late:
                ledger.append([late.pop()])
            return text_of(sums)

        monkeypatch.setattr(HourSums, "text", said)
        assert ledger.total_hours(T0 + 3 * HOUR) == 1
        assert rows_kept(ledger) == [2]
        assert ledger.verify().ok


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("UPDATE hours SET energy_mj = energy_mj + 1", "mJ, its rows are"),
        ("UPDATE hours SET rows = rows - 1", "rows and"),
        ("DELETE_CELL", "its rows are not in them"),
        ("GRAMS", "grams is"),
        ("STEP", "tell other intensities than its rows"),
        ("UPDATE hours SET sums = 'nothing'", "cannot be read"),
    ],
)
def test_a_wrong_total_is_found_and_named_and_made_anew(ledger: Ledger, change: str, named: str) -> None:
    assert ledger.verify().ok
    with ledger.transaction() as connection:
        if change.isupper() or change.startswith("DELETE_"):
            spoil(connection, change)
        else:
            connection.execute(text(change))
    found = ledger.verify()
    assert not found.ok
    assert found.problem is not None
    assert named in found.problem
    assert found.problem.startswith("the totals of the hour from 2026-11-20T")
    assert "carbonsched audit add-up" in found.problem
    ledger.drop_hours()
    assert ledger.total_hours(T0 + timedelta(days=2)) > 10
    assert ledger.verify().ok


def spoil(connection: Any, change: str) -> None:
    hour, said = connection.execute(text("SELECT hour_us, sums FROM hours ORDER BY hour_us")).first()
    sums = json.loads(said)
    if change == "DELETE_CELL":
        sums["cells"].pop()
    elif change == "GRAMS":
        sums["cells"][0][13] += 0.01
    else:
        sums["steps"][0][2] += 1
    new = {"sums": json.dumps(sums), "hour": hour}
    connection.execute(text("UPDATE hours SET sums = :sums WHERE hour_us = :hour"), new)


def test_a_roll_up_leaves_the_totals(ledger: Ledger, tmp_path: Path) -> None:
    before = rows_kept(ledger)
    keep = Retention(raw_days=0.01, minute_days=0.02)
    assert RollUp(ledger, keep, Archive(tmp_path / "archive")).work(T0 + timedelta(days=2)).rows > 0
    assert rows_kept(ledger) == before
    found = ledger.verify()
    assert (found.ok, found.problem) == (True, None)


def test_rows_that_cannot_be_added_up_are_said(ledger: Ledger) -> None:
    with ledger.transaction() as connection:
        connection.execute(text("DROP TRIGGER intervals_no_update"))
        connection.execute(text("UPDATE intervals SET energy_mj = 'much' WHERE id = 3"))
    ledger.drop_hours()
    with pytest.raises(LedgerError, match="cannot be added up"):
        ledger.total_hours(T0 + timedelta(days=2))
