"""Gathers the hour sums that a report needs, and computes the curve over its time.

Hour sums cover everything (`carbonsched.ledger.hours`), since rows of idle boards have the intensity while a job waited; only the requested
ones are charged. A curve over less than 2 days, or of a job over less than 10, uses the rows, as an hour is wider than its steps.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final

from carbonsched.ledger.hours import HOUR_US, Cell, HourSums, Run, absorb, groups_of
from carbonsched.ledger.rows import micros, moment
from carbonsched.ledger.settlements import Settled
from carbonsched.ledger.totals import Era, Group, charged_g
from carbonsched.model.energy import BudgetAccount, EnergyMethod
from carbonsched.model.grid import Basis, Kind
from carbonsched.report.coverage import Watched
from carbonsched.report.energy_cost import EnergyCost
from carbonsched.report.market import Hours
from carbonsched.report.parts import FeedUse, Gap, Point, PueUse
from carbonsched.report.savings import Spent
from carbonsched.report.settled import Differences
from carbonsched.report.timing import Curve, Work
from carbonsched.units import MJ_PER_J

BINS: Final = 240
GAPS: Final = 200
_LONG_US: Final = 48 * HOUR_US
"""A curve over the whole box uses hours from this length on: a week of 8 boards has half a million rows."""
_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)

_Feed = tuple[str, str, str, str, float, str]
_Stroke = tuple[int, int, str, int | None, float, int | None]
"""(start, end, board, segment, grams charged, mJ): a part of a curve."""


@dataclass(slots=True)
class _Bin:
    weighted: float = 0.0
    covered: float = 0.0
    grams: float = 0.0
    energy_mj: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    """By board: seconds with known energy here."""
    segment: int | None = None

    @property
    def power_w(self) -> float | None:
        """Sum of simultaneous boards over the time they were charged, so that a start within a bin is no dip."""
        longest = max(self.seconds.values(), default=0.0)
        return self.energy_mj / MJ_PER_J / longest if longest > 0 else None


@dataclass(slots=True)
class Timeline:
    """Call `take` with the sums of each hour, then `draw`; then read its results.

    Example::

        timeline = Timeline(job_id=None, counted={})
        ledger.each_hour(timeline.take)
        timeline.finish()
        print(timeline.groups, timeline.gaps)
    """

    job_id: str | None
    counted: Mapping[int, datetime]
    """Segment → start of the attempt that counts; earlier rows of it are lost work."""
    differences: Differences = field(default_factory=lambda: Differences(Settled()))
    """The settlements since."""
    eras: tuple[Era, ...] = ()
    """The accounts by which rows are charged to budgets."""
    only: frozenset[str] | None = None
    """The jobs of a period's report over some jobs; None: everything is charged."""
    start: datetime = _NEVER
    end: datetime = _NEVER
    """End of the curve."""
    accounts: list[BudgetAccount] = field(default_factory=list)
    """The accounts that the rows were charged by, in order of time."""
    lost: dict[int, Spent] = field(default_factory=dict)
    """By segment: charges of its steps before the attempt that counts."""
    trained: dict[int, Spent] = field(default_factory=dict)
    """By segment: charges of the steps of the attempt that counts."""
    more_gaps: int = 0
    energy_cost: EnergyCost = field(default_factory=EnergyCost)
    watched: Watched = field(default_factory=Watched)
    hours: Hours = field(default_factory=Hours)
    work: Work = field(default_factory=Work)
    """Of a job: the times it ran, and its energy by intensity."""
    _cells: dict[tuple[Any, ...], Cell] = field(default_factory=dict)
    """The charged cells, over all hours."""
    _strokes: list[_Stroke] = field(default_factory=list)
    _intensities: list[tuple[int, int, float, int]] = field(default_factory=list)
    """(start, end, Σ µs × g/kWh, µs) of the intensities in rows, of any owner."""
    _scale: tuple[int, float] = (0, 0.0)
    """(beginning, width of a bin) in microseconds."""
    _bins: list[_Bin] = field(default_factory=list)
    _gaps: list[Gap] = field(default_factory=list)
    _open: dict[str, Gap] = field(default_factory=dict)
    _means: dict[str, tuple[float, int]] = field(default_factory=dict)

    def take(self, hour: HourSums) -> None:
        """The next hour, in order of time."""
        for cell in hour.cells:
            if self.job_id is None and cell.alike.known:
                self._add_intensity(cell.board, cell.first_us, cell.last_us, cell.weighted_us, cell.span_us)
            if self._mine(cell.job_id):
                self._charge(cell, hour.hour_us)
        for run in hour.runs:
            if self._mine(run.job_id):
                self.watched.note(run.board, run.start_us, run.end_us, run.kind)
                self._gap(run)

    def finish(self) -> None:
        """Call this after the last hour."""
        for cell in self._cells.values():
            if cell.metered:
                self.energy_cost.add(cell)
        for gap in self._open.values():
            self._close(gap)
        self._open.clear()
        self._gaps.sort(key=lambda gap: (gap.start, gap.board))

    def draw(
        self, start: datetime, end: datetime, rows: Iterable[Mapping[str, Any]], curve: Curve | None = None
    ) -> None:
        """Draw the curve. rows: the requested ones, by their start; if the time is `long`, only a job's are needed.

        curve: the intensity that the box's rows recorded; None: the hours that were taken give it, and `rows` are of all owners.
        """
        self.start, self.end = start, end
        self._scale = micros(start), (micros(end) - micros(start)) / BINS
        self._bins = [_Bin() for _ in range(BINS)]
        if curve is not None:
            for first, last, g in curve.between(micros(start), micros(end)):
                self._add_intensity("", first, last, g * (last - first), last - first)
        fine = not self.long
        if fine and curve is None:
            self._intensities.clear()  # the rows have a finer resolution
        for row in rows:
            self._row(row, fine=fine, tells=fine and curve is None)
        if not fine:
            for stroke in self._strokes:
                self._stroke(*stroke)
        for first, last, weighted, span in self._intensities:
            for each, part in self._shares(first, last):
                each.weighted += weighted * part
                each.covered += span * part

    @property
    def long(self) -> bool:
        """Whether hours are fine enough for the curve."""
        least_us = _LONG_US if self.job_id is None else BINS * HOUR_US
        return micros(self.end) - micros(self.start) >= least_us

    def _mine(self, job_id: str | None) -> bool:
        if self.only is not None:
            return job_id in self.only
        return self.job_id is None or job_id == self.job_id

    @property
    def groups(self) -> tuple[Group, ...]:
        """The sums; those of a period without segments."""
        return groups_of(self._cells.values())

    @property
    def facility_mj(self) -> float:
        return sum(cell.energy_mj * cell.alike.pue for cell in self._cells.values())

    @property
    def known_grams(self) -> float:
        return sum(cell.grams for cell in self._cells.values())

    @property
    def meters(self) -> set[tuple[str, str]]:
        """(board, meter) of the charged rows."""
        return {(cell.board, cell.alike.meter) for cell in self._cells.values() if cell.metered}

    @property
    def foreign_mj(self) -> dict[str, int]:
        """By board: charges while somebody else also computed on it."""
        found: dict[str, int] = {}
        for cell in self._cells.values():
            if cell.metered and cell.alike.with_others:
                found[cell.board] = found.get(cell.board, 0) + cell.energy_mj
        return found

    @property
    def time_compression(self) -> float:
        told = (cell.alike.time_compression for cell in self._cells.values())
        return max((each for each in told if each is not None), default=1.0)

    @property
    def mean_g_per_kwh(self) -> float | None:
        """Time-weighted over the board with the longest record."""
        weighted, span = max(self._means.values(), key=lambda pair: pair[1], default=(0.0, 0))
        return weighted / span if span else None

    @property
    def gaps(self) -> tuple[Gap, ...]:
        return tuple(self._gaps)

    @property
    def feeds(self) -> tuple[FeedUse, ...]:
        found: dict[_Feed, list[Cell]] = {}
        for cell in self._cells.values():
            if cell.alike.known:
                found.setdefault(feed_of(cell), []).append(cell)
        return tuple(self._feed(key, found[key]) for key in sorted(found))

    def _feed(self, key: _Feed, cells: list[Cell]) -> FeedUse:
        provider, zone, basis, kind, compression, note = key
        energy_mj = sum(cell.energy_mj for cell in cells)
        spent = sum(cell.grams for cell in cells)
        return FeedUse(
            provider=provider,
            zone=zone,
            basis=Basis(basis),
            kind=Kind(kind),
            rows=sum(cell.rows for cell in cells),
            energy_j=energy_mj / MJ_PER_J,
            g_per_kwh=sum(cell.weighted for cell in cells) / energy_mj if energy_mj else None,
            spent_g=spent,
            settled_g=spent + self.differences.of_feed(key),
            first=moment(min(cell.first_us for cell in cells)),
            last=moment(max(cell.last_us for cell in cells)),
            time_compression=compression,
            note=note,
        )

    @property
    def pues(self) -> tuple[PueUse, ...]:
        found: dict[tuple[float, str], int] = {}
        for cell in self._cells.values():
            if cell.metered:
                key = (cell.alike.pue, cell.alike.pue_source)
                found[key] = found.get(key, 0) + cell.energy_mj
        return tuple(
            PueUse(pue=pue, source=source, energy_j=mj / MJ_PER_J)
            for (pue, source), mj in sorted(found.items())
        )

    @property
    def points(self) -> tuple[Point, ...]:
        """At most BINS intervals of equal length, from the first charged row to the last."""
        origin, width = self._scale
        points: list[Point] = []
        spent = 0.0
        for n, each in enumerate(self._bins):
            spent += each.grams
            points.append(
                Point(
                    start=moment(origin + round(n * width)),
                    end=moment(origin + round((n + 1) * width)),
                    g_per_kwh=each.weighted / each.covered if each.covered else None,
                    spent_g=spent,
                    power_w=each.power_w,
                    segment=each.segment,
                )
            )
        return tuple(points)

    def _shares(self, start_us: int, end_us: int) -> list[tuple[_Bin, float]]:
        """The bins of an interval, each with its share of the time."""
        origin, width = self._scale
        if width <= 0:
            return [(self._bins[0], 1.0)]
        start, end = (start_us - origin) / width, (end_us - origin) / width
        first, last = (min(max(int(x), 0), BINS - 1) for x in (start, end))
        if end <= start or first == last:
            return [(self._bins[first], 1.0)]
        cuts = [max(start, 0.0), *(float(n) for n in range(first + 1, last + 1)), min(end, float(BINS))]
        span = cuts[-1] - cuts[0]
        return [(self._bins[first + n], (b - a) / span) for n, (a, b) in enumerate(pairwise(cuts))]

    def _add_intensity(self, board: str, start_us: int, end_us: int, weighted: float, span_us: int) -> None:
        if span_us > 0:
            before, seen = self._means.get(board, (0.0, 0))
            self._means[board] = (before + weighted, seen + span_us)
            self._intensities.append((start_us, end_us, weighted, span_us))

    def _charge(self, cell: Cell, hour_us: int) -> None:
        if cell.alike.charged_by not in self.accounts[-1:]:
            self.accounts.append(BudgetAccount(cell.alike.charged_by))
        segment = None if self.job_id is None else cell.segment
        absorb(self._cells, cell, segment)
        energy = cell.energy_mj if cell.metered else None
        self._strokes.append((cell.first_us, cell.last_us, cell.board, cell.segment, cell.charged_g, energy))
        if cell.metered:
            self.hours.add(cell, hour_us)
        if cell.settled_rows:
            self.differences.add(cell, feed_of(cell) if cell.alike.known else None, segment)

    def _row(self, row: Mapping[str, Any], *, fine: bool, tells: bool) -> None:
        start, end, energy, segment = row["start_us"], row["end_us"], row["energy_mj"], row["segment"]
        g = row["g_per_kwh"]
        if tells and g is not None and end > start:
            self._intensities.append((start, end, g * (end - start), end - start))
        if not self._mine(row["job_id"]):
            return
        if fine:
            self._stroke(start, end, row["board"], segment, charged_g(row, self.eras) or 0.0, energy)
        if self.job_id is None:
            return
        self.work.add(row)
        counted = self.counted.get(segment) if segment is not None else None
        # without a ρ no step had run: loading or waiting
        if counted is not None and row["rho"] is not None and energy is not None:
            into = self.lost if end <= micros(counted) else self.trained
            before = into.get(segment, Spent(0.0, 0.0))
            into[segment] = Spent(before.energy_j + energy / MJ_PER_J, before.grams + (row["grams"] or 0.0))

    def _stroke(
        self, start_us: int, end_us: int, board: str, segment: int | None, grams: float, energy: int | None
    ) -> None:
        for each, part in self._shares(start_us, end_us):
            each.grams += grams * part
            each.segment = segment
            if energy is not None:
                each.energy_mj += energy * part
                seconds = (end_us - start_us) / 1e6 * part
                each.seconds[board] = each.seconds.get(board, 0.0) + seconds

    def _gap(self, run: Run) -> None:
        board = run.board
        if not run.gap:
            if board in self._open:
                self._close(self._open.pop(board))
            return
        gap = Gap(
            board=board,
            start=moment(run.start_us),
            end=moment(run.end_us),
            kind="bridged" if run.bridged else "unknown",
            energy_j=None if run.energy_mj is None else run.energy_mj / MJ_PER_J,
            spent_g=run.grams,
            method=EnergyMethod(run.method),
            reason=run.reason,
        )
        before = self._open.pop(board, None)
        if before is not None:
            joined = _join(before, gap)
            if joined is None:
                self._close(before)
            else:
                gap = joined
        self._open[board] = gap

    def _close(self, gap: Gap) -> None:
        if len(self._gaps) < GAPS:
            self._gaps.append(gap)
        else:
            self.more_gaps += 1


def feed_of(cell: Cell) -> _Feed:
    """The report's key for a feed. For a cell with a known intensity."""
    alike = cell.alike
    return (
        *(str(alike.provider), str(alike.zone), str(alike.basis), str(alike.kind)),
        *(alike.time_compression or 1.0, alike.note or ""),
    )


def _join(a: Gap, b: Gap) -> Gap | None:
    """One gap from two that touch and are of one kind; None if they are not."""
    same = (a.kind, a.method) == (b.kind, b.method) and a.end == b.start
    if not same or (a.energy_j is None) != (b.energy_j is None) or (a.spent_g is None) != (b.spent_g is None):
        return None
    return a.model_copy(
        update={
            "end": b.end,
            "energy_j": None if a.energy_j is None or b.energy_j is None else a.energy_j + b.energy_j,
            "spent_g": None if a.spent_g is None or b.spent_g is None else a.spent_g + b.spent_g,
        }
    )
