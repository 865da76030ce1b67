"""Makes samples of one device into deltas of energy. Pure: all that can go wrong between two samples is decided here.

Between two samples the energy is, in order of trust: the difference of the device's own counter; else power times
monotonic seconds; else unknown, which is null with the reason. A counter belongs to an epoch, one life of it, named
`<life>:<n>`: `life` is the boot (or whatever ends with the counter), `n` rises when the counter falls, which is what a
reloaded driver looks like. After a restart of the daemon the counter goes on from the ledger's mark: in the same epoch
the counter bridges the time nobody watched exactly; without a counter a short absence is estimated, a long one unknown.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from carbonsched.clock import LEAST_SLEEP_S
from carbonsched.model.energy import EnergyDelta, EnergyMethod
from carbonsched.power.base import Mark

HOLD_S: Final = 10.0
"""A power reading is taken to hold this long; of a longer stretch only so much counts as sampled."""
BRIDGE_S: Final = 900.0
"""Without a counter, an absence up to here is estimated, beyond it is unknown."""
STEP_S: Final = 1.0
"""Wall and monotonic time may part by this much in one stretch before it is a step of the clock."""
IMPLAUSIBLE: Final = 2.0
"""Mean power above this multiple of the device's limit over a stretch of HOLD_S or more: not the same counter."""


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
    """On a clock that stands still in suspend; None: not told, as if there was none."""


@dataclass(frozen=True, slots=True)
class _Last:
    at: datetime
    monotonic_s: float | None
    """None: another daemon's sample, read back from the ledger."""
    counter_mj: int | None
    power_w: float | None
    awake_s: float | None = None
    blind_from: datetime | None = None
    """Since when the counter could not be read; its next value covers that time too."""


