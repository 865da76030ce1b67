"""Meters a recorded power curve in place of a GPU: for demonstrations and for tests that kill the daemon.

The counter is a pure function of wall time since 2026-01-01T00:00Z, in integer arithmetic, so it runs on while the
daemon is dead, exactly as a device's own counter does.
"""

import bisect
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NoReturn

from pydantic import Field, model_validator

from carbonsched.clock import Clock
from carbonsched.csv_text import CsvRow, csv_rows
from carbonsched.errors import InputError
from carbonsched.model.base import LocalPath, refusal
from carbonsched.model.energy import EnergyDelta
from carbonsched.power.base import Device, Mark, Meter, MeterSettings
from carbonsched.power.combined import CombinedMeter
from carbonsched.power.counter import DeviceCounter
from carbonsched.power.sample import Sample
from carbonsched.units import plain_number

EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)
_HEADER: Final = ["seconds", "watts"]
_MOST: Final = 1e10
"""Seconds, three centuries, or watts, more than any power station: counters stay whole numbers of a size."""
_MICROSECOND: Final = timedelta(microseconds=1)


class ReplaySettings(MeterSettings):
    """`[power]` with gpu = "replay".

    Example:
        >>> ReplaySettings(provider="replay", replay_file="watts.csv").replay_file
        'watts.csv'
    """

    provider: Literal["replay"]
    replay_file: LocalPath
    """CSV `seconds,watts` for gpu = "replay"; the counter runs on wall time, the daemon's or not."""

    replay_boards: Annotated[int, Field(ge=1, le=64)] = 1
    """How many devices there are, each with this curve."""

    @model_validator(mode="before")
    @classmethod
    def _require_file(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("replay_file") is None:
            raise refusal("replay_file", "is missing", "give a CSV of seconds,watts")
        return data

    def build(self, clock: Clock) -> Meter:
        """Reads the curve. Raises InputError with the file, the line and a hint."""
        path = Path(self.replay_file)
        return CombinedMeter([ReplayMeter(path, clock, index) for index in range(self.replay_boards)])


class PowerCurve:
    """Rows (µs, mW): each holds until the next, the last one for as long as the one before; then all over again.

    Example:
        >>> PowerCurve([(0, 100_000), (1_000_000, 300_000)]).watts(EPOCH + timedelta(seconds=1.5))
        300.0
    """

    def __init__(self, rows: list[tuple[int, int]]) -> None:
        starts = [at for at, _ in rows]
        last = starts[-1] - starts[-2] if len(starts) > 1 else 1_000_000
        self._starts = [at - starts[0] for at in starts]
        self._mw = [mw for _, mw in rows]
        self._span = starts[-1] - starts[0] + last
        ends = [*self._starts[1:], self._span]
        self._before = [0]
        for start, end, mw in zip(self._starts, ends, self._mw, strict=True):
            self._before.append(self._before[-1] + (end - start) * mw)
        self.watts_limit = max(self._mw) / 1000

    def watts(self, at: datetime) -> float:
        return self._mw[self._row((at - EPOCH) // _MICROSECOND % self._span)] / 1000

    def counter_mj(self, at: datetime) -> int:
        """Millijoules since `EPOCH`: µs × mW ÷ 10⁶, rounded down."""
        loops, into = divmod((at - EPOCH) // _MICROSECOND, self._span)
        row = self._row(into)
        used = loops * self._before[-1] + self._before[row] + (into - self._starts[row]) * self._mw[row]
        return used // 1_000_000

    def _row(self, into: int) -> int:
        return bisect.bisect_right(self._starts, into) - 1


def read_curve(path: Path) -> PowerCurve:
    """Read a `seconds,watts` CSV. Raises InputError with the file, the line and a hint."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, ValueError) as e:
        raise InputError(
            "power.replay_file", f"{path} cannot be read: {e}", "give a CSV of seconds,watts"
        ) from e

    def refuse(line: int, problem: str, hint: str) -> NoReturn:
        raise InputError(f"{path}, line {line}", problem, hint)

    lines = csv_rows(text, refuse)
    if [name.strip() for name in next(lines, CsvRow(1, [], "")).cells] != _HEADER:
        refuse(1, "is not the header `seconds,watts`", "write it as the first line")
    rows: list[tuple[int, int]] = []
    for number, cells, _ in lines:
        try:
            seconds, watts = (plain_number(cell) for cell in cells)
            at, mw = round(seconds * 1e6), round(watts * 1e3)
        except (ValueError, OverflowError):
            refuse(number, f"{','.join(cells)!r} is not two numbers", "write it like 10,250.5")
        if mw < 0:
            refuse(number, f"watts must not be negative, is {watts:g}", "write the device's power")
        if abs(seconds) > _MOST or watts > _MOST:
            refuse(number, f"{seconds:g},{watts:g} is beyond any device", "write seconds and watts")
        if rows and at <= rows[-1][0]:
            refuse(number, f"seconds must ascend, {seconds:g} does not", "sort the rows by seconds")
        rows.append((at, mw))
    if not rows:
        raise InputError(str(path), "holds no rows", "add at least one, like 0,250")
    return PowerCurve(rows)


class ReplayMeter:
    """One device, `replay-0` or another of that row, or the board of the given UUID.

    Example::

        joules = sum(delta.energy_mj or 0 for delta in ReplayMeter(Path("watts.csv"), clock).read()) / 1000
    """

    def __init__(self, path: Path, clock: Clock, index: int = 0, board: str | None = None) -> None:
        self._id = board or f"replay-{index}"
        self._curve, self._clock = read_curve(path), clock
        limit = self._curve.watts_limit
        self.devices: tuple[Device, ...] = (
            Device(id=self._id, kind="gpu", name=f"replay of {path.name}", index=index, watts_limit=limit),
        )
        self._counter = DeviceCounter(self._id, f"replay:{path.name}", "replay", watts_limit=limit)

    def resume(self, marks: dict[str, Mark]) -> None:
        if mark := marks.get(self._id):
            self._counter.resume(mark)

    def read(self) -> tuple[EnergyDelta, ...]:
        now = self._clock.now()
        delta = self._counter.add(
            Sample(
                now,
                self._clock.monotonic(),
                self._curve.counter_mj(now),
                self._curve.watts(now),
                awake_s=self._clock.awake(),
            )
        )
        return (*(() if delta is None else (delta,)), *self._counter.take_late())

    def close(self) -> None:
        """Nothing is held open."""
