"""One reading of a device, what is kept of the last one, and what is known of the time between them. Pure."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from carbonsched.clock import LEAST_SLEEP_S
from carbonsched.power.power_trace import PowerReading, PowerTrace, trace

STEP_S: Final = 1.0
"""Seconds by which wall and monotonic time may differ in one stretch before it counts as a clock step."""
JITTER_MJ: Final = 5_000
"""A counter may fall by this much through the sensor's noise."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading of a device. `error`: it could not be read, and why.

    Example::

        sample = Sample(clock.now(), clock.monotonic(), counter_mj=5_000, power_w=250.0)
    """

    at: datetime
    monotonic_s: float
    counter_mj: int | None = None
    power_w: float | None = None
    error: str | None = None
    awake_s: float | None = None
    """On a clock that stops during suspend; None: unknown, treated as no suspend."""
    between: tuple[PowerReading, ...] = ()
    """Its power since the last sample, if it was read more often."""
    life_over: bool = False
    """The error says that the counter's life is over: the driver is not loaded, or the board fell off the bus."""


@dataclass(frozen=True, slots=True)
class Last:
    """The last reading, and what was charged since.

    Example::

        last = last_of(sample)
        start, seconds, stepped = stretch(last, next_sample)
    """

    at: datetime
    monotonic_s: float | None
    """None: another daemon's sample, read back from the ledger."""
    counter_mj: int | None
    power_w: float | None
    awake_s: float | None = None
    blind_from: datetime | None = None
    """Since when the counter could not be read; its next value covers that time too."""
    stood_s: float = 0.0
    """How long the counter has stood still although the board drew power."""
    stood_mj: int = 0
    """What was charged by power for that time: a counter that catches up includes it."""
    doubt: str | None = None
    """Why the counter may have restarted since it was read, by what was reported in between."""


def last_of(sample: Sample) -> Last:
    return Last(sample.at, sample.monotonic_s, sample.counter_mj, sample.power_w, sample.awake_s)


def without_jitter(last: Last, sample: Sample) -> Sample:
    """Ignore a fall of the counter that is only the sensor's noise."""
    if last.counter_mj is None or sample.counter_mj is None:
        return sample
    fell = last.counter_mj - sample.counter_mj
    if 0 < fell <= JITTER_MJ and sample.counter_mj > last.counter_mj / 2:
        return replace(sample, counter_mj=last.counter_mj)
    return sample


def _mean(before: float | None, after: float | None) -> float | None:
    known = [watts for watts in (before, after) if watts is not None]
    return sum(known) / len(known) if known else None


def reading_of(sample: Sample) -> tuple[PowerReading, ...]:
    if sample.awake_s is None or sample.power_w is None:
        return ()
    return (PowerReading(sample.awake_s, sample.power_w),)


def trace_between(last: Last, sample: Sample) -> PowerTrace | None:
    """The power read between the two; None if it was not read."""
    own = reading_of(sample)
    if last.awake_s is None or last.power_w is None or not own or not sample.between:
        return None
    return trace(PowerReading(last.awake_s, last.power_w), sample.between, own[0])


def mean_watts(last: Last, sample: Sample) -> float | None:
    """Mean power from one to the other."""
    read = trace_between(last, sample)
    return _mean(last.power_w, sample.power_w) if read is None else read.mean_w


def stretch(last: Last, sample: Sample) -> tuple[datetime, float, str | None]:
    """(start on the wall clock, seconds, what to report if the wall clock was stepped or the box suspended meanwhile)."""
    wall = (sample.at - last.at).total_seconds()
    if last.monotonic_s is None:
        if wall > 0:
            return last.at, wall, None
        # the clock was set back past the ledger's end: how long the daemon was away is unknown
        return (
            sample.at - timedelta(milliseconds=1),
            0.001,
            f"the wall clock was set back by at least {-wall:.0f} s",
        )
    elapsed, said = sample.monotonic_s - last.monotonic_s, []
    if abs(wall - elapsed) > STEP_S:
        said.append(f"the wall clock was stepped by {wall - elapsed:+.0f} s")
    if last.awake_s is not None and sample.awake_s is not None:
        slept = elapsed - (sample.awake_s - last.awake_s)
        if slept >= LEAST_SLEEP_S:
            # nothing ran during suspend: neither power nor unknown energy counts for that time, but a counter does
            said.append(f"the box was suspended for {slept:.0f} s")
            elapsed -= slept
    if not said:
        return last.at, elapsed, None
    return sample.at - timedelta(seconds=elapsed), elapsed, "; ".join(said)
