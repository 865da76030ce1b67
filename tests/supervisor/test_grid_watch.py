"""Feeds that fail and come back, as the journal tells of them."""

from pathlib import Path

from support.manual_clock import ManualClock
from support.provider import T0, ZONE, Provider, reading
from support.rig import Rig

from carbonsched.errors import FeedError
from carbonsched.feeds.chain import Chain
from carbonsched.supervisor.grid_watch import GridWatch


def told(watch: GridWatch) -> list[tuple[str, str, str | None]]:
    return [(status.name, status.state, status.error) for status in watch.changes()]


def test_each_change_of_a_feeds_state_is_told_once_with_its_reason() -> None:
    clock = ManualClock(T0)
    first, second = Provider("first", reading(0, 100)), Provider("second", reading(0, 300, length=600))
    watch = GridWatch(chain := Chain([first, second], ZONE, clock), clock)
    assert told(watch) == []
    chain.poll_due()
    assert told(watch) == [("first", "ok", None), ("second", "standby", None)]
    assert told(watch) == []
    first.fails(FeedError("first: HTTP 500"))
    clock.advance(300)
    chain.poll_due()
    assert told(watch) == [("first", "failing", "first: HTTP 500"), ("second", "ok", None)]
    first.gives(reading(0, 100))
    clock.advance(10)
    chain.poll_due()
    assert told(watch) == []  # once a minute at most
    clock.advance(60)
    assert told(watch) == [("first", "ok", None), ("second", "standby", None)]


def test_the_journal_has_it(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.supervisor.tick()
    rig.supervisor.tick()
    noted = list(rig.ledger.history(None, kinds=("feed",)))
    assert [(row["name"], row["state"], row["error"]) for row in noted] == [("static", "ok", None)]
