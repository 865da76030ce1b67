"""Makes samples of one device into deltas of energy. Pure: all that can go wrong between two samples is decided here.

Between two samples the energy is, in order of trust: the difference of the device's own counter; else power times
monotonic seconds, by all that was read of it between them; else unknown, which is null with the reason. A counter belongs to an epoch, one life of it, named
`<life>:<n>`: `life` is the boot (or whatever ends with the counter), `n` rises when the counter has begun anew, which is what a
reloaded driver looks like. One odd value proves nothing: a fall, or a rise that no board can make, is booked when the next value
bears it out, and forgotten when that goes on from the value before. A counter that nobody could read for a while, or that waited for a
restarted daemon, may have begun anew and passed its old value since: where its value allows that, what the driver said meanwhile, the other
boards' counters, and how little it rose decide. A counter that stands still while the board draws power is
not believed either; what it adds later replaces what was integrated meanwhile. After a restart of the daemon the counter goes on from the ledger's mark: in the same epoch
the counter bridges the time nobody watched exactly; without a counter a short absence is estimated, a long one unknown.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from carbonsched.model.energy import EnergyDelta, EnergyMethod
from carbonsched.power.base import Mark
from carbonsched.power.power_trace import HOLD_S, PowerReading
from carbonsched.power.sample import (
    JITTER_MJ,
    Last,
    Sample,
    last_of,
    mean_watts,
    reading_of,
    stretch,
    trace_between,
    without_jitter,
)
from carbonsched.units import split_mj

BRIDGE_S: Final = 900.0
"""Seconds. Without a counter, a shorter absence is estimated, a longer one unknown."""
IMPLAUSIBLE: Final = 2.0
"""Mean power above this multiple of the device's limit means another counter or a wild value."""
ANY_LIMIT_W: Final = 2500.0
"""For a device without a stated limit: no board draws this much."""
SENSOR_S: Final = 0.5
"""A counter may lag behind its time by this much: drivers update it every 20 to 100 ms, some boards more slowly."""
STANDS_S: Final = 2.0
"""A counter that does not move for so long while the board draws power is no longer waited for."""
SHORT: Final = 0.25
"""If a board's counter rose by less than this share of the lowest power known over an unmetered time, the counter is a new one."""


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
        """`power_method`: name of energy integrated from power. `power_is_mean`: a sample's power is the mean since the last sample, not
        the current value. `counter_survives`: the counter goes on while the daemon is away."""
        self.device, self.meter, self.life = device, meter, life
        self.watts_limit = watts_limit
        self._power_method, self._power_is_mean = power_method, power_is_mean
        self._counter_survives = counter_survives
        self._n = 0
        self._same_life = True
        self._last: Last | None = None
        self._late: list[EnergyDelta] = []
        self._odd: tuple[Sample, str] | None = None
        """A value that the next one has to confirm, and what is odd about it."""
        self._least_w: float | None = None
        """The lowest power known of the board in this epoch."""
        self._between: tuple[PowerReading, ...] = ()
        """Power read between samples whose counter values are not confirmed yet."""
        self._waits = False
        """The next value has to confirm the last one."""
        self._reloaded_twice = False
        """At the previous read the other counters had restarted too."""

    @property
    def epoch(self) -> str:
        return f"{self.life}:{self._n}"

    def resume(self, mark: Mark) -> None:
        """Continue where the ledger ends."""
        life, _, n = mark.counter_epoch.rpartition(":")
        self._same_life = life == self.life and n.isdigit()
        counter = mark.counter_mj if self._same_life and self._counter_survives else None
        if self._same_life:
            self._n = int(n) + (0 if self._counter_survives else 1)
        blind_from = mark.blind_from if counter is not None else None
        self._last = Last(mark.at, None, counter, mark.power_w, blind_from=blind_from)
        self._least_w = mark.least_w

    @property
    def wants_power(self) -> bool:
        """Whether energy is integrated from power now, or may be; more frequent readings then make it more accurate."""
        last = self._last
        if last is None or last.monotonic_s is None or last.power_w is None or self._power_is_mean:
            return False
        return last.counter_mj is None or last.stood_s > 0 or self._waits

    def take_late(self) -> tuple[EnergyDelta, ...]:
        """Return late energy: what the counter reported, with the last sample, for time that was booked as unknown."""
        found, self._late = tuple(self._late), []
        return found

    def falls(self, sample: Sample) -> bool | None:
        """Whether the counter has fallen by more than noise; None: there is no value now, or before."""
        if self._last is None or self._last.counter_mj is None or sample.counter_mj is None:
            return None
        return self._last.counter_mj - sample.counter_mj > JITTER_MJ

    def add(self, sample: Sample, *, reloaded: bool = False) -> EnergyDelta | None:
        """The delta since the last one. None at the first sample, and if the next value has to confirm this one: its delta then covers
        both. `reloaded`: the counters of the driver's other boards have fallen."""
        last = self._last
        if last is None:
            if sample.error is None:
                self._last = last_of(sample)
            return None
        start, elapsed, stepped = stretch(last, sample)
        if start >= sample.at or elapsed <= 0:
            return None
        twice, self._reloaded_twice = self._reloaded_twice and reloaded, reloaded
        if self._between:
            sample, self._between = replace(sample, between=self._between + sample.between), ()
        if sample.error is not None:
            delta = self._blind(last, sample, start, reloaded=twice)
        else:
            sample = self._without_wild_power(without_jitter(last, sample))
            broken = self._broken(last, sample, elapsed, reloaded=reloaded)
            odd = self._odd
            self._waits = self._must_wait(last, sample, elapsed, broken)
            if self._waits:
                self._between = sample.between + reading_of(sample)
                return None
            if broken is not None and odd is not None:
                broken = odd[1]
            away = last.monotonic_s is None
            self._odd, self._last = None, last_of(sample)
            delta = (self._bridge if away else self._live)(last, sample, start, elapsed, broken)
        if stepped:
            delta = delta.model_copy(update={"reason": "; ".join(r for r in (delta.reason, stepped) if r)})
        return delta

    def _blind(self, last: Last, sample: Sample, start: datetime, *, reloaded: bool) -> EnergyDelta:
        counter, blind = last.counter_mj, last.blind_from or last.at
        if reloaded and counter is not None:
            # written at once: a daemon that is started meanwhile has to know it too
            self._n, counter = self._n + 1, None
        doubt = sample.error if sample.life_over else last.doubt
        self._odd = None
        self._last = Last(sample.at, sample.monotonic_s, counter, None, sample.awake_s, blind, doubt=doubt)
        assert sample.error is not None  # noqa: S101
        return self._unavailable(start, sample.at, sample.error)

    def _must_wait(self, last: Last, sample: Sample, elapsed: float, broken: str | None) -> bool:
        """Whether the next value has to confirm this one."""
        if broken is not None:
            odd, self._odd = self._odd, (sample, broken)
            if odd is None:
                return True
            span = sample.monotonic_s - odd[0].monotonic_s
            # it continues neither the last value nor the odd one: after HOLD_S no further value is awaited
            return self._goes_on(odd[0].counter_mj, sample.counter_mj, span) is not None and (
                last.monotonic_s is not None and elapsed <= HOLD_S
            )
        return self._stands(last, sample, elapsed) and last.stood_s == 0 and elapsed < STANDS_S

    def _stands(self, last: Last, sample: Sample, elapsed: float) -> bool:
        """Whether the counter has not moved although the board drew power."""
        if last.counter_mj is None or last.counter_mj != sample.counter_mj or last.monotonic_s is None:
            return False
        return _mj(mean_watts(last, sample) or 0.0, elapsed) > JITTER_MJ

    def _live(
        self, last: Last, sample: Sample, start: datetime, elapsed: float, broken: str | None
    ) -> EnergyDelta:
        if last.counter_mj is None and sample.counter_mj is not None:
            reason = "the counter is read for the first time here; power times time up to it"
            return self._from_power(last, sample, start, elapsed, reason)
        if sample.counter_mj is None:
            # what it counts until it responds again is in none of its rows
            self._n += last.counter_mj is not None
            return self._from_power(last, sample, start, elapsed, None)
        if broken is not None:
            self._n += 1
            self._least_w = None
            if elapsed <= HOLD_S and sample.power_w is not None:
                return self._from_power(last, sample, start, elapsed, f"{broken}; power times time instead")
            return self._unavailable(start, sample.at, broken)
        if self._stands(last, sample, elapsed):
            return self._standing(last, sample, start, elapsed)
        if last.stood_mj:
            last = self._caught_up(last, sample, elapsed)
        return self._from_counter(last, sample, start, elapsed, bridged=False)

    def _standing(self, last: Last, sample: Sample, start: datetime, elapsed: float) -> EnergyDelta:
        """By power, in an epoch of its own: the rows before are the counter's, these are not."""
        if not last.stood_s:
            self._n += 1
        since = sample.at - timedelta(seconds=last.stood_s + elapsed)
        reason = f"the counter has stood still since {since:%H:%M:%S}; power times time instead"
        delta = self._from_power(last, sample, start, elapsed, reason)
        stood_mj = last.stood_mj + (delta.energy_mj or 0)
        self._last = replace(last_of(sample), stood_s=last.stood_s + elapsed, stood_mj=stood_mj)
        return delta

    def _caught_up(self, last: Last, sample: Sample, elapsed: float) -> Last:
        """The last sample with the counter as far as it is charged: what it now adds for the time it stood still is charged already."""
        assert last.counter_mj is not None and sample.counter_mj is not None  # noqa: S101, PT018
        recent = _mj(mean_watts(last, sample) or 0.0, elapsed)
        if sample.counter_mj - last.counter_mj <= recent + last.stood_mj / 2:
            return last  # it goes on as if there had been nothing
        return replace(last, counter_mj=min(last.counter_mj + last.stood_mj, sample.counter_mj))

    def _bridge(
        self, last: Last, sample: Sample, start: datetime, elapsed: float, broken: str | None
    ) -> EnergyDelta:
        away = f"the daemon was away for {elapsed:.0f} s"
        if not self._same_life:
            reason = f"{away} and the box or its driver was started anew"
            return self._unavailable(start, sample.at, reason, bridged=True)
        if last.counter_mj is not None and sample.counter_mj is not None:
            if broken is None:
                return self._from_counter(last, sample, start, elapsed, bridged=True)
            self._n += 1
            self._least_w = None
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

    def _without_wild_power(self, sample: Sample) -> Sample:
        """Drop power readings that no board can reach: some drivers return all ones if they have no value."""
        limit = IMPLAUSIBLE * (self.watts_limit or ANY_LIMIT_W)
        if any(not 0 <= reading.watts <= limit for reading in sample.between):
            tame = tuple(reading for reading in sample.between if 0 <= reading.watts <= limit)
            sample = replace(sample, between=tame)
        if sample.power_w is None or self._power_is_mean or 0 <= sample.power_w <= limit:
            return sample
        return replace(sample, power_w=None)

    def _broken(self, last: Last, sample: Sample, elapsed: float, *, reloaded: bool = False) -> str | None:
        """Why the two counter values are not of one life; None if they are, or there are none."""
        if last.monotonic_s is None and not self._same_life:
            return None
        span = elapsed if last.blind_from is None else (sample.at - last.blind_from).total_seconds()
        if last.monotonic_s is not None:
            # including suspend, during which a counter may go on
            span = max(span, sample.monotonic_s - last.monotonic_s)
        if (broken := self._goes_on(last.counter_mj, sample.counter_mj, span + last.stood_s)) is not None:
            return broken
        return self._passed(last, sample, span, reloaded=reloaded)

    def _goes_on(self, before_mj: int | None, after_mj: int | None, span: float) -> str | None:
        """Why a counter cannot have gone from one value to the other in `span` seconds; None if it can, or there is none."""
        if before_mj is None or after_mj is None:
            return None
        used = after_mj - before_mj
        if used < 0:
            return f"the counter fell from {before_mj} to {after_mj} mJ: the driver was reloaded"
        limit = self.watts_limit or ANY_LIMIT_W
        if used / 1000 > IMPLAUSIBLE * limit * (span + SENSOR_S):
            return f"the counter rose by {used / 1000 / span:.0f} W on a device limited to {limit:.0f} W"
        return None

    def _passed(self, last: Last, sample: Sample, span: float, *, reloaded: bool) -> str | None:
        """Why a counter that nobody read for `span` seconds has restarted and passed its old value since; None: it went on."""
        if last.counter_mj is None or sample.counter_mj is None:
            return None
        if self._goes_on(0, sample.counter_mj, span) is not None:
            return None  # more than it can have counted since
        if reloaded:
            return "the other boards' counters began anew: the driver was reloaded"
        if last.doubt is not None:
            return f"the counter begins anew after this: {last.doubt}"
        unwatched = last.monotonic_s is None or last.blind_from is not None
        known = [watts for watts in (self._least_w, last.power_w, sample.power_w) if watts is not None]
        rose_w = (sample.counter_mj - last.counter_mj) / 1000 / span
        if not unwatched or span < HOLD_S or not known or rose_w >= SHORT * min(known):
            return None
        return f"the counter rose by {rose_w:.0f} W only, and the board draws {min(known):.0f} W or more: it has begun anew meanwhile"

    def _from_counter(
        self, last: Last, sample: Sample, start: datetime, elapsed: float, *, bridged: bool
    ) -> EnergyDelta:
        assert last.counter_mj is not None and sample.counter_mj is not None  # noqa: S101, PT018
        used = sample.counter_mj - last.counter_mj
        method, reason, watts = EnergyMethod.COUNTER, None, used / 1000 / elapsed
        if sample.power_w:
            self._least_w = min(self._least_w or sample.power_w, sample.power_w)
        mark = last.counter_mj
        if last.blind_from is not None and last.blind_from < last.at:
            method = EnergyMethod.ESTIMATED
            blind_s = (last.at - last.blind_from).total_seconds()
            late_mj, used = split_mj(used, [blind_s, elapsed])
            watts = used / 1000 / elapsed
            reason = f"of the energy since {last.blind_from:%H:%M:%S}, when the counter could not be read, its part by time"
            self._late.append(
                self._delta(
                    last.blind_from,
                    last.at,
                    method,
                    late_mj,
                    late_mj / 1000 / blind_s,
                    counters=(mark, mark + late_mj),
                    reason=f"told at {sample.at:%H:%M:%S}, when the counter could be read again, and spread by time",
                ).model_copy(update={"recovered": True})
            )
            mark += late_mj
        return self._delta(
            start,
            sample.at,
            method,
            used,
            watts,
            counters=(mark, sample.counter_mj),
            bridged=bridged,
            reason=reason,
        )

    def _from_power(
        self, last: Last, sample: Sample, start: datetime, elapsed: float, reason: str | None
    ) -> EnergyDelta:
        if sample.power_w is None:
            return self._unavailable(
                start, sample.at, reason or "neither a counter nor the power could be read"
            )
        watts = (sample.power_w if self._power_is_mean else mean_watts(last, sample)) or 0.0
        read = trace_between(last, sample)
        coverage = min(1.0, HOLD_S / elapsed) if read is None else read.coverage
        delta = self._delta(
            start,
            sample.at,
            self._power_method,
            _mj(watts, elapsed),
            watts,
            coverage=1.0 if self._power_is_mean else coverage,
            reason=reason,
        )
        return delta if read is None else delta.model_copy(update={"profile": read.profile(start, sample.at)})

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


def _mj(watts: float, seconds: float) -> int:
    return round(watts * seconds * 1000)
