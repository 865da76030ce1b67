"""Computes the timing effect: the savings of a job's hours against beginning it at submission and running it without pause.

The counterfactual is the same work: every row of the job except those of its waits, moved to the time it would have had without any earlier
wait, at the intensity that the box's rows recorded there. Waits that the planner chose and waits that were forced on the job (the queue, a
pause by its owner, an outage) are separated: between the two is the schedule with only the forced waits. The energy of waiting itself is
part of the emissions and not of the counterfactual.

If no row has the intensity of the counterfactual's time, the mean of the span is used, and the range goes from the lowest to the
highest of the span; if a value was settled since, the range includes both.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any, Final

from carbonsched.ledger.settlements import Settled, Stretch
from carbonsched.model.grid import Kind
from carbonsched.model.job_state import JobState
from carbonsched.report.effects import Effect
from carbonsched.units import J_PER_KWH, MJ_PER_J

AGAINST: Final = "the same work begun at submission and run without pause"
FORMULA: Final = (
    "Σ energy · PUE · intensity when it would have run at once − Σ energy · PUE · intensity when it ran, waits included, over the rows "
    "where both energy and intensity are known"
)
MEAN_AGAINST: Final = "the same joules at the mean intensity of the job's span"
MEAN_FORMULA: Final = "Σ energy · PUE · (mean intensity − intensity) over the rows where both are known"
CHOSEN_AGAINST: Final = "the same work with the waits that were forced on it alone"
FORCED_AGAINST: Final = (
    "the same work begun at submission, against the same with the waits that were forced on it"
)

PIECE_US: Final = 300_000_000
"""Rows of one intensity that begin in the same interval of this length count as evenly spread over it."""

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Piece:
    """Energy of a job over a time, at one intensity.

    Example:
        >>> Piece(0, 10_000_000, 3.6e9, 200.0).facility_mj
        3600000000.0
    """

    start_us: int
    end_us: int
    facility_mj: float
    """Energy × PUE."""
    g_per_kwh: float


@dataclass(slots=True)
class Work:
    """A job's rows, as far as timing needs them; equal neighbours are joined.

    Example:
        >>> work = Work()
        >>> work.add({"board": "b", "start_us": 0, "end_us": 9, "energy_mj": 5, "pue": 1.0, "g_per_kwh": 200.0})
        >>> work.pieces
        [Piece(start_us=0, end_us=9, facility_mj=5.0, g_per_kwh=200.0)]
    """

    spans: list[Span] = field(default_factory=list)
    """When it ran on any board, ascending if the rows are; with known or unknown energy."""
    _open: dict[str, Piece] = field(default_factory=dict)
    _done: list[Piece] = field(default_factory=list)

    def add(self, row: Mapping[Any, Any]) -> None:
        start, end = row["start_us"], row["end_us"]
        if self.spans and self.spans[-1][0] <= start <= self.spans[-1][1]:
            self.spans[-1] = (self.spans[-1][0], max(end, self.spans[-1][1]))
        else:
            self.spans.append((start, end))
        if row["energy_mj"] is None or row["g_per_kwh"] is None:
            return
        new = Piece(start, end, row["energy_mj"] * row["pue"], row["g_per_kwh"])
        old = self._open.get(row["board"])
        if old is not None and old.end_us == start and _one(old, new):
            new = Piece(old.start_us, end, old.facility_mj + new.facility_mj, new.g_per_kwh)
        elif old is not None:
            self._done.append(old)
        self._open[row["board"]] = new

    @property
    def pieces(self) -> list[Piece]:
        return [*self._done, *self._open.values()]


def _one(a: Piece, b: Piece) -> bool:
    """Whether one piece may represent both: a job of months has millions of rows. By the clock, so that the result is the same for single rows
    and for summed ones (`carbonsched.ledger.job_pieces`)."""
    return a.g_per_kwh == b.g_per_kwh and a.start_us // PIECE_US == b.start_us // PIECE_US


class Curve:
    """The intensity over a span as the box's rows of any owner recorded it.

    Example:
        >>> Curve([(0, 10, 200.0), (10, 20, 100.0)]).mean(5, 15)
        (150.0, 0.0)
    """

    def __init__(self, steps: Iterable[tuple[int, int, float]]) -> None:
        self._steps: list[tuple[int, int, float]] = []
        for start, end, g in sorted(steps):
            if self._steps:
                start = max(start, self._steps[-1][1])
            if start < end:
                self._steps.append((start, end, g))
        self._starts = [step[0] for step in self._steps]
        span = sum(end - start for start, end, _ in self._steps)
        self.typical = sum((e - s) * g for s, e, g in self._steps) / span if span else None
        """Time-weighted mean; None: no row has any."""
        self.low = min((g for _, _, g in self._steps), default=0.0)
        self.high = max((g for _, _, g in self._steps), default=0.0)

    def between(self, start: int, end: int) -> Iterator[tuple[int, int, float]]:
        """The steps inside [start, end), cut to it."""
        for first, last, g in self._steps:
            if first < end and last > start:
                yield max(first, start), min(last, end), g

    def mean(self, start: int, end: int) -> tuple[float, float]:
        """(mean where it is known, share of [start, end) where it is unknown)."""
        end = max(end, start + 1)
        i = max(bisect_right(self._starts, start) - 1, 0)
        weighted, known = 0.0, 0
        while i < len(self._steps) and self._steps[i][0] < end:
            first, last, g = self._steps[i]
            part = min(last, end) - max(first, start)
            if part > 0:
                weighted, known = weighted + part * g, known + part
            i += 1
        return (weighted / known if known else 0.0), 1 - known / (end - start)


class Waits:
    """The times when a job did not work, from its submission to its last row; both kinds ascend.

    Example:
        >>> waits = Waits(0, chosen=((10, 20),), forced=((0, 5),))
        >>> waits.at_once(25), waits.forced_alone(25)
        (10, 15)
    """

    def __init__(self, submitted_us: int, chosen: Sequence[Span], forced: Sequence[Span]) -> None:
        """chosen: by the planner, for a cleaner hour or for the budget to grow. forced: in the queue, paused by its owner, in an outage."""
        self.submitted_us = submitted_us
        self.chosen, self.forced = tuple(chosen), tuple(forced)
        self._chosen, self._forced = _Measure(self.chosen), _Measure(self.forced)

    def at_once(self, us: int) -> int:
        """The time at which it would have reached this point without any wait."""
        return us - self._chosen.before(us) - self._forced.before(us)

    def forced_alone(self, us: int) -> int:
        return us - self.waited(us)

    def waited(self, us: int) -> int:
        """Microseconds of chosen waits until then."""
        return self._chosen.before(us)


class _Measure:
    """The length of some spans before a time."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self._spans = spans
        self._starts = [start for start, _ in spans]
        self._sums = [0, *accumulate(end - start for start, end in spans)]

    def before(self, us: int) -> int:
        i = bisect_left(self._starts, us)
        return self._sums[i] - (max(self._spans[i - 1][1] - us, 0) if i else 0)


