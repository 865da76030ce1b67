"""Carbon intensity of the grid: readings and forecasts in gCO2e per kWh, each with where it came from."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar, Final, Self

from pydantic import Field

from carbonsched.model.base import Doc, UtcTime

HELD: Final = "held: no newer value"
"""The note of an intensity that is used after its end finishes with these words."""


class Basis(StrEnum):
    """What an intensity means; two of them never meet in one budget.

    Example:
        >>> Basis("average-lifecycle") is Basis.AVERAGE_LIFECYCLE
        True
    """

    AVERAGE_LIFECYCLE = "average-lifecycle"
    AVERAGE_DIRECT = "average-direct"
    MARGINAL_DIRECT = "marginal-direct"
    MARGINAL_LIFECYCLE = "marginal-lifecycle"
    AVERAGE_UNSTATED = "average-unstated"
    """The provider does not say whether its factors are direct or lifecycle: it cannot be combined with another basis."""


class Kind(StrEnum):
    """How an intensity became known.

    Example:
        >>> Kind("fallback").value
        'fallback'
    """

    ACTUAL = "actual"
    ESTIMATED = "estimated"
    FORECAST = "forecast"
    STATIC = "static"
    """A constant that the configuration states as the source: no other feed stands before it."""
    FALLBACK = "fallback"
    """A constant that stands in because the feeds before it did not answer."""

    @property
    def constant(self) -> bool:
        """One number for all hours, which is an estimate for each."""
        return self in (Kind.STATIC, Kind.FALLBACK)

    @property
    def shown(self) -> str:
        """For people, who need not know that a constant is an estimate."""
        return f"{self}, a constant: estimated" if self.constant else str(self)


class Source(Doc):
    """The source of an intensity, stored with every ledger row.

    Example:
        >>> Source(provider="neso", zone="GB", basis="average-direct", kind="actual",
        ...     fetched_at="2026-11-22T10:00:00Z").kind
        <Kind.ACTUAL: 'actual'>
    """

    provider: str
    zone: str
    basis: Basis | None = None
    """Of an intensity; what is none, like a price, has none."""
    kind: Kind
    fetched_at: UtcTime
    issued_at: UtcTime | None = None
    """When the provider made the value, by its own statement; None if it makes none."""
    body_sha256: str | None = None
    """Of the raw body the value was read from; None where there was no body."""
    time_compression: float = 1.0
    """Grid seconds per wall second: above 1 only for replays."""
    note: str = ""
    """Shown to people, e.g. `synthetic`."""


class TimedValue(Doc):
    """A feed's value over [start, end) of wall time. A subclass names its one value, with the unit in the name.

    Example:
        >>> class Temperature(TimedValue):
        ...     FIELD: ClassVar[str] = "celsius"
        ...     celsius: float
        >>> source = Source(provider="roof", zone="GB", kind="actual", fetched_at="2026-11-22T10:05:00Z")
        >>> Temperature.of("2026-11-22T10:00:00Z", "2026-11-22T10:30:00Z", 4.5, source).value
        4.5
    """

    FIELD: ClassVar[str]
    """Name of the value's field."""

    start: UtcTime
    end: UtcTime
    source: Source
    grid_start: UtcTime | None = None
    """For replays: the trace's own time of `start`."""

    @property
    def value(self) -> float:
        return float(getattr(self, self.FIELD))

    @classmethod
    def of(
        cls,
        start: datetime | str,
        end: datetime | str,
        value: float,
        source: Source,
        grid_start: datetime | None = None,
    ) -> Self:
        """One of its kind. Raises ValidationError for what is no time, or beyond the years that are taken."""
        fields = {"start": start, "end": end, "source": source, "grid_start": grid_start, cls.FIELD: value}
        return cls.model_validate(fields)


class Reading(TimedValue):
    """Intensity over [start, end) of wall time.

    Example:
        >>> neso = Source(provider="neso", zone="GB", basis="average-direct", kind="actual",
        ...     fetched_at="2026-11-22T10:05:00Z")
        >>> Reading(start="2026-11-22T10:00:00Z", end="2026-11-22T10:30:00Z", g_per_kwh=124, source=neso).g_per_kwh
        124.0
    """

    FIELD: ClassVar[str] = "g_per_kwh"

    g_per_kwh: float


