"""What `carbonsched grid --setup`, `--zones` and `--probe` print: a chain for a place, zones, and how feeds answered."""

from carbonsched.model.base import Doc, Line, UtcTime
from carbonsched.model.grid import Basis, Kind, SupplyUnit


class ProposedFeed(Doc):
    """A feed of a proposed chain, and what to know before using it.

    Example:
        >>> ProposedFeed(provider="neso", settings={"provider": "neso"}, basis="average-direct", step_min=30, forecast_h=48,
        ...     account=None, cost="free, CC BY 4.0", lacks="imports", unverified=None).forecast_h
        48.0
    """

    provider: str
    settings: dict[str, str]
    """Its table of `[[feeds]]`."""
    basis: Basis
    step_min: int | None
    """Minutes that a value holds; None: a year."""
    forecast_h: float
    """How far it looks ahead at best; 0: not at all."""
    account: str | None
    """How to get an account; None: none is needed."""
    cost: str
    lacks: str
    unverified: str | None
    """Why it has not been tested against the real provider; None: real answers were seen."""


class OtherChain(Doc):
    """Feeds of the place with another basis, which cannot be combined with the proposed ones.

    Example:
        >>> OtherChain(basis="marginal-direct", providers=("watttime",)).providers
        ('watttime',)
    """

    basis: Basis
    providers: tuple[str, ...]


class FeedProbe(Doc):
    """How one feed answered one request.

    Example:
        >>> FeedProbe(name="neso", provider="neso", ok=False, value=None, kind=None, start=None, end=None, horizon_h=None,
        ...     latency_s=0.2, basis="average-direct", error="HTTP 503", unverified=None).error
        'HTTP 503'
    """

    name: str
    provider: str
    ok: bool
    value: float | None
    """g/kWh that holds now, or held last."""
    kind: Kind | None
    start: UtcTime | None
    end: UtcTime | None
    horizon_h: float | None
    """Hours from now to the end of its forecast; None: it gave none."""
    latency_s: float | None
    """Duration of the whole poll; None: the feed could not be built."""
    basis: Basis | None
    error: str | None
    unverified: str | None
    may_read: Line | None = None
    """What its account may read, if the provider tells."""


class SupplyProbe(Doc):
    """How one feed of the site's own supply answered when it was asked once.

    Example:
        >>> SupplyProbe(name="roof", provider="prometheus", ok=True, amount=1.2, unit="kw", g_per_kwh=44.5, kind="actual",
        ...     start="2026-11-22T10:00:00Z", end="2026-11-22T10:05:00Z", latency_s=0.1, error=None).amount
        1.2
    """

    name: str
    provider: str
    ok: bool
    amount: float | None
    """In `unit`, that holds now."""
    unit: SupplyUnit
    g_per_kwh: float | None
    kind: Kind | None
    note: str = ""
    start: UtcTime | None
    end: UtcTime | None
    latency_s: float | None
    """What the whole poll took; None: it could not be built."""
    error: str | None


class ProbeList(Doc):
    """`carbonsched grid --probe --json`.

    Example:
        >>> ProbeList(feeds=()).ok
        True
    """

    feeds: tuple[FeedProbe, ...]
    prices: tuple[FeedProbe, ...] = ()
    """Of `[[prices]]`; their values are EUR/kWh."""
    supply: tuple[SupplyProbe, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every feed answered."""
        answered = (feed.ok for feed in (*self.feeds, *self.prices))
        return all(answered) and all(feed.ok for feed in self.supply)


class GridSetup(Doc):
    """`carbonsched grid --setup --json`.

    Example:
        >>> GridSetup(place="Atlantis", how="…", zone="XX", zone_name="Nowhere", country="XX", distance_km=None,
        ...     basis="average-lifecycle", feeds=(), why="nobody covers it", others=(), toml="").feeds
        ()
    """

    place: str
    """The place as given."""
    how: str
    """How its zone was found."""
    zone: str
    zone_name: str
    country: str
    """ISO 3166 code of two letters."""
    distance_km: float | None
    """Of coordinates: to the nearest place known."""
    basis: Basis
    feeds: tuple[ProposedFeed, ...]
    """In order of trust, all of one basis; empty: no feed covers the place."""
    why: str
    others: tuple[OtherChain, ...]
    toml: str
    """The `[zone]` and `[[feeds]]` lines."""
    written: str | None = None
    """The file that holds them now."""
    probe: tuple[FeedProbe, ...] | None = None
    """How they answered; None: nothing was asked (`--dry-run`)."""


class ZoneRow(Doc):
    """One zone of a list.

    Example:
        >>> ZoneRow(zone="DK-DK1", name="West Denmark", country="DK").place is None
        True
    """

    zone: str
    name: str
    country: str
    """ISO 3166 code of two letters."""
    place: str | None = None
    """The place that led to it, where it was no name of the zone."""
    distance_km: float | None = None
    """Of coordinates: to that place."""


class ZoneList(Doc):
    """`carbonsched grid --zones WORD --json`.

    Example:
        >>> ZoneList(zones=(ZoneRow(zone="FR", name="France", country="FR"),)).zones[0].zone
        'FR'
    """

    zones: tuple[ZoneRow, ...]
