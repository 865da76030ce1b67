"""A grid that a test invents, and what a test must know of a provider to have it tell of that grid."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from support.http_server import Reply

SECRET = "s3cr3t-token-of-a-test"  # noqa: S105
LENT = "l3nt-token-of-a-test"
"""What a login answers."""


@dataclass(frozen=True)
class Slot:
    start: datetime
    end: datetime
    g_per_kwh: float | None
    """None: the provider sends null."""


@dataclass(frozen=True)
class World:
    """What is true of the grid, and how the provider's server behaves today."""

    now: datetime
    slots: tuple[Slot, ...]
    """From two days ago to two days ahead, ascending; a fault may have doubled some."""
    wrong_zone: bool = False
    """The server answers for a zone that nobody asked for."""
    naive: bool = False
    """Times come without an offset: in the provider's local time zone where it has one."""
    most_rows: int | None = None
    """A silent cut: no more rows than these, the oldest."""

    @property
    def past(self) -> tuple[Slot, ...]:
        return tuple(slot for slot in self.slots if slot.start <= self.now)

    @property
    def ahead(self) -> tuple[Slot, ...]:
        """The slot that runs, and those after it."""
        return tuple(slot for slot in self.slots if slot.end > self.now)

    def between(self, start: datetime, end: datetime) -> tuple[Slot, ...]:
        return tuple(slot for slot in self.slots if slot.end > start and slot.start < end)

    def current(self) -> float:
        """What holds now."""
        return next(
            s.g_per_kwh for s in self.slots if s.start <= self.now < s.end and s.g_per_kwh is not None
        )

    def cut(self, rows: list[Any]) -> list[Any]:
        return rows if self.most_rows is None else rows[: self.most_rows]


def world(now: datetime, step: timedelta, days: float = 2.0) -> World:
    """A grid that swings between 150 and 350 g/kWh in a day."""
    first = now - now.replace(minute=0, second=0, microsecond=0)
    start = now - first - timedelta(days=days)
    count = round(2 * days * 86400 / step.total_seconds())
    found = []
    for i in range(count):
        at = start + i * step
        value = 250.0 + 100.0 * ((at.hour * 60 + at.minute) % 720 - 360) / 360
        found.append(Slot(at, at + step, round(value, 1)))
    return World(now, tuple(found))


@dataclass(frozen=True)
class ProviderCase:
    """A provider that the matrix tries."""

    name: str
    keys: dict[str, Any]
    """Of its `[[feeds]]` table, `provider` and `url` left out."""
    answer: Callable[[World, str], Reply]
    """What its server says of the world when a path, query and all, is asked for."""
    step: timedelta
    """Of its values."""
    basis: str = "average-lifecycle"
    zone: str = "XX"
    env: dict[str, str] = field(default_factory=dict)
    """Variables of the environment that hold its secrets."""
    login: str = ""
    """Path of its login, which lends `LENT`: the faults befall what is asked with it and, in a row of their own, the login."""
    local: ZoneInfo | None = None
    """The local time zone that some of its times are in."""
    late: timedelta = timedelta(0)
    """How long ago the newest slot that it tells of begins, at least: until the next one that is held."""
    cannot: dict[str, str] = field(default_factory=dict)
    """Fault → why this provider cannot have it; shown in the matrix."""

    def plain(self, world: World, **changes: Any) -> World:
        return replace(world, **changes)


def as_json(document: Any, status: int = 200) -> Reply:
    return Reply(json.dumps(document).encode(), status)
