"""Keeps a provider's forecasts as they were issued, and the readings that followed: the data from which forecast accuracy is learned.

No NumPy here: a daemon without jobs keeps this and does not plan. `ForecastHistory.of` turns it into arrays for the planner. Times are
milliseconds since 1970, as precise as documents are. A forecast of 384 quarters of an hour takes about 1.8 kB.
"""

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Self

from carbonsched.model.grid import Basis, Forecast, Kind, Reading, Source

DAY_MS: Final = 86_400_000
_HOURS_PER_DAY: Final = 24
_MOST_POINTS: Final = 1200
"""Points per forecast at most: four days at five minutes."""
_MOST_BYTES: Final = 4_000_000
"""Bytes of a provider's forecasts in memory at most; beyond that the oldest are dropped."""
_MOST_READINGS: Final = 9000
"""Readings per provider at most: 29 days at five minutes are 8,352."""
_ROW_BYTES: Final = 280
"""Memory of a stored forecast beside its numbers."""
_LARGEST: Final = 1e30
"""Above anything plausible, and within the range of a 32-bit float."""
CAME: Final = frozenset({Kind.ACTUAL, Kind.ESTIMATED})
"""Kinds of readings that forecasts are compared with: a reading that is itself a forecast, or a constant, would prove nothing."""


def ms(at: datetime) -> int:
    """Milliseconds since 1970.

    Example:
        >>> from datetime import UTC
        >>> ms(datetime(1970, 1, 1, 0, 0, 2, tzinfo=UTC))
        2000
    """
    return round(at.timestamp() * 1000)


@dataclass(frozen=True, slots=True)
class Series:
    """Identifies whose values these are: forecasts of one series are only compared with readings of the same.

    Example:
        >>> Series("neso", "GB", Basis.AVERAGE_DIRECT).day_ms
        86400000
    """

    provider: str
    zone: str
    basis: Basis | None
    time_compression: float = 1.0

    @classmethod
    def of(cls, source: Source) -> Self:
        """The series of values from `source`."""
        return cls(source.provider, source.zone, source.basis, source.time_compression)

    @property
    def day_ms(self) -> int:
        """Milliseconds of wall time in a grid day; fewer in a time-compressed replay."""
        return max(round(DAY_MS / self.time_compression), 1)


@dataclass(frozen=True, slots=True)
class KeptForecast:
    """One forecast as it was issued; its points are ascending and disjoint.

    Example:
        >>> hourly = KeptForecast(0, 0, array("q", [0, 3_600_000, 2]), array("f", [250.0, 200.0]))
        >>> [(start, value) for start, _, value in hourly.points()]
        [(0, 250.0), (3600000, 200.0)]
    """

    at: int
    """When it was received."""
    issued_at: int
    runs: "array[int]"
    """(start of the first point, length of each, how many) for every run of consecutive points of one length."""
    values: "array[float]"
    """g/kWh, to a hundredth."""
    highs: "array[float] | None" = None
    """The provider's own upper values; nan if it gives none."""

    @classmethod
    def of(cls, at: datetime, forecast: Forecast) -> Self:
        """Points that overlap the previous one, or are no number, are left out."""
        runs, values, highs = array("q"), array("f"), array("f")
        end_before = -1
        for point in sorted(forecast.points, key=lambda p: p.start):
            start, end = ms(point.start), ms(point.end)
            if end <= start or start < end_before or not abs(point.g_per_kwh) < _LARGEST:
                continue
            if len(values) == _MOST_POINTS:
                break
            append_span(runs, start, end)
            end_before = end
            values.append(round(point.g_per_kwh, 2))
            high = point.high
            highs.append(math.nan if high is None or not abs(high) < _LARGEST else round(high, 2))
        has_high = any(not math.isnan(high) for high in highs)
        return cls(ms(at), ms(forecast.issued_at), runs, values, highs if has_high else None)

    def spans(self) -> Iterator[tuple[int, int]]:
        """(start, end) of each point."""
        for i in range(0, len(self.runs), 3):
            start, step, count = self.runs[i : i + 3]
            for begin in range(start, start + step * count, step):
                yield begin, begin + step

    def points(self) -> Iterator[tuple[int, int, float]]:
        """(start, end, g/kWh) of each point."""
        for (start, end), value in zip(self.spans(), self.values, strict=True):
            yield start, end, value

    @property
    def size(self) -> int:
        """Approximate bytes in memory."""
        points = len(self.values) * (4 if self.highs is None else 8)
        return _ROW_BYTES + points + 8 * len(self.runs)


def append_span(runs: "array[int]", start: int, end: int) -> None:
    """Add a point to the runs of a `KeptForecast`: it extends the last run if it continues it."""
    step = end - start
    if runs and runs[-2] == step and runs[-3] + step * runs[-1] == start:
        runs[-1] += 1
    else:
        runs.extend((start, step, 1))


