"""Stores provider forecasts and the readings that followed in `<state_dir>/forecasts.jsonl`, so that a restart does not lose them.

Lines are appended, and the file is rewritten without the old ones once those are most of it. An incomplete last line is ignored. No failure
here stops or delays the daemon: it would only have to learn again.
"""

import contextlib
import json
import logging
import math
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from carbonsched.model import files
from carbonsched.model.grid import Basis
from carbonsched.plan.forecasting.archive import KeptForecast, ProviderRecord, Series

log = logging.getLogger(__name__)

MOST_BYTES: Final = 64 * 2**20
"""A longer file cannot be ours: four weeks of a provider take about 2 MB."""
MOST_SERIES: Final = 8
"""Providers that are remembered; beyond that, those unheard for longest are dropped."""
_MOST_PENDING: Final = 300
"""Lines kept in memory while the disk is full."""
_STALE_LINES: Final = 1000
"""Old lines that the file may hold, beside four for each forecast that is kept."""
_LAST_MS: Final = 32_503_680_000_000
"""The year 3000."""
_LARGEST: Final = 1e30

Came = Sequence[tuple[int, int, float]]
"""(start, end, g/kWh) of readings."""
Records = dict[Series, ProviderRecord]


@dataclass(slots=True)
class ForecastFile:
    """The forecast file of a box. Used by one thread; never raises.

    Example::

        file = ForecastFile(state_dir / "forecasts.jsonl")
        records = file.load(now_ms)
        file.keep(forecast_line(series, kept), records)
    """

    path: Path
    lines: int = 0
    """Approximate number of lines in the file."""
    pending: list[str] = field(default_factory=list)
    """Lines that could not be written yet."""
    _failing: bool = False

    def load(self, now: int) -> Records:
        """Load what is kept of the last four weeks. A damaged file is set aside, and its intact lines go into a new one."""
        records: Records = {}
        try:
            good, damage = self._read(records)
        except FileNotFoundError:
            return {}
        except OSError as e:
            log.warning("%s cannot be read, forecasts are scored from now on: %s", self.path, e.strerror)
            return {}
        self.lines = good
        _forget_old(records, now)
        if damage:
            aside = self.path.with_name(f"{self.path.name}.damaged")
            log.warning(
                "%s is damaged (%s): it is set aside as %s, %d good lines of it are kept",
                *(self.path, damage, aside.name, good),
            )
            with contextlib.suppress(OSError):
                self.path.replace(aside)
            self._rewrite(records)
        return records

    def keep(self, lines: Iterable[str], records: Records) -> None:
        """Append lines. While the disk is full they wait, and the first failure is logged."""
        self.pending += lines
        del self.pending[:-_MOST_PENDING]
        if not self.pending:
            return
        if self.lines > 4 * sum(len(record.forecasts.rows) for record in records.values()) + _STALE_LINES:
            self._rewrite(records)
            return
        try:
            _append(self.path, "".join(self.pending).encode())
        except OSError as e:
            self._failed(e)
            return
        self._written(self.lines + len(self.pending))

    def _read(self, records: Records) -> tuple[int, str]:
        """Return (intact lines, what is wrong with the others). Raises OSError."""
        with files.open_plain(self.path) as file:
            if os.fstat(file.fileno()).st_size > MOST_BYTES:
                return 0, f"longer than {MOST_BYTES} bytes"
            good, damage, end = 0, "", 0
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    self._cut(end)  # an interrupted write
                    break
                end += len(line)
                try:
                    _take(json.loads(line), records)
                    good += 1
                except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError):
                    damage = damage or f"line {number} is no forecast"
        return good, damage

    def _cut(self, end: int) -> None:
        with contextlib.suppress(OSError):
            os.truncate(self.path, end)

    def _rewrite(self, records: Records) -> None:
        """Rewrite the file with only what is kept. If that fails, the old file stays in use."""
        lines = [line for record in records.values() for line in _lines(record)]
        try:
            files.replace(self.path, "".join(lines))
        except OSError as e:
            with contextlib.suppress(OSError):
                self.path.with_name(f".{self.path.name}.tmp").unlink()
            self._failed(e)
            return
        self._written(len(lines))

    def _written(self, lines: int) -> None:
        self.pending.clear()
        self.lines, self._failing = lines, False

    def _failed(self, e: OSError) -> None:
        if not self._failing:
            log.warning("forecasts are not kept over a restart: %s: %s", self.path, e.strerror)
        self._failing = True