class Price(TimedValue):
    """What a kWh costs over [start, end) of wall time.

    Example:
        >>> source = Source(provider="energy-charts", zone="DE-LU", kind="actual", fetched_at="2026-11-22T10:05:00Z")
        >>> Price(start="2026-11-22T10:00:00Z", end="2026-11-22T11:00:00Z", eur_per_kwh=0.08, source=source).value
        0.08
    """

    FIELD: ClassVar[str] = "eur_per_kwh"

    eur_per_kwh: float
    """Negative if consumers are paid."""


class PueReading(TimedValue):
    """The facility's power usage effectiveness over [start, end) of wall time (ISO/IEC 30134-2).

    Example:
        >>> dcim = Source(provider="prometheus", zone="DE", kind="actual", fetched_at="2026-11-22T10:00:00Z")
        >>> PueReading(start="2026-11-22T10:00:00Z", end="2026-11-22T10:05:00Z", pue=1.18, source=dcim).value
        1.18
    """

    FIELD: ClassVar[str] = "pue"

    pue: float
    """Energy of the facility over energy of its computers; 1 and above."""


class SupplyUnit(StrEnum):
    """The unit in which a site's own supply is stated.

    Example:
        >>> SupplyUnit("kw") is SupplyUnit.KW
        True
    """

    SHARE = "share"
    """Of the box's energy, 0…1."""
    KW = "kw"
    """Power that the box may take from it, compared with the box's own."""


class SupplyReading(TimedValue):
    """What the site's own supply gives the box over [start, end) of wall time.

    Example:
        >>> roof = Source(provider="roof", zone="GB", kind="actual", fetched_at="2026-11-22T10:00:00Z")
        >>> SupplyReading(start="2026-11-22T10:00:00Z", end="2026-11-22T10:05:00Z", amount=1.2, unit="kw", g_per_kwh=0,
        ...     source=roof).value
        1.2
    """

    FIELD: ClassVar[str] = "amount"

    amount: float
    unit: SupplyUnit
    g_per_kwh: float
    """Of a kWh of the supply, on the zone's basis."""


class Supply(Doc):
    """What part of the box's energy came from its site's own supply over one stretch, and what that emits.

    Example:
        >>> solar = Source(provider="roof", zone="GB", kind="actual", fetched_at="2026-11-22T10:05:00Z")
        >>> Supply(share=0.4, g_per_kwh=0.0, source=solar).share
        0.4
    """

    share: Annotated[float, Field(ge=0, le=1)]
    """Of the box's energy: mean of the row, weighted by energy."""
    g_per_kwh: Annotated[float, Field(ge=0)]
    """Of a kWh of the supply, on the basis of the row's intensity."""
    source: Source


class ForecastPoint(Doc):
    """The intensity expected over [start, end), with the provider's band where it gives one.

    Example:
        >>> ForecastPoint(start="2026-11-22T10:00:00Z", end="2026-11-22T10:30:00Z", g_per_kwh=124).low is None
        True
    """

    start: UtcTime
    end: UtcTime
    g_per_kwh: float
    low: float | None = None
    high: float | None = None


class Forecast(Doc):
    """What a provider expected at one moment, ascending in time.

    Example:
        >>> neso = Source(provider="neso", zone="GB", basis="average-direct", kind="forecast",
        ...     fetched_at="2026-11-22T10:05:00Z")
        >>> Forecast(issued_at="2026-11-22T10:00:00Z", source=neso, points=()).points
        ()
    """

    issued_at: UtcTime
    source: Source
    points: tuple[ForecastPoint, ...]


class FeedStatus(Doc):
    """The state of one feed of the chain.

    Example:
        >>> FeedStatus(name="neso", state="ok", last_success="2026-11-22T10:00:00Z", error=None).state
        'ok'
    """

    name: str
    state: str
    """`ok`, `stale`, `failing`, `untried` or `standby`."""
    last_success: UtcTime | None
    error: str | None


