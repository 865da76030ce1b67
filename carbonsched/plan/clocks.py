"""Chooses a board's graphics clock for a segment, by the joules and seconds per step metered at each clock so far.

A few levels are tried, from the board's own clock down, each once for a whole segment, as long as the trial is affordable. At a clock f
below the lowest one tried, f₀, a step takes at most f₀/f times as long at no more power, so at most f₀/f times the joules. The possible
loss of a trial against the board's own clock, together with earlier losses, stays within `TRIALS` of the budget.

Joules per step fall with the clock to a minimum and rise again below it (fixed power over a longer time outweighs the falling power), so
once a trial was worse than the best, no lower clock is tried. Of the clocks tried, the one with the fewest joules per step is chosen that
keeps the deadline and is not slower than the job allows; to replace the current one it must be better by `HYSTERESIS`. A job that chooses
among settings has its planner choose among clocks too (`offers`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TRIALS = 0.02
"""Share of the budget that trials may lose."""
HYSTERESIS = 0.02
"""Share of joules per step by which another clock must be better."""
SHARES = (0.9, 0.8, 0.7, 0.6)
"""The levels below the board's own clock, as shares of its highest clock. The fewest joules per step were found between 0.6 and 0.9 on
every board."""
_DEADLINE = 0.95
"""Share of the time left that the rest of the job may take."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Cost of steps at a clock, relative to the board's own.

    Example:
        >>> Seen(joules=0.86, seconds=1.08, excess_g=0.0).joules
        0.86
    """

    joules: float
    seconds: float
    excess_g: float
    """Grams by which its trial cost more than the board's own clock would have; 0 if it cost less."""


@dataclass(frozen=True, slots=True)
class Work:
    """The work ahead of a job, at the board's own clock.

    Example:
        >>> Work(segment_g=2.0, budget_g=100.0, rest_s=7200.0, left_s=None, max_slowdown=1.25).left_s
    """

    segment_g: float
    """Grams of the next segment."""
    budget_g: float
    """Budget of the whole job; for a job without one, its expected grams."""
    rest_s: float
    """Seconds of all remaining work."""
    left_s: float | None
    """Seconds to the deadline; None: there is none."""
    max_slowdown: float
    """How many times as long a step may take."""
    segments: int = 2
    """Remaining segments. On the last one nothing is tried, since no later segment could use the result."""


@dataclass(frozen=True, slots=True)
class Clock:
    """A clock for the next segment, and an upper bound on its steps' cost relative to the board's own.

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
    """The clocks to try, MHz, descending: the supported one next to each of `SHARES`."""
    if not supported:
        return ()
    top = max(supported)
    found = {min(supported, key=lambda mhz: (abs(mhz - share * top), mhz)) for share in SHARES}
    return tuple(sorted(found - {top}, reverse=True))


def choose(
    supported: Sequence[int], seen: Mapping[int, Seen], now: int | None, work: Work, *, measured: bool
) -> Clock:
    """The clock of the next segment. `seen`: by MHz; `now`: the last segment's; `measured`: whether a segment ran at the board's own clock."""
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
    return _clock_of(best, known[best])


def offers(seen: Mapping[int, Seen], max_slowdown: float) -> tuple[Clock, ...]:
    """The tried clocks that a plan may choose beside the board's own: those that need fewer joules for more seconds, without dominated
    ones.

    Example:
        >>> seen = {1300: Seen(0.9, 1.05, 0.0), 1200: Seen(0.85, 1.2, 0.0), 1100: Seen(0.95, 1.3, 0.2)}
        >>> [clock.mhz for clock in offers(seen, max_slowdown=1.5)]
        [1300, 1200]
    """
    found: list[Clock] = []
    for mhz, one in sorted(seen.items(), key=lambda item: (item[1].seconds, item[1].joules)):
        least = found[-1].joules if found else 1.0
        if one.seconds <= max_slowdown and one.joules < least:
            found.append(_clock_of(mhz, one))
    return tuple(found)


def _clock_of(mhz: int, one: Seen) -> Clock:
    reason = f"{mhz} MHz: {one.joules:.2f} of the joules and {one.seconds:.2f} of the seconds a step takes at the board's own clock"
    return Clock(mhz, one.joules, one.seconds, reason)


def _trial(supported: Sequence[int], seen: Mapping[int, Seen], least: float, work: Work) -> Clock | None:
    """The next level down, if trying it is affordable."""
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