class DeviceCounter:
    """The state of one device between samples.

    Example::

        counter = DeviceCounter("GPU-1", "nvml", boot_id(), watts_limit=300.0)
        delta = counter.add(sample)  # None for the first sample
    """

    def __init__(
        self,
        device: str,
        meter: str,
        life: str,
        *,
        power_method: EnergyMethod = EnergyMethod.INTEGRATED,
        power_is_mean: bool = False,
        counter_survives: bool = True,
        watts_limit: float | None = None,
    ) -> None:
        """`power_method`: what energy from power is called. `power_is_mean`: a sample's power is the mean since the
        sample before, not the power at its instant. `counter_survives`: the counter goes on while the daemon is away.
        """
        self.device, self.meter, self.life = device, meter, life
        self.watts_limit = watts_limit
        self._power_method, self._power_is_mean = power_method, power_is_mean
        self._counter_survives = counter_survives
        self._n = 0
        self._same_life = True
        self._last: _Last | None = None

    @property
    def epoch(self) -> str:
        return f"{self.life}:{self._n}"

    def resume(self, mark: Mark) -> None:
        """Go on where the ledger ends."""
        life, _, n = mark.counter_epoch.rpartition(":")
        self._same_life = life == self.life and n.isdigit()
        counter = mark.counter_mj if self._same_life and self._counter_survives else None
        if self._same_life:
            self._n = int(n) + (0 if self._counter_survives else 1)
        self._last = _Last(mark.at, None, counter, mark.power_w)

    def add(self, sample: Sample) -> EnergyDelta | None:
        """The delta since the sample before; None on the first one, and where no time has passed."""
        last = self._last
        if last is None:
            if sample.error is None:
                self._last = _last(sample)
            return None
        start, elapsed, stepped = _stretch(last, sample)
        if start >= sample.at or elapsed <= 0:
            return None
        if sample.error is not None:
            delta = self._unavailable(start, sample.at, sample.error)
            blind = last.blind_from or last.at
            self._last = _Last(sample.at, sample.monotonic_s, last.counter_mj, None, sample.awake_s, blind)
        elif last.monotonic_s is None:
            delta = self._bridge(last, sample, start, elapsed)
            self._last = _last(sample)
        else:
            delta = self._live(last, sample, start, elapsed)
            self._last = _last(sample)
        if stepped:
            delta = delta.model_copy(update={"reason": "; ".join(r for r in (delta.reason, stepped) if r)})
        return delta

    def _live(self, last: _Last, sample: Sample, start: datetime, elapsed: float) -> EnergyDelta:
        if last.counter_mj is None or sample.counter_mj is None:
            return self._from_power(last, sample, start, elapsed, None)
        broken = self._broken(last, sample, elapsed)
        if broken is None:
            return self._from_counter(last, sample, start, elapsed, bridged=False)
        self._n += 1
        if elapsed <= HOLD_S and sample.power_w is not None:
            return self._from_power(last, sample, start, elapsed, f"{broken}; power times time instead")
        return self._unavailable(start, sample.at, broken)

    def _bridge(self, last: _Last, sample: Sample, start: datetime, elapsed: float) -> EnergyDelta:
        away = f"the daemon was away for {elapsed:.0f} s"
        if not self._same_life:
            reason = f"{away} and the box or its driver was started anew"
            return self._unavailable(start, sample.at, reason, bridged=True)
        if last.counter_mj is not None and sample.counter_mj is not None:
            broken = self._broken(last, sample, elapsed)
            if broken is None:
                return self._from_counter(last, sample, start, elapsed, bridged=True)
            self._n += 1
            return self._unavailable(start, sample.at, f"{away}; {broken}", bridged=True)
        if elapsed > BRIDGE_S:
            reason = (
                f"{away}, no counter ran on, and that is too long to estimate (over {BRIDGE_S / 60:.0f} min)"
            )
            return self._unavailable(start, sample.at, reason, bridged=True)
        if last.power_w is None or sample.power_w is None:
            return self._unavailable(
                start, sample.at, f"{away} and the power before or after it is not known", bridged=True
            )
        watts = (last.power_w + sample.power_w) / 2
        reason = f"{away} and no counter ran on; estimated from the power before and after"
        return self._delta(
            start,
            sample.at,
            EnergyMethod.ESTIMATED,
            _mj(watts, elapsed),
            watts,
            bridged=True,
            coverage=0.0,
            reason=reason,
        )

    def _broken(self, last: _Last, sample: Sample, elapsed: float) -> str | None:
        """Why the two counter values are not of one life; None where they are."""
        assert last.counter_mj is not None and sample.counter_mj is not None  # noqa: S101, PT018
        used = sample.counter_mj - last.counter_mj
        if used < 0:
            return (
                f"the counter fell from {last.counter_mj} to {sample.counter_mj} mJ: the driver was reloaded"
            )
        span = elapsed if last.blind_from is None else (sample.at - last.blind_from).total_seconds()
        if last.monotonic_s is not None:
            span = max(
                span, sample.monotonic_s - last.monotonic_s
            )  # suspend included, in which a counter may go on
        mean_w = used / 1000 / span if span > 0 else 0.0
        if self.watts_limit and span >= HOLD_S and mean_w > IMPLAUSIBLE * self.watts_limit:
            return f"the counter rose by {mean_w:.0f} W on a device limited to {self.watts_limit:.0f} W"
        return None

    def _from_counter(
        self, last: _Last, sample: Sample, start: datetime, elapsed: float, *, bridged: bool
    ) -> EnergyDelta:
        assert last.counter_mj is not None and sample.counter_mj is not None  # noqa: S101, PT018
        used = sample.counter_mj - last.counter_mj
        method, reason, watts = EnergyMethod.COUNTER, None, used / 1000 / elapsed
        if last.blind_from is not None:
            method = EnergyMethod.ESTIMATED
            watts = used / 1000 / max((sample.at - last.blind_from).total_seconds(), elapsed)
            reason = (
                f"holds the energy since {last.blind_from:%H:%M:%S} too, when the counter could not be read"
            )
        return self._delta(
            start,
            sample.at,
            method,
            used,
            watts,
            counters=(last.counter_mj, sample.counter_mj),
            bridged=bridged,
            reason=reason,
        )

    def _from_power(
        self, last: _Last, sample: Sample, start: datetime, elapsed: float, reason: str | None
    ) -> EnergyDelta:
        if sample.power_w is None:
            return self._unavailable(
                start, sample.at, reason or "neither a counter nor the power could be read"
            )
        known = last.power_w is not None and not self._power_is_mean
        watts = (last.power_w + sample.power_w) / 2 if known and last.power_w is not None else sample.power_w
        coverage = 1.0 if self._power_is_mean else min(1.0, HOLD_S / elapsed)
        return self._delta(
            start, sample.at, self._power_method, _mj(watts, elapsed), watts, coverage=coverage, reason=reason
        )

    def _unavailable(
        self, start: datetime, end: datetime, reason: str, *, bridged: bool = False
    ) -> EnergyDelta:
        return self._delta(
            start, end, EnergyMethod.UNAVAILABLE, None, None, bridged=bridged, coverage=0.0, reason=reason
        )

    def _delta(
        self,
        start: datetime,
        end: datetime,
        method: EnergyMethod,
        energy_mj: int | None,
        power_w: float | None,
        *,
        counters: tuple[int, int] | None = None,
        bridged: bool = False,
        coverage: float = 1.0,
        reason: str | None = None,
    ) -> EnergyDelta:
        return EnergyDelta(
            device=self.device,
            start=start,
            end=end,
            energy_mj=energy_mj,
            power_w=power_w,
            method=method,
            counter_epoch=self.epoch,
            counter_start_mj=counters[0] if counters else None,
            counter_end_mj=counters[1] if counters else None,
            bridged=bridged,
            coverage=coverage,
            reason=reason,
            meter=self.meter,
        )


def _last(sample: Sample) -> _Last:
    return _Last(sample.at, sample.monotonic_s, sample.counter_mj, sample.power_w, sample.awake_s)


def _stretch(last: _Last, sample: Sample) -> tuple[datetime, float, str | None]:
    """(start on the wall, seconds, what to say if the wall clock was stepped or the box suspended meanwhile)."""
    wall = (sample.at - last.at).total_seconds()
    if last.monotonic_s is None:
        if wall > 0:
            return last.at, wall, None
        # the clock was set back past the ledger's end: how long the daemon was away cannot be told
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
            # nothing ran meanwhile: neither power nor the unknown counts for that time, what a counter says does
            said.append(f"the box was suspended for {slept:.0f} s")
            elapsed -= slept
    if not said:
        return last.at, elapsed, None
    return sample.at - timedelta(seconds=elapsed), elapsed, "; ".join(said)


def _mj(watts: float, seconds: float) -> int:
    return round(watts * seconds * 1000)
