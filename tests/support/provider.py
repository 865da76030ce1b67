"""A feed whose answers a test sets, and readings in minutes from one time."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from carbonsched.feeds.base import Answer
from carbonsched.feeds.chain import Chain
from carbonsched.feeds.zone import Zone
from carbonsched.model.grid import Basis, Forecast, Kind, Reading, Source

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)
ZONE = Zone(name="XX", basis=Basis.AVERAGE_DIRECT)


def minutes(n: float) -> timedelta:
    return timedelta(minutes=n)


def source(
    provider: str = "a",
    kind: Kind = Kind.ACTUAL,
    basis: Basis = Basis.AVERAGE_DIRECT,
    fetched: datetime = T0,
    zone: str = "XX",
) -> Source:
    return Source(provider=provider, zone=zone, basis=basis, kind=kind, fetched_at=fetched)


def reading(
    start: float, value: float, length: float = 30, provider: str = "a", kind: Kind = Kind.ACTUAL
) -> Reading:
    """Minutes from T0."""
    return Reading(
        start=T0 + minutes(start),
        end=T0 + minutes(start + length),
        g_per_kwh=value,
        source=source(provider, kind),
    )


class Provider:
    """A feed whose answers a test sets."""

    basis, zone = Basis.AVERAGE_DIRECT, "XX"

    def __init__(
        self,
        name: str,
        *readings: Reading,
        every_s: float = 300.0,
        max_age_s: float = 3600.0,
        local: bool = False,
    ) -> None:
        self.name, self.every_s, self.max_age_s, self.local = name, every_s, max_age_s, local
        self.answer: Callable[[], Answer] = lambda: Answer(readings)
        self.polls = 0

    def poll(self) -> Answer:
        self.polls += 1
        return self.answer()

    def gives(self, *readings: Reading, forecast: Forecast | None = None) -> None:
        self.answer = lambda: Answer(readings, forecast)

    def fails(self, error: BaseException) -> None:
        def answer() -> Answer:
            raise error

        self.answer = answer


def at(chain: Chain, minute: float) -> float | None:
    found = chain.reading_at(T0 + minutes(minute))
    return None if found is None else found.g_per_kwh


def states(chain: Chain) -> list[str]:
    return [status.state for status in chain.status()]