def waits_of(submitted_us: int, work: Work, states: Sequence[tuple[int, str]]) -> Waits:
    """From a job's rows and the journal's states, (time, state) ascending. Rows in a wait belong to the wait."""
    spans = sorted(work.spans)
    last = max((end for _, end in spans), default=submitted_us)
    waiting = [
        (max(a[0], submitted_us), min(b[0], last))
        for a, b in pairwise([*states, (last, "")])
        if a[1] == JobState.WAITING and a[0] < last
    ]
    working = _without(_union(spans), waiting)
    idle = _without([(submitted_us, last)], working)
    return Waits(submitted_us, tuple(_common(idle, waiting)), tuple(_without(idle, waiting)))


def _union(spans: Sequence[Span]) -> list[Span]:
    found: list[Span] = []
    for start, end in spans:
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        elif start < end:
            found.append((start, end))
    return found


def _without(spans: Sequence[Span], holes: Sequence[Span]) -> list[Span]:
    """The parts of ascending spans outside the holes, which also ascend."""
    found, first = [], 0
    for start, end in spans:
        while first < len(holes) and holes[first][1] <= start:
            first += 1
        i = first
        while i < len(holes) and holes[i][0] < end:
            if holes[i][0] > start:
                found.append((start, holes[i][0]))
            start = max(start, holes[i][1])
            i += 1
        if start < end:
            found.append((start, end))
    return found


