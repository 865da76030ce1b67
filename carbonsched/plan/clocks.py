"""Chooses a board's graphics clock for a segment, by joules and seconds per step as metered at each clock so far.

Few levels are looked at, from the board's own clock down. A level is tried once, for a whole segment, while that can be paid
for: at a clock f below the lowest one seen, f₀, a step takes at most f₀/f times as long, at no more power, so at most
f₀/f times the joules. What a trial can lose by that, against the board's own clock, together with what trials did lose, stays within
`TRIALS` of the budget. Joules per step fall with the clock to a least and rise again below it (fixed power over longer
time against power that falls faster than the clock): where the last trial was worse than the best, nothing lower is tried.

Of the levels seen, the one with the fewest joules per step is taken that keeps the deadline and is not slower than the job
allows; it must win by `HYSTERESIS` to be changed to. A job that chooses among settings has its planner choose among clocks, too (`offers`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TRIALS = 0.02
"""Share of the budget that trials may lose."""
HYSTERESIS = 0.02
"""Of joules per step, by which another level must be better."""
SHARES = (0.9, 0.8, 0.7, 0.6)
"""Of the board's highest clock: the levels below its own. Fewer joules per step were found between 0.6 and 0.9 of it on every board."""
_DEADLINE = 0.95
"""Of the time left that the rest of the job may take."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What steps took at a clock, over what they take at the board's own.

    Example:
        >>> Seen(joules=0.86, seconds=1.08, excess_g=0.0).joules
        0.86
    """

    joules: float
    seconds: float
    excess_g: float
    """Grams that its trial took more than the board's own clock would have; 0 where it took less."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is ahead of a job at the board's own clock.

    Example:
        >>> Work(segment_g=2.0, budget_g=100.0, rest_s=7200.0, left_s=None, max_slowdown=1.25).left_s
    """

    segment_g: float
    """Grams of the next segment."""
    budget_g: float
    """Of the whole job; of one without a budget, what it is expected to take."""
    rest_s: float
    """Seconds of all that remains."""
    left_s: float | None
    """Seconds to the deadline; None: there is none."""
    max_slowdown: float
    """How many times as long a step may take."""
    segments: int = 2
    """That remain: on the last one nothing is tried, for nobody could use it."""


@dataclass(frozen=True, slots=True)
class Clock:
    """A clock for the next segment, and what its steps take at most over those at the board's own.

    Example:
        >>> Clock(mhz=None, joules=1.0, seconds=1.0, reason="").mhz
    """

    mhz: int | None
    """None: the board's own."""
    joules: float
    seconds: float
    reason: str
    trial: bool = False


OWN = Clock(None, 1.0, 1.0, "the board's own clock")


def levels(supported: Sequence[int]) -> tuple[int, ...]:
    """The clocks that are looked at, MHz, descending: the supported one next to each of `SHARES`."""
    if not supported:
        return ()
    top = max(supported)
    found = {min(supported, key=lambda mhz: (abs(mhz - share * top), mhz)) for share in SHARES}
    return tuple(sorted(found - {top}, reverse=True))


def choose(
    supported: Sequence[int], seen: Mapping[int, Seen], now: int | None, work: Work, *, measured: bool
) -> Clock:
    """The clock of the next segment. `seen`: by MHz; `now`: that of the last one; `measured`: whether a segment ran at the board's own."""
    if not measured:
        return Clock(None, 1.0, 1.0, "the board's own clock, to measure by")
    known = {mhz: one for mhz, one in seen.items() if _fits(one.seconds, work)}
    best = min(known, key=lambda mhz: known[mhz].joules, default=None)
    if best is not None and known[best].joules >= 1.0:
        best = None
    least = 1.0 if best is None else known[best].joules
    trial = _trial(supported, seen, least, work)
    if trial is not None:
        return trial
    if now in known or now is None:
        current = 1.0 if now is None else known[now].joules
        if current - least < HYSTERESIS * current:
            best = now
    if best is None:
        return OWN
    return _told(best, known[best])


def offers(seen: Mapping[int, Seen], max_slowdown: float) -> tuple[Clock, ...]:
    """The clocks seen that a plan may choose beside the board's own: fewer joules for more seconds, none beaten in both by another.

    Example:
        >>> seen = {1300: Seen(0.9, 1.05, 0.0), 1200: Seen(0.85, 1.2, 0.0), 1100: Seen(0.95, 1.3, 0.2)}
        >>> [clock.mhz for clock in offers(seen, max_slowdown=1.5)]
        [1300, 1200]
    """
    found: list[Clock] = []
    for mhz, one in sorted(seen.items(), key=lambda item: (item[1].seconds, item[1].joules)):
        least = found[-1].joules if found else 1.0
        if one.seconds <= max_slowdown and one.joules < least:
            found.append(_told(mhz, one))
    return tuple(found)


def _told(mhz: int, one: Seen) -> Clock:
    reason = f"{mhz} MHz: {one.joules:.2f} of the joules and {one.seconds:.2f} of the seconds a step takes at the board's own clock"
    return Clock(mhz, one.joules, one.seconds, reason)


def _trial(supported: Sequence[int], seen: Mapping[int, Seen], least: float, work: Work) -> Clock | None:
    """The next level down, where trying it can be paid for."""
    top = max(supported, default=0)
    lowest = min(seen, default=top)
    last = seen[lowest] if lowest in seen else Seen(1.0, 1.0, 0.0)
    below = [mhz for mhz in levels(supported) if mhz < lowest]
    if work.segments < 2 or not below or last.joules > least * (1 + HYSTERESIS):
        return None
    slower = lowest / below[0]
    joules, seconds = last.joules * slower, last.seconds * slower
    lost = sum(one.excess_g for one in seen.values())
    if lost + max(joules - 1.0, 0.0) * work.segment_g > TRIALS * work.budget_g or not _fits(seconds, work):
        return None
    return Clock(below[0], joules, seconds, f"{below[0]} MHz, tried for a segment", trial=True)


def _fits(seconds: float, work: Work) -> bool:
    if seconds > work.max_slowdown:
        return False
    return work.left_s is None or work.rest_s * seconds <= _DEADLINE * work.left_s
