"""The energy of one device over one stretch of time, and the account it is charged to."""

from enum import StrEnum

from carbonsched.model.base import Doc, UtcTime
from carbonsched.model.grid import Reading


class EnergyMethod(StrEnum):
    """How the joules of an interval came about."""

    COUNTER = "counter"
    """Difference of a hardware energy counter."""
    INTEGRATED = "integrated"
    """Power readings times seconds."""
    ESTIMATED = "estimated"
    """A model of the load (codecarbon), or a measured delta that was split or bridged by time."""
    UNAVAILABLE = "unavailable"
    """Not known; the energy is null and the reason says why."""


class Account(StrEnum):
    JOB = "job"
    IDLE = "idle"


class EnergyDelta(Doc):
    """What one device used over one stretch, before it is charged to anyone. Conservation is tested on these."""

    device: str
    """GPU UUID, `host`, or a replay's name."""
    start: UtcTime
    end: UtcTime
    energy_mj: int | None
    power_w: float | None
    """Mean over the stretch where known, else the reading at its end."""
    method: EnergyMethod
    counter_epoch: str
    """Names one life of the counter: changes when it was reset."""
    counter_start_mj: int | None = None
    counter_end_mj: int | None = None
    bridged: bool = False
    """The daemon was away during this stretch."""
    coverage: float = 1.0
    """Share of the stretch that was really sampled; a counter delta is 1."""
    reason: str | None = None
    meter: str = ""
    """Who measured, e.g. `nvml`, `codecarbon:cpu_load+ram`."""


class Interval(Doc):
    """One ledger row: a delta, or its share, charged to an account at an intensity."""

    account: Account
    job_id: str | None = None
    segment: int | None = None
    """None before the first segment and after the last: loading, evaluation."""
    delta: EnergyDelta
    intensity: Reading | None
    """None where no feed knew; grams are None then too."""
    pue: float
    pue_source: str
    rho: float | None = None
    grams: float | None
    """As decided: with the intensity known then."""