def _common(spans: Sequence[Span], others: Sequence[Span]) -> list[Span]:
    return _without(spans, _without(spans, others))


@dataclass(frozen=True, slots=True)
class Grams:
    """Emissions of the work at once, with only its forced waits, and as it ran.

    Example:
        >>> Grams(100.0, 90.0, 80.0).timing
        20.0
    """

    at_once: float
    forced_alone: float
    ran: float

    @property
    def timing(self) -> float:
        return self.at_once - self.ran

    @property
    def chosen(self) -> float:
        return self.forced_alone - self.ran

    @property
    def forced(self) -> float:
        return self.at_once - self.forced_alone


@dataclass(frozen=True, slots=True)
class TimingEffects:
    """The effect of a job's hours, its chosen and its forced part, and the figure against the mean.

    Example::

        found = timing_effects(work, waits, curves, estimated=False)
        print(found.timing.saved_g, found.chosen.saved_g, found.forced.saved_g)
    """

    timing: Effect
    chosen: Effect
    forced: Effect
    mean_intensity: Effect


@dataclass(frozen=True, slots=True)
class Curves:
    """The intensity as decided and as settled, and whether all of it was measured.

    Example:
        >>> Curves.of([], Settled()).decided.typical is None
        True
    """

    decided: Curve
    settled: Curve
    measured: bool

    @classmethod
    def of(cls, stretches: Sequence[Stretch], settled: Settled) -> "Curves":
        known = [
            (s.start_us, s.end_us, s.charged.g_per_kwh) for s in stretches if s.charged.g_per_kwh is not None
        ]
        later = [
            (a, b, one.g_per_kwh)
            for s in stretches
            for a, b, one in settled.between(s.start_us, s.end_us)
            if one.holds_for(_keys(s))
        ]
        covered = _union(sorted((a, b) for a, b, _ in later))
        kept = [(a, b, g) for s, e, g in known for a, b in _without([(s, e)], covered)] if later else known
        measured = all(s.charged.kind is Kind.ACTUAL for s in stretches if s.charged.g_per_kwh is not None)
        return cls(Curve(known), Curve([*kept, *later]), measured)


def _keys(stretch: Stretch) -> Mapping[str, Any]:
    """The fields of a row that a settlement reads."""
    charged = stretch.charged
    return {"g_per_kwh": charged.g_per_kwh, "zone": charged.zone, "basis": charged.basis}


def timing_effects(
    work: Work, waits: Waits, curves: Curves, mean_g_per_kwh: float | None, *, estimated: bool
) -> TimingEffects:
    """See the module's docstring. mean_g_per_kwh: time-weighted over the job's span."""
    pieces = work.pieces
    ran = sum(_grams(piece.facility_mj, piece.g_per_kwh) for piece in pieces)
    mean = _against_mean(pieces, ran, mean_g_per_kwh, estimated=estimated)
    if not any(piece.facility_mj for piece in pieces) or curves.decided.typical is None:
        reason = "no row has both energy and intensity"
        timing, chosen, forced = (
            Effect.unknown(against, FORMULA, reason, estimated=estimated)
            for against in (AGAINST, CHOSEN_AGAINST, FORCED_AGAINST)
        )
        return TimingEffects(timing, chosen, forced, mean)
    asked = _Asked(pieces, waits)
    point, unknown_s = asked.grams(curves.decided, curves.decided.typical)
    ends = [
        asked.grams(curve, g, settled=curve is curves.settled)[0]
        for curve in (curves.decided, curves.settled)
        for g in (curve.low, curve.high)
    ]
    inputs = {
        "waited_s": sum(b - a for a, b in waits.chosen) / 1e6,
        "forced_wait_s": sum(b - a for a, b in waits.forced) / 1e6,
        "waiting_g": asked.waiting_g,
        "unknown_s": unknown_s,
    }
    unsure = estimated or not curves.measured or unknown_s > 0

    def effect(baseline: Callable[[Grams], float], saved: Callable[[Grams], float], against: str) -> Effect:
        found = [saved(each) for each in (point, *ends)]
        return _effect(baseline(point), found, against, inputs, estimated=unsure)

    return TimingEffects(
        timing=effect(lambda g: g.at_once, lambda g: g.timing, AGAINST),
        chosen=effect(lambda g: g.forced_alone, lambda g: g.chosen, CHOSEN_AGAINST),
        forced=effect(lambda g: g.at_once, lambda g: g.forced, FORCED_AGAINST),
        mean_intensity=mean,
    )