@dataclass(slots=True)
class ForecastArchive:
    """Forecasts of the last four weeks, at most one per hour of grid time.

    Example::

        archive = ForecastArchive()
        archive.add(clock.now(), chain.forecast())  # at every poll
    """

    day_s: float = 86_400.0
    """Wall seconds of a grid day; fewer in a time-compressed replay."""
    days: float = 29.0
    rows: list[KeptForecast] = field(default_factory=list)
    """Ascending by the time they were received."""
    size: int = 0
    """Approximate bytes in memory."""

    def add(self, now: datetime, forecast: Forecast | None) -> KeptForecast | None:
        """Add the forecast that holds at `now`, unless it is the same as the last; cheap enough for every poll. Forecasts from the future
        come from a clock that was set back since, and are dropped, because nothing would be added until it caught up. Returns what was
        added."""
        self._forget_after(ms(now))
        if forecast is None or not forecast.points:
            return None
        if self.rows:
            last = self.rows[-1]
            if ms(now) - last.at < self.hour_ms or ms(forecast.issued_at) == last.issued_at:
                return None
        kept = KeptForecast.of(now, forecast)
        if not kept.values:
            return None
        self.put(kept)
        return kept

    @property
    def hour_ms(self) -> float:
        """Milliseconds of wall time in a grid hour."""
        return self.day_s * 1000 / _HOURS_PER_DAY

    def put(self, kept: KeptForecast) -> None:
        """Add a stored forecast; it replaces all that were received at its time or later."""
        self._forget_after(kept.at - 1)
        self.rows.append(kept)
        self.size += kept.size
        self.forget_before(kept.at)

    def forget_before(self, now: int) -> None:
        """Drop what is older than four weeks, and the oldest if there are too many."""
        first = now - self.days * self.day_s * 1000
        old = bisect_right(self.rows, first, key=lambda row: row.at)
        size = self.size - sum(row.size for row in self.rows[:old])
        while size > _MOST_BYTES:
            size -= self.rows[old].size
            old += 1
        del self.rows[:old]
        self.size = size

    def _forget_after(self, at: int) -> None:
        ahead = bisect_right(self.rows, at, key=lambda row: row.at)
        if ahead < len(self.rows):
            self.size -= sum(row.size for row in self.rows[ahead:])
            del self.rows[ahead:]


@dataclass(slots=True)
class ReadingArchive:
    """The readings of one provider, kept as long as its forecasts; ascending and disjoint.

    Example:
        >>> readings = ReadingArchive()
        >>> readings.put(0, 1_800_000, 124.0), readings.put(0, 1_800_000, 124.0)
        (True, False)
    """

    starts: "array[int]" = field(default_factory=lambda: array("q"))
    ends: "array[int]" = field(default_factory=lambda: array("q"))
    values: "array[float]" = field(default_factory=lambda: array("d"))
    """g/kWh."""

    def put(self, start: int, end: int, value: float) -> bool:
        """Add a reading; a revision replaces what it overlaps. Returns whether anything changed."""
        lo, hi = bisect_right(self.ends, start), bisect_left(self.starts, end)
        if hi - lo == 1 and (self.starts[lo], self.ends[lo], self.values[lo]) == (start, end, value):
            return False
        self.starts[lo:hi] = array("q", (start,))
        self.ends[lo:hi] = array("q", (end,))
        self.values[lo:hi] = array("d", (value,))
        return True

    def forget_before(self, at: int) -> None:
        """Drop what ended before `at`, and the oldest if there are too many."""
        old = max(bisect_right(self.ends, at), len(self.starts) - _MOST_READINGS)
        if old > 0:
            del self.starts[:old], self.ends[:old], self.values[:old]

    def copy(self) -> "ReadingArchive":
        return ReadingArchive(self.starts[:], self.ends[:], self.values[:])


@dataclass(slots=True)
class ProviderRecord:
    """What one series forecast, and the readings that followed.

    Example::

        record = ProviderRecord.of(Series.of(forecast.source))
        record.forecasts.add(now, forecast)
        changed = record.add_readings(now, readings)
    """

    series: Series
    forecasts: ForecastArchive
    readings: ReadingArchive = field(default_factory=ReadingArchive)
    version: int = 0
    """Number of changes."""

    @classmethod
    def of(cls, series: Series) -> Self:
        """An empty record."""
        return cls(series, ForecastArchive(series.day_ms / 1000))

    def add_forecast(self, now: datetime, forecast: Forecast) -> KeptForecast | None:
        """As `ForecastArchive.add`."""
        kept = self.forecasts.add(now, forecast)
        if kept is not None:
            self.version += 1
        return kept

    def add_readings(self, now: datetime, readings: Sequence[Reading]) -> list[tuple[int, int, float]]:
        """Add the past readings that forecasts may be compared with. Returns the new ones."""
        found = []
        for reading in readings:
            span = ms(reading.start), ms(reading.end)
            if reading.source.kind not in CAME or reading.end > now or span[1] <= span[0]:
                continue
            value = round(reading.g_per_kwh, 3)
            if self.readings.put(*span, value):
                found.append((*span, value))
        if found:
            self.forget_old(ms(now))
            self.version += 1
        return found

    def forget_old(self, now: int) -> None:
        """Drop readings that are needed by no stored forecast, nor by the day before one."""
        self.readings.forget_before(now - round((self.forecasts.days + 1) * self.forecasts.day_s * 1000))

    def snapshot(self) -> "ProviderRecord":
        """A copy of the current state, for another thread."""
        forecasts = ForecastArchive(self.forecasts.day_s, self.forecasts.days, list(self.forecasts.rows))
        return ProviderRecord(self.series, forecasts, self.readings.copy(), self.version)
