"""Decides which of a feed's readings are believed: pure, from what the feed said before and what it says now.

Refused: a value that no grid has, an interval that is none, one of another time than now, one of another basis. Quarantined: a
leap that no grid makes between two neighbouring intervals. It is believed once the next interval is at the same level; a single
spike never is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from carbonsched.model.grid import Basis, ForecastPoint, Reading

ABSURD_G_PER_KWH: Final = 2000.0
"""No grid burns this much: lignite in old plants stays under 1,300."""
LEAP_G_PER_KWH: Final = 500.0
"""Between neighbouring averages: in recorded years (Spain, Germany, California) they part by 216 at most. Marginal ones leap."""
NEIGHBOURS: Final = timedelta(hours=1)
"""Intervals further apart are no neighbours: what lies between is not known."""
OLDEST: Final = timedelta(days=60)
FARTHEST: Final = timedelta(days=8)
LONGEST: Final = timedelta(days=1)
"""Of an interval: no provider tells of the grid in coarser steps, and what is told for longer would never be asked again."""
_MARGINAL: Final = (Basis.MARGINAL_DIRECT, Basis.MARGINAL_LIFECYCLE)


@dataclass(frozen=True, slots=True)
class Sifted:
    """What came of one answer.

    Example:
        >>> Sifted((), ("refused -3 g/kWh for 2026-01-01T10:00Z: an intensity lies between 0 and 2000",)).believed
        ()
    """

    believed: tuple[Reading, ...]
    """Ascending."""
    refused: tuple[str, ...]
    """Why others are not, for people."""
    waiting: Reading | None = None
    """A leap that the next interval may bear out."""


def sane(g_per_kwh: float) -> bool:
    """Whether a grid can have it."""
    return math.isfinite(g_per_kwh) and 0 <= g_per_kwh <= ABSURD_G_PER_KWH


def plausible(point: ForecastPoint) -> bool:
    """Whether a grid can have it, and the interval is one."""
    return sane(point.g_per_kwh) and point.end > point.start


def sift(answered: Sequence[Reading], now: datetime | None, basis: Basis) -> Sifted:
    """What is believed of `answered`, each by itself.

    now: None for a recorded or stated intensity, which may be of any time. basis: of the box.
    """
    good, refused = [], []
    for reading in sorted(answered, key=lambda r: r.start):
        why = _refusal(reading, now, basis)
        if why is None:
            good.append(reading)
        else:
            refused.append(why)
    return Sifted(tuple(good), tuple(refused))


def quarantine(sifted: Sifted, before: Reading | None, waiting: Reading | None) -> Sifted:
    """What is believed of `sifted` beside its neighbours.

    before: the believed reading before the first. waiting: a leap of the last answer that nothing has borne out yet.
    """
    refused = list(sifted.refused)
    believed: list[Reading] = []
    for reading in sifted.believed:
        last = believed[-1] if believed else before
        if waiting is not None and waiting.start >= reading.start:
            waiting = None  # it is told anew
        if last is None or not _leaps(last, reading):
            believed.append(reading)
            waiting = None
        elif waiting is not None and _touch(waiting, reading) and not _leaps(waiting, reading):
            believed += [waiting, reading]
            waiting = None
        else:
            refused.append(_leap(last, reading))
            waiting = reading
    return Sifted(tuple(believed), tuple(refused), waiting)


def _refusal(reading: Reading, now: datetime | None, basis: Basis) -> str | None:
    """Why a reading is not believed, whatever came before; None where it is."""
    at = f"{reading.start:%Y-%m-%dT%H:%MZ}"
    if not sane(reading.g_per_kwh):
        between = f"an intensity lies between 0 and {ABSURD_G_PER_KWH:g}"
        return f"refused {reading.g_per_kwh:g} g/kWh for {at}: {between}"
    if reading.end <= reading.start:
        return f"refused a reading that ends before it begins, at {at}"
    if now is not None and reading.end - reading.start > LONGEST:
        return f"refused a reading that lasts until {reading.end:%Y-%m-%dT%H:%MZ}, at {at}"
    if now is not None and (reading.end <= now - OLDEST or reading.start >= now + FARTHEST):
        return f"refused a reading for {at}: that is another time than {now:%Y-%m-%dT%H:%MZ}"
    if reading.source.basis is not basis:
        return f"refused a reading of basis {reading.source.basis}: this box counts {basis}"
    return None


def _touch(before: Reading, reading: Reading) -> bool:
    return reading.start - before.end <= NEIGHBOURS


def _leaps(before: Reading, reading: Reading) -> bool:
    if reading.source.basis in _MARGINAL:
        return False
    return _touch(before, reading) and abs(reading.g_per_kwh - before.g_per_kwh) > LEAP_G_PER_KWH


def _leap(before: Reading, reading: Reading) -> str:
    return (
        f"{reading.g_per_kwh:g} g/kWh for {reading.start:%Y-%m-%dT%H:%MZ} waits for the next value: no grid leaps from "
        f"{before.g_per_kwh:g}"
    )
