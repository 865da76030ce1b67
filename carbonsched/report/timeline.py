"""Walks once over the rows of a report's span, in bounded memory, for what the database's sums cannot tell.

That is the curve over time, the gaps, the feeds used and the energy of lost work. The walk takes every row of the box in the span, since the intensity while a job waited stands in the rows of idle
boards; only the rows asked for are charged.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any, Final

from carbonsched.ledger.rows import micros, moment
from carbonsched.ledger.settlements import Settled
from carbonsched.ledger.totals import Era, account_of, charged_g
from carbonsched.model.energy import NOT_ALONE, BudgetAccount, EnergyMethod
from carbonsched.model.grid import Basis, Kind
from carbonsched.report.coverage import Watched
from carbonsched.report.market import Hours
from carbonsched.report.parts import FeedUse, Gap, Point, PueUse
from carbonsched.report.savings import Spent
from carbonsched.report.settled import Differences
from carbonsched.report.spending import Spending
from carbonsched.report.timing import Curve, Work
from carbonsched.units import MJ_PER_J

BINS: Final = 240
GAPS: Final = 200


@dataclass(slots=True)
class _Feed:
    rows: int = 0
    energy_mj: int = 0
    weighted: float = 0.0
    grams: float = 0.0
    first: int = 0
    last: int = 0


@dataclass(slots=True)
class _Bin:
    weighted: float = 0.0
    covered: float = 0.0
    grams: float = 0.0
    energy_mj: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    """By board: how long its energy was known here."""
    segment: int | None = None

    @property
    def power_w(self) -> float | None:
        """Of boards side by side over the time they were charged, so that a start in mid-bin is no dip."""
        longest = max(self.seconds.values(), default=0.0)
        return self.energy_mj / MJ_PER_J / longest if longest > 0 else None


@dataclass(slots=True)
class Timeline:
    """Feed it rows with `walk`, then read its results.

    Example::

        timeline = Timeline(start, end, job_id=None, counted={})
        timeline.walk(ledger.rows(None, start, end))
        print(timeline.mean_g_per_kwh, timeline.gaps)
    """

    start: datetime
    end: datetime
    job_id: str | None
    counted: Mapping[int, datetime]
    """Segment → start of the attempt that counts; rows of it before are lost work."""
    differences: Differences = field(default_factory=lambda: Differences(Settled()))
    """What was settled since."""
    eras: tuple[Era, ...] = ()
    """By which account rows are charged to budgets."""
    accounts: list[BudgetAccount] = field(default_factory=list)
    """Those that the rows were charged by, in order of time."""
    facility_mj: float = 0.0
    known_grams: float = 0.0
    lost: dict[int, Spent] = field(default_factory=dict)
    """By segment: what its steps were charged before the attempt that counts began."""
    trained: dict[int, Spent] = field(default_factory=dict)
    """By segment: what the steps of the attempt that counts were charged."""
    meters: set[tuple[str, str]] = field(default_factory=set)
    """(board, meter) of what was charged."""
    foreign_mj: dict[str, int] = field(default_factory=dict)
    """By board: what was charged while somebody else computed on it, too."""
    more_gaps: int = 0
    time_compression: float = 1.0
    spending: Spending = field(default_factory=Spending)
    only: frozenset[str] | None = None
    """Of a period's report over some jobs: which; None: everything is charged."""
    watched: Watched = field(default_factory=Watched)
    hours: Hours = field(default_factory=Hours)
    work: Work = field(default_factory=Work)
    """Of a job: when it ran, and its energy by intensity."""
    _bins: list[_Bin] = field(default_factory=list)
    _feeds: dict[tuple[str, str, str, str, float, str], _Feed] = field(default_factory=dict)
    _pues: dict[tuple[float, str], int] = field(default_factory=dict)
    _gaps: list[Gap] = field(default_factory=list)
    _open: dict[str, Gap] = field(default_factory=dict)
    _means: dict[str, tuple[float, int]] = field(default_factory=dict)

    def walk(self, rows: Iterable[Mapping[Any, Any]], curve: Curve | None = None) -> None:
        """curve: the intensity that the box's rows recorded; None: `rows` are all of them, and tell it themselves."""
        self._bins = [_Bin() for _ in range(BINS)]
        if curve is not None:
            for start, end, g in curve.between(micros(self.start), micros(self.end)):
                self._intensity({"board": "", "start_us": start, "end_us": end, "g_per_kwh": g})
        for row in rows:
            if curve is None:
                self._intensity(row)
            if self._mine(row["job_id"]):
                self._charge(row)
        for gap in self._open.values():
            self._close(gap)
        self._open.clear()
        self._gaps.sort(key=lambda gap: (gap.start, gap.board))

    def _mine(self, job_id: str | None) -> bool:
        if self.only is not None:
            return job_id in self.only
        return self.job_id is None or job_id == self.job_id

    @property
    def mean_g_per_kwh(self) -> float | None:
        """Time-weighted over the board that was watched longest."""
        weighted, span = max(self._means.values(), key=lambda pair: pair[1], default=(0.0, 0))
        return weighted / span if span else None

    @property
    def gaps(self) -> tuple[Gap, ...]:
        return tuple(self._gaps)

    @property
    def feeds(self) -> tuple[FeedUse, ...]:
        return tuple(
            FeedUse(
                provider=provider,
                zone=zone,
                basis=Basis(basis),
                kind=Kind(kind),
                rows=feed.rows,
                energy_j=feed.energy_mj / MJ_PER_J,
                g_per_kwh=feed.weighted / feed.energy_mj if feed.energy_mj else None,
                spent_g=feed.grams,
                settled_g=feed.grams + self.differences.of_feed(key),
                first=moment(feed.first),
                last=moment(feed.last),
                time_compression=compression,
                note=note,
            )
            for key, feed in sorted(self._feeds.items())
            for provider, zone, basis, kind, compression, note in [key]
        )

    @property
    def pues(self) -> tuple[PueUse, ...]:
        return tuple(
            PueUse(pue=pue, source=source, energy_j=mj / MJ_PER_J)
            for (pue, source), mj in sorted(self._pues.items())
        )

    @property
    def points(self) -> tuple[Point, ...]:
        """At most BINS stretches of equal length, from the first row charged to the last."""
        origin, width = micros(self.start), self._width()
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

    def _width(self) -> float:
        return (micros(self.end) - micros(self.start)) / BINS

    def _shares(self, row: Mapping[Any, Any]) -> list[tuple[_Bin, float]]:
        """The bins a row lies in, each with its share of the row's time."""
        width = self._width()
        if width <= 0:
            return [(self._bins[0], 1.0)]
        origin = micros(self.start)
        start, end = (row["start_us"] - origin) / width, (row["end_us"] - origin) / width
        first, last = (min(max(int(x), 0), BINS - 1) for x in (start, end))
        if end <= start or first == last:
            return [(self._bins[first], 1.0)]
        cuts = [max(start, 0.0), *(float(n) for n in range(first + 1, last + 1)), min(end, float(BINS))]
        span = cuts[-1] - cuts[0]
        return [(self._bins[first + n], (b - a) / span) for n, (a, b) in enumerate(pairwise(cuts))]

    def _intensity(self, row: Mapping[Any, Any]) -> None:
        g = row["g_per_kwh"]
        span = row["end_us"] - row["start_us"]
        if g is None or span <= 0:
            return
        weighted, seen = self._means.get(row["board"], (0.0, 0))
        self._means[row["board"]] = (weighted + g * span, seen + span)
        for each, part in self._shares(row):
            each.weighted += g * span * part
            each.covered += span * part

    def _charge(self, row: Mapping[Any, Any]) -> None:
        energy, grams, charged = row["energy_mj"], row["grams"], charged_g(row, self.eras)
        if (account := account_of(row, self.eras)) not in self.accounts[-1:]:
            self.accounts.append(account)
        for each, part in self._shares(row):
            each.grams += (charged or 0.0) * part
            each.segment = row["segment"]
            if energy is not None:
                seconds = (row["end_us"] - row["start_us"]) / 1e6 * part
                each.energy_mj += energy * part
                each.seconds[row["board"]] = each.seconds.get(row["board"], 0.0) + seconds
        self._gap(row)
        self.watched.add(row)
        if self.job_id is not None:
            self.work.add(row)
        self.differences.add(row, None if row["g_per_kwh"] is None else _feed_of(row))
        if row["g_per_kwh"] is not None:
            self._feed(row)
        if energy is None:
            return
        self.meters.add((row["board"], row["meter"]))
        if NOT_ALONE in (row["reason"] or ""):
            self.foreign_mj[row["board"]] = self.foreign_mj.get(row["board"], 0) + energy
        self.facility_mj += energy * row["pue"]
        if grams is not None:
            self.known_grams += grams
        self.hours.add(row)
        self.spending.add(row)
        key = (row["pue"], row["pue_source"])
        self._pues[key] = self._pues.get(key, 0) + energy
        counted = self.counted.get(row["segment"])
        # without a ρ no step had run: loading or waiting
        if counted is not None and row["rho"] is not None:
            into = self.lost if row["end_us"] <= micros(counted) else self.trained
            before = into.get(row["segment"], Spent(0.0, 0.0))
            into[row["segment"]] = Spent(before.energy_j + energy / MJ_PER_J, before.grams + (grams or 0.0))

    def _feed(self, row: Mapping[Any, Any]) -> None:
        feed = self._feeds.setdefault(_feed_of(row), _Feed(first=row["start_us"]))
        feed.rows += row["rows"] or 1
        feed.grams += row["grams"] or 0.0
        feed.last = max(feed.last, row["end_us"])
        self.time_compression = max(self.time_compression, row["time_compression"])
        if row["energy_mj"] is not None:
            feed.energy_mj += row["energy_mj"]
            feed.weighted += row["energy_mj"] * row["g_per_kwh"]

    def _gap(self, row: Mapping[Any, Any]) -> None:
        board = row["board"]
        unknown = row["grams"] is None
        if not row["bridged"] and not unknown:
            if board in self._open:
                self._close(self._open.pop(board))
            return
        energy = None if row["energy_mj"] is None else row["energy_mj"] / MJ_PER_J
        reason = "no intensity was known" if energy is not None and unknown else row["reason"]
        gap = Gap(
            board=board,
            start=moment(row["start_us"]),
            end=moment(row["end_us"]),
            kind="bridged" if row["bridged"] else "unknown",
            energy_j=energy,
            spent_g=row["grams"],
            method=EnergyMethod(row["method"]),
            reason=reason,
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


def _feed_of(row: Mapping[Any, Any]) -> tuple[str, str, str, str, float, str]:
    """What the report tells feeds apart by."""
    return row["provider"], row["zone"], row["basis"], row["kind"], row["time_compression"], row["note"]


def _join(a: Gap, b: Gap) -> Gap | None:
    """One gap of two that touch and are of one kind; None where they are not."""
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
