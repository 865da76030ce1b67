"""Carbon intensity of the grid: readings and forecasts in gCO2e per kWh, each with where it came from."""

from enum import StrEnum

from carbonsched.model.base import Doc, UtcTime


class Basis(StrEnum):
    """What an intensity means; two of them never meet in one budget."""

    AVERAGE_LIFECYCLE = "average-lifecycle"
    AVERAGE_DIRECT = "average-direct"
    MARGINAL_DIRECT = "marginal-direct"
    MARGINAL_LIFECYCLE = "marginal-lifecycle"


class Kind(StrEnum):
    ACTUAL = "actual"
    ESTIMATED = "estimated"
    FORECAST = "forecast"
    FALLBACK = "fallback"
    """A constant that stands in because no feed answered."""


class Source(Doc):
    """Provenance of an intensity, carried into every ledger row."""

    provider: str
    zone: str
    basis: Basis
    kind: Kind
    fetched_at: UtcTime
    issued_at: UtcTime | None = None
    """When the provider says it made the value; None where it does not say."""
    body_sha256: str | None = None
    """Of the raw body the value was read from; None where there was no body."""
    time_compression: float = 1.0
    """Grid seconds per wall second: above 1 only for replays."""
    note: str = ""
    """Shown to people, e.g. `synthetic`."""


class Reading(Doc):
    """Intensity over [start, end) of wall time."""

    start: UtcTime
    end: UtcTime
    g_per_kwh: float
    source: Source
    grid_start: UtcTime | None = None
    """For replays: the trace's own time of `start`."""


class ForecastPoint(Doc):
    start: UtcTime
    end: UtcTime
    g_per_kwh: float
    low: float | None = None
    high: float | None = None


class Forecast(Doc):
    issued_at: UtcTime
    source: Source
    points: tuple[ForecastPoint, ...]


class FeedStatus(Doc):
    name: str
    state: str
    """`ok`, `stale`, `failing`, `untried` or `standby`."""
    last_success: UtcTime | None
    error: str | None


class GridNow(Doc):
    g_per_kwh: float | None
    kind: Kind | None
    provider: str | None
    zone: str
    basis: Basis
    start: UtcTime | None
    end: UtcTime | None
    fetched_at: UtcTime | None
    grid_start: UtcTime | None = None
    time_compression: float = 1.0
    note: str = ""
    reason: str | None = None
    """Why g_per_kwh is null."""


class GridView(Doc):
    """`carbonsched grid --json`."""

    now: GridNow
    forecast: tuple[ForecastPoint, ...]
    feeds: tuple[FeedStatus, ...]