class HorizonScore(Doc):
    """Accuracy of a provider's forecasts at one horizon, with persistence (the same time of the last known day) at the same times.

    Example:
        >>> HorizonScore(from_h=0, to_h=1, n=0).mae_percent is None
        True
    """

    from_h: float
    """Hours of grid time ahead: a replay's hours are the trace's."""
    to_h: float
    n: int
    """Points that were scored; 0: the figures are null."""
    mean_g_per_kwh: float | None = None
    """Mean of the readings, which the percentages are relative to."""
    mae_g_per_kwh: float | None = None
    """Mean absolute error."""
    bias_g_per_kwh: float | None = None
    """Mean of forecast minus reading: positive if forecasts are too high."""
    mae_percent: float | None = None
    bias_percent: float | None = None
    persistence_mae_g_per_kwh: float | None = None
    persistence_bias_g_per_kwh: float | None = None
    persistence_mae_percent: float | None = None
    persistence_bias_percent: float | None = None


class ForecastScore(Doc):
    """Accuracy of one provider's forecasts, compared with its own later readings.

    Example:
        >>> ForecastScore(provider="neso", zone="GB", basis="average-direct", forecasts=3, kept_h=2,
        ...     reason="not scored yet: 2 h of forecasts kept", horizons=()).forecasts
        3
    """

    provider: str
    zone: str
    basis: Basis | None
    forecasts: int
    """Kept, at most one an hour of four weeks."""
    kept_h: float
    """Grid hours from the first of them to the last."""
    reason: str | None
    """Why nothing is scored yet; None: something is."""
    horizons: tuple[HorizonScore, ...]


class GridNow(Doc):
    """The current intensity, or why it is unknown.

    Example:
        >>> GridNow(g_per_kwh=None, kind=None, provider=None, zone="GB", basis="average-direct", start=None, end=None,
        ...     fetched_at=None, reason="no feed has answered yet").reason
        'no feed has answered yet'
    """

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


class PricePoint(Doc):
    """What a kWh will cost over [start, end), as it is published.

    Example:
        >>> PricePoint(start="2026-11-22T10:00:00Z", end="2026-11-22T10:15:00Z", eur_per_kwh=-0.002).eur_per_kwh
        -0.002
    """

    start: UtcTime
    end: UtcTime
    eur_per_kwh: float


class PriceView(Doc):
    """What a kWh costs, in `carbonsched grid --json`.

    Example:
        >>> PriceView(now=None, reason="no source knows the price now", ahead=(), feeds=()).now is None
        True
    """

    now: Price | None
    reason: str | None
    """Why `now` is null."""
    ahead: tuple[PricePoint, ...]
    """From now on, as far as it is published."""
    feeds: tuple[FeedStatus, ...]


class SupplyView(Doc):
    """The current supply of the site, and its feeds.

    Example:
        >>> SupplyView(share=None, kw=None, g_per_kwh=None, provider=None, kind=None, start=None, end=None, fetched_at=None,
        ...     reason="no feed has answered yet", feeds=[]).share is None
        True
    """

    share: float | None
    """Share of the box's energy: as stated, or computed from the box's present power. None: unknown."""
    kw: float | None
    """None: the supply is stated as a share, or unknown."""
    g_per_kwh: float | None
    provider: str | None
    kind: Kind | None
    start: UtcTime | None
    end: UtcTime | None
    fetched_at: UtcTime | None
    time_compression: float = 1.0
    note: str = ""
    reason: str | None = None
    """Why it is null."""
    doubt: str | None = None
    """Why the figure is probably not meant: it is many times what the box can draw."""
    feeds: tuple[FeedStatus, ...]


class GridView(Doc):
    """`carbonsched grid --json`.

    Example:
        >>> now = GridNow(g_per_kwh=124, kind="actual", provider="neso", zone="GB", basis="average-direct",
        ...     start="2026-11-22T10:00:00Z", end="2026-11-22T10:30:00Z", fetched_at="2026-11-22T10:05:00Z")
        >>> GridView(now=now, forecast=[], feeds=[]).dump()["now"]["end"]
        '2026-11-22T10:30:00.000Z'
    """

    now: GridNow
    forecast: tuple[ForecastPoint, ...]
    feeds: tuple[FeedStatus, ...]
    forecast_source: Source | None = None
    """Whose forecast it is; for a blended one both names, with the weights in `note`."""
    forecast_reason: str | None = None
    """Why there is none, if one was asked for."""
    scores: tuple[ForecastScore, ...] = ()
    """For each provider that has forecast anything here."""
    prices: PriceView | None = None
    """None: the config has no `[[prices]]`."""
    supply: SupplyView | None = None
    """None: the box has no supply of its own, by its config."""
