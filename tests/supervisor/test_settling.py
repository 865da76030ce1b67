"""The account as settled: a real ledger, a real chain, a provider that revises, and daemons that come and go."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from threading import RLock
from typing import Any

import pytest
from support.job_history import interval
from support.manual_clock import ManualClock
from support.provider import T0, ZONE, Provider, reading
from support.rig import Rig

from carbonsched.errors import FeedError, LedgerError
from carbonsched.feeds.chain import Chain
from carbonsched.feeds.value_chain import HELD
from carbonsched.ledger import Ledger
from carbonsched.ledger.settlements import Settlement
from carbonsched.model.energy import Interval
from carbonsched.model.grid import Kind, Reading
from carbonsched.supervisor import settling as effects
from carbonsched.supervisor.grid_watch import GridWatch
from carbonsched.supervisor.pending_rows import PendingRows
from carbonsched.supervisor.settling import Settling
from carbonsched.units import grams

HOUR_S = 3600.0
CONSTANT = reading(-60 * 24 * 30, 777.0, length=60 * 24 * 60, provider="constant", kind=Kind.FALLBACK)


@dataclass
class Box:
    """A daemon's part that settles."""

    path: Path
    feeds: list[Provider]
    clock: ManualClock = field(default_factory=lambda: ManualClock(T0))

    def __post_init__(self) -> None:
        self.boot()

    def boot(self) -> None:
        self.ledger = Ledger.open(f"sqlite:///{self.path}")
        self.chain = Chain(self.feeds, ZONE, self.clock)
        self.pending = PendingRows(self.ledger, self.clock)
        watch = GridWatch(self.chain, self.clock)
        self.settling = Settling(self.ledger, watch, self.pending, RLock(), self.clock)

    def restart(self) -> None:
        self.ledger.close()
        self.boot()
        self.look()

    def look(self) -> None:
        """What the daemon's polling does once a second."""
        self.chain.poll_due()
        self.settling.poll()

    def work(self, minutes: int) -> None:
        """Rows of 10 s on two boards, charged with what the chain answers as they are written."""
        rows: list[Interval] = []
        for _ in range(minutes * 6):
            start = self.clock.now()
            rows += [charged(start, self.chain.reading_at(start), board) for board in ("GPU-1", "host")]
            self.clock.advance(10)
            self.chain.poll_due()
        self.ledger.append(rows)

    def entries(self) -> list[tuple[Any, ...]]:
        return [told(one) for one in self.ledger.settlements()]


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(
        tmp_path / "ledger.db", [Provider("a", every_s=60.0), Provider("constant", CONSTANT, local=True)]
    )
    yield made
    made.ledger.close()


def charged(start: datetime, known: Reading | None, board: str = "GPU-1") -> Interval:
    row = interval(start, 10, 5000, board=board)
    spent = None if known is None else grams(5.0, known.g_per_kwh, row.pue)
    return row.model_copy(update={"intensity": known, "grams": spent})


def told(one: Settlement) -> tuple[Any, ...]:
    """(minutes from T0, until, g/kWh, provider, kind, what it was)."""
    start, end = (round((us / 1e6 - T0.timestamp()) / 60, 3) for us in (one.start_us, one.end_us))
    return start, end, one.g_per_kwh, one.provider, one.kind, one.was


def test_a_revision_is_settled_once_and_a_restarted_daemon_knows_it(box: Box) -> None:
    a = box.feeds[0]
    a.gives(reading(0, 200, kind=Kind.ESTIMATED))
    box.look()
    box.work(30)
    a.gives(reading(0, 240), reading(30, 300))
    box.work(10)
    box.look()
    assert box.entries() == [], "once an hour"
    box.clock.advance(HOUR_S)
    box.look()
    wanted = [
        (0, 30, 240, "a", Kind.ACTUAL, (200, "a", Kind.ESTIMATED)),
        (30, 31, 300, "a", Kind.ACTUAL, (200, "a", Kind.ESTIMATED)),  # held until the poll
    ]
    assert box.entries() == wanted, "one entry for 360 rows; what was charged rightly has none"
    for _ in range(3):
        box.clock.advance(HOUR_S)
        box.look()
        box.restart()
    assert box.entries() == wanted
    a.gives(reading(0, 250), reading(30, 300))
    box.restart()
    again = (0, 30, 250, "a", Kind.ACTUAL, (240, "a", Kind.ACTUAL))
    assert box.entries() == [*wanted, again], "at the daemon's start, after the first poll"
    verified = box.ledger.verify()
    assert verified.ok, verified.problem
    [first, _, _] = box.ledger.history(None, ("settled",))
    assert first["was"] == {"g_per_kwh": 200.0, "provider": "a", "kind": "estimated"}
    assert (first["zone"], first["basis"], first["actor"]) == ("XX", "average-direct", "daemon")
    assert first["fetched_at"] == "2026-03-01T12:00:00.000000Z"


