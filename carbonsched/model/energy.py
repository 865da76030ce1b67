"""The energy of one device over one stretch of time, and the account it is charged to."""

from datetime import datetime
from enum import StrEnum

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from carbonsched.model.base import Doc, UtcTime
from carbonsched.model.grid import Price, Reading, Supply
from carbonsched.units import J_PER_KWH, MJ_PER_J, grams


class EnergyMethod(StrEnum):
    """How the joules of an interval became known.

    Example:
        >>> EnergyMethod("counter") is EnergyMethod.COUNTER
        True
    """

    COUNTER = "counter"
    """Difference of a hardware energy counter."""
    INTEGRATED = "integrated"
    """Power readings times seconds."""
    ESTIMATED = "estimated"
    """A model of the load (codecarbon), or a measured delta that was split or bridged by time."""
    IMPORTED = "imported"
    """Taken over from another tool's log: not metered here."""
    UNAVAILABLE = "unavailable"
    """Unknown; the energy is null and the reason says why."""


NOT_ALONE = "not a job's alone"
"""Part of the reason of energy that was charged to a job while somebody else computed on its board too."""


class Account(StrEnum):
    """Who a row is charged to.

    Example:
        >>> Account("idle") is Account.IDLE
        True
    """

    JOB = "job"
    IDLE = "idle"
    IMPORTED = "imported"
    """Energy from another tool's log; not of a job."""


class BudgetAccount(StrEnum):
    """Which grams of a row a budget is charged.

    Example:
        >>> BudgetAccount("on-site") is BudgetAccount.ON_SITE
        True
    """

    LOCATION = "location"
    """All energy at the grid's intensity."""
    ON_SITE = "on-site"
    """With the site's own supply; at the grid's intensity where the supply is unknown."""


class EnergyDelta(Doc):
    """What one device used over one stretch, before it is charged to anyone. Conservation is tested on these.

    Example:
        >>> delta = EnergyDelta(device="GPU-1", start="2026-11-22T10:00:00Z", end="2026-11-22T10:00:01Z", energy_mj=300_000,
        ...     power_w=300, method="counter", counter_epoch="boot:0")
        >>> delta.energy_mj / 1000 / delta.power_w  # seconds
        1.0
    """

    device: str
    """GPU UUID, `host`, or a replay's name."""
    start: UtcTime
    end: UtcTime
    energy_mj: int | None
    power_w: float | None
    """Mean over the stretch if known, else the reading at its end."""
    method: EnergyMethod
    counter_epoch: str
    """Names one life of the counter: it changes when the counter was reset."""
    counter_start_mj: int | None = None
    counter_end_mj: int | None = None
    bridged: bool = False
    """The daemon was away during this stretch."""
    recovered: bool = False
    """Late energy: its stretch was booked as unknown before, and those rows are replaced."""
    coverage: float = 1.0
    """Share of the stretch that was really sampled; 1 for a counter."""
    reason: str | None = None
    meter: str = ""
    """Who measured, e.g. `nvml`, `codecarbon:cpu_load+ram`."""
    profile: SkipJsonSchema[tuple[tuple[datetime, float], ...]] = Field(default=(), exclude=True, repr=False)
    """How the energy was distributed over the stretch, if power was read in it: (time, joules since the start); used to split it."""


class Interval(Doc):
    """One ledger row: a delta, or its share, charged to an account at an intensity.

    Example:
        >>> delta = EnergyDelta(device="GPU-1", start="2026-11-22T10:00:00Z", end="2026-11-22T10:00:01Z", energy_mj=300_000,
        ...     power_w=300, method="counter", counter_epoch="boot:0")
        >>> Interval(account="job", job_id="a-1", delta=delta, intensity=None, pue=1.2, pue_source="config", grams=None).rho is None
        True
    """

    account: Account
    job_id: str | None = None
    segment: int | None = None
    """None before the first segment and after the last: loading, evaluation."""
    delta: EnergyDelta
    intensity: Reading | None
    """None if no feed knew; grams are then None too."""
    pue: float
    pue_source: str
    rho: float | None = None
    grams: float | None
    """As decided: with the intensity known then. Location-based: all energy at the grid's intensity."""
    supply: Supply | None = None
    """None where the site has no supply of its own, or it was not known."""
    price: Price | None = None

    @property
    def on_site_grams(self) -> float | None:
        """The same energy with the site's own supply counted; None where that or the grams are not known."""
        if self.supply is None or self.intensity is None or self.delta.energy_mj is None:
            return None
        grid_g_per_kwh = self.intensity.g_per_kwh
        share = self.supply.share
        mixed = (1 - share) * grid_g_per_kwh + share * self.supply.g_per_kwh
        return grams(self.delta.energy_mj / MJ_PER_J, mixed, self.pue)

    def charged_g(self, account: BudgetAccount) -> float | None:
        """The grams that a budget is charged; None where they are not known."""
        if account is BudgetAccount.ON_SITE and self.on_site_grams is not None:
            return self.on_site_grams
        return self.grams

    @property
    def eur(self) -> float | None:
        """What the energy cost, PUE included; None where it or the price is not known."""
        if self.price is None or self.delta.energy_mj is None:
            return None
        return self.delta.energy_mj / MJ_PER_J / J_PER_KWH * self.pue * self.price.eur_per_kwh