def forecast_line(series: Series, kept: KeptForecast) -> str:
    """A line of the file: one forecast as it was issued."""
    line: dict[str, Any] = {
        "of": _name(series),
        "at": kept.at,
        "issued": kept.issued_at,
        "runs": kept.runs.tolist(),
        "g": [round(value, 2) for value in kept.values],
    }
    if kept.highs is not None:
        line["high"] = [None if math.isnan(high) else round(high, 2) for high in kept.highs]
    return json.dumps(line, separators=(",", ":")) + "\n"


def readings_line(series: Series, came: Came) -> str:
    """A line of the file: readings that came, or were revised."""
    return json.dumps({"of": _name(series), "came": list(came)}, separators=(",", ":")) + "\n"


def _lines(record: ProviderRecord) -> Iterator[str]:
    readings = record.readings
    came = list(zip(readings.starts, readings.ends, readings.values, strict=True))
    if came:
        yield readings_line(record.series, came)
    for kept in record.forecasts.rows:
        yield forecast_line(record.series, kept)


def _name(series: Series) -> list[str | float | None]:
    return [series.provider, series.zone, series.basis, series.time_compression]


def _take(line: Any, records: Records) -> None:
    """Add a line to its record. Raises if the line is malformed."""
    provider, zone, basis, compression = line["of"]
    if not isinstance(provider, str) or not isinstance(zone, str) or not 0 < compression <= 1e9:
        raise ValueError("of")
    series = Series(provider, zone, None if basis is None else Basis(basis), float(compression))
    record = records.get(series) or ProviderRecord.of(series)
    if "came" in line:
        for start, end, value in line["came"]:
            _check(0 <= start < end <= _LAST_MS and 0 <= value < _LARGEST)
            record.readings.put(start, end, float(value))
    else:
        record.forecasts.put(_kept(line))
    records[series] = record


def _kept(line: Any) -> KeptForecast:
    runs, values = array("q", line["runs"]), array("f", line["g"])
    at, issued = line["at"], line["issued"]
    _check(isinstance(at, int) and isinstance(issued, int) and 0 <= at <= _LAST_MS)
    _check(len(runs) % 3 == 0 and len(values) > 0 and all(abs(value) < _LARGEST for value in values))
    end, points = 0, 0
    for start, step, count in zip(runs[::3], runs[1::3], runs[2::3], strict=True):
        _check(start >= end and 0 < step <= _LAST_MS and 0 < count <= len(values))
        end, points = start + step * count, points + count
    _check(points == len(values) and end <= _LAST_MS)
    highs = line.get("high")
    if highs is not None:
        highs = array("f", [math.nan if high is None else high for high in highs])
        _check(len(highs) == len(values))
    return KeptForecast(at, issued, runs, values, highs)


def _check(good: bool) -> None:
    if not good:
        raise ValueError("out of range")


def _forget_old(records: Records, now: int) -> None:
    """Drop what is older than four weeks, series that became empty, and those unheard for longest if there are too many."""
    for series, record in list(records.items()):
        record.forecasts.forget_before(now)
        record.forget_old(now)
        if not record.forecasts.rows and not record.readings.starts:
            del records[series]
    forget_unheard(records)


def forget_unheard(records: Records) -> None:
    """Drop the series that were heard longest ago, of more than MOST_SERIES."""

    def heard(series: Series) -> int:
        record = records[series]
        return max([0, *(row.at for row in record.forecasts.rows[-1:]), *record.readings.ends[-1:]])

    for series in sorted(records, key=heard, reverse=True)[MOST_SERIES:]:
        del records[series]


def _append(path: Path, raw: bytes) -> None:
    """Append all lines or none. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
    try:
        size = os.fstat(fd).st_size
        try:
            written = 0
            while written < len(raw):
                written += os.write(fd, raw[written:])
        except OSError:
            os.ftruncate(fd, size)
            raise
    finally:
        os.close(fd)