class _Asked:
    """A job's pieces and their places in the counterfactuals."""

    def __init__(self, pieces: Sequence[Piece], waits: Waits) -> None:
        self.waiting_g = 0.0
        """Grams of rows in waits, as decided."""
        self._worked: list[tuple[Piece, float, Span, Span]] = []
        """Each piece with the working share of its energy, and its times at once and with only the forced waits."""
        for piece in pieces:
            span = piece.end_us - piece.start_us
            waited = waits.waited(piece.end_us) - waits.waited(piece.start_us)
            share = 1 - waited / span if span else 1.0
            at_once, forced = (
                (to(piece.start_us), to(piece.end_us)) for to in (waits.at_once, waits.forced_alone)
            )
            self._worked.append((piece, share, at_once, forced))
            self.waiting_g += _grams(piece.facility_mj * (1 - share), piece.g_per_kwh)

    def grams(self, curve: Curve, instead: float, *, settled: bool = False) -> tuple[Grams, float]:
        """(grams, seconds of the counterfactual with unknown intensity). instead: used there."""
        at_once = forced = ran = unknown_s = 0.0
        for piece, share, then, forced_then in self._worked:
            g = curve.mean(piece.start_us, piece.end_us)[0] if settled else piece.g_per_kwh
            ran += _grams(piece.facility_mj, g)
            work = piece.facility_mj * share
            moved, unknown = _moved(piece, then, curve, instead, g)
            at_once += _grams(work, moved)
            unknown_s += unknown
            forced += _grams(work, _moved(piece, forced_then, curve, instead, g)[0])
        return Grams(at_once, forced, ran), unknown_s


def _moved(piece: Piece, then: Span, curve: Curve, instead: float, own: float) -> tuple[float, float]:
    """(mean intensity at a piece's moved time, seconds of it without a row). then: the moved time."""
    start, end = then
    if start == piece.start_us and end == piece.end_us:
        return own, 0.0
    mean, unknown = curve.mean(start, end)
    return (1 - unknown) * mean + unknown * instead, unknown * (end - start) / 1e6


def _grams(facility_mj: float, g_per_kwh: float) -> float:
    return facility_mj / MJ_PER_J / J_PER_KWH * g_per_kwh


def _against_mean(
    pieces: Sequence[Piece], ran: float, mean_g_per_kwh: float | None, *, estimated: bool
) -> Effect:
    energy = sum(piece.facility_mj for piece in pieces)
    if mean_g_per_kwh is None or energy <= 0:
        return Effect.unknown(
            MEAN_AGAINST, MEAN_FORMULA, "no row has both energy and intensity", estimated=estimated
        )
    baseline = _grams(energy, mean_g_per_kwh)
    return Effect(
        saved_g=baseline - ran,
        share=(baseline - ran) / baseline if baseline > 0 else None,
        baseline_g=baseline,
        low_g=baseline - ran,
        high_g=baseline - ran,
        estimated=estimated,
        against=MEAN_AGAINST,
        formula=MEAN_FORMULA,
        inputs={"mean_g_per_kwh": mean_g_per_kwh},
    )


def _effect(
    baseline: float, saved: Sequence[float], against: str, inputs: Mapping[str, float], *, estimated: bool
) -> Effect:
    """saved: the most likely value, and the ends of its range."""
    return Effect(
        saved_g=saved[0],
        share=saved[0] / baseline if baseline > 0 else None,
        baseline_g=baseline,
        low_g=min(saved),
        high_g=max(saved),
        estimated=estimated,
        against=against,
        formula=FORMULA,
        inputs=dict(inputs),
    )