def test_a_value_that_was_held_or_stood_in_or_unknown_is_settled_once_it_is_told(box: Box) -> None:
    a, constant = box.feeds
    constant.fails(FeedError("not yet"))
    a.fails(FeedError("not yet"))
    box.look()
    box.work(10)  # unknown
    constant.gives(CONSTANT)
    box.clock.advance(900)
    box.chain.poll_due()
    box.work(5)  # a constant stands in
    a.gives(reading(30, 300, length=10))
    box.clock.advance(600)
    box.chain.poll_due()
    box.work(20)  # told until 40, then held
    a.gives(*(reading(at, 200 + at, length=10) for at in range(0, 60, 10)))
    box.clock.advance(HOUR_S)
    box.look()
    found = box.entries()
    kinds = {(was[0], was[1]) for *_, was in found}
    assert {(None, None), (777.0, "constant"), (300.0, "a")} <= kinds
    for start, end, g_per_kwh, provider, kind, was in found:
        assert g_per_kwh == 200 + start // 10 * 10
        assert end <= start // 10 * 10 + 10
        assert (provider, kind) == ("a", Kind.ACTUAL)
        assert was[0] != g_per_kwh
    rows = list(box.ledger.rows())
    assert any(row["note"] and row["note"].endswith(HELD) for row in rows)
    for row in rows:
        at = row["start_us"]
        now = [one for one in box.ledger.settlements() if one.start_us <= at < one.end_us]
        settled = now[-1].g_per_kwh if now else row["g_per_kwh"]
        told = box.chain.reading_at(T0 + timedelta(seconds=at / 1e6 - T0.timestamp()))
        assert told is not None
        assert settled == told.g_per_kwh


def test_what_a_restart_forgot_does_not_undo_what_was_known(box: Box) -> None:
    a = box.feeds[0]
    a.gives(reading(0, 200))
    box.look()
    box.work(20)
    a.fails(FeedError("down"))
    for _ in range(3):
        box.restart()
        box.clock.advance(HOUR_S)
        box.look()
    assert box.chain.reading_at(T0) is not None, "the constant"
    assert box.entries() == []


@pytest.mark.parametrize(
    ("settles_h", "after_h", "settled"), [(48, 47, True), (48, 48.5, False), (96, 48.5, True)]
)
def test_what_is_older_than_the_providers_settling_time_is_final(
    box: Box, settles_h: float, after_h: float, settled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = box.feeds[0]
    monkeypatch.setattr(a, "settles", timedelta(hours=settles_h), raising=False)
    a.gives(reading(0, 200))
    box.look()
    box.work(20)
    a.gives(reading(0, 250))
    box.clock.advance(after_h * HOUR_S)
    box.look()
    assert bool(box.entries()) is settled


def test_much_is_settled_in_passes(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effects, "MOST", 2)
    a = box.feeds[0]
    a.gives(*(reading(at, 200, length=5) for at in range(0, 30, 5)))
    box.look()
    box.work(30)
    a.gives(*(reading(at, 300 + at, length=5) for at in range(0, 30, 5)))
    box.clock.advance(HOUR_S)
    box.look()
    assert [found[:3] for found in box.entries()] == [(0, 5, 300), (5, 10, 305)]
    for _ in range(3):
        box.clock.advance(61)
        box.look()
    assert [found[2] for found in box.entries()] == [300, 305, 310, 315, 320, 325]


def test_a_ledger_that_refuses_is_asked_again(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    a = box.feeds[0]
    a.gives(reading(0, 200))
    box.look()
    box.work(20)
    a.gives(reading(0, 250))
    box.clock.advance(HOUR_S)

    def refuse(*_: object, **__: object) -> None:
        raise LedgerError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(box.ledger, "stretches", refuse)
        box.look()
    assert box.entries() == []
    box.clock.advance(61)
    with monkeypatch.context() as patch:
        patch.setattr(box.ledger, "note", refuse)
        box.look()
    assert box.entries() == []
    box.pending.save([])
    assert [found[2] for found in box.entries()] == [250]


def test_an_entry_that_cannot_be_read_holds_up_no_poll(box: Box, caplog: pytest.LogCaptureFixture) -> None:
    box.feeds[0].gives(reading(0, 200))
    box.ledger.note(None, "settled", {"start": "soon"}, "daemon", T0)
    box.look()
    box.clock.advance(61)
    box.look()
    assert "the account is not settled now: an entry 'settled' of the journal cannot be read" in caplog.text


def test_a_daemon_that_has_ended_writes_nothing(box: Box) -> None:
    a = box.feeds[0]
    a.gives(reading(0, 200))
    box.look()
    box.work(20)
    a.gives(reading(0, 250))
    box.clock.advance(HOUR_S)
    box.settling.close()
    box.look()
    assert box.entries() == []


def test_a_replay_that_runs_fast_is_looked_at_more_often_and_never_settled(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    hours = [f"2022-01-0{1 + h // 24}T{h % 24:02}:00:00Z,{100 + h}" for h in range(48)]
    trace.write_text("\n".join(["datetime,g_per_kwh", *hours]))
    feed = {"provider": "replay", "file": str(trace), "hour_s": 6.0, "basis": "average-lifecycle"}
    rig = Rig(tmp_path / "rig", extra={"feeds": [feed]})
    looked = 0
    stretches = rig.ledger.stretches

    def counted(since: datetime, until: datetime) -> Any:
        nonlocal looked
        looked += 1
        assert until - since == timedelta(seconds=48 * 6)
        return stretches(since, until)

    rig.ledger.stretches = counted  # type: ignore[method-assign]
    for _ in range(60):
        rig.supervisor.settling.poll()
        rig.run(1)
    assert 9 <= looked <= 11
    assert rig.ledger.settlements() == ()
    assert len({row["g_per_kwh"] for row in rig.ledger.rows()}) > 5
