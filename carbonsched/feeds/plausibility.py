"""Decides which of a feed's readings are believed. Pure: from the feed's earlier answers and its present one.

Refused: a value that no grid reaches, an invalid interval, one of another time than now, one of another basis. Quarantined: a jump between
two neighbouring intervals that no grid makes. It is believed once the next interval is at the same level; a single spike never is.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Generic

from carbonsched.feeds.base import V
from carbonsched.model.grid import Basis, ForecastPoint, Price, Reading

ABSURD_G_PER_KWH: Final = 2000.0
"""No grid burns this much: lignite in old plants stays under 1,300."""
LEAP_G_PER_KWH: Final = 500.0
"""Between neighbouring averages: in recorded years (Spain, Germany, California) they part by 216 at most. Marginal ones leap."""
LEAST_EUR_PER_KWH: Final = -1.0
MOST_EUR_PER_KWH: Final = 10.0
"""The coupled European day-ahead auction clears between −500 and 4,000 EUR/MWh, its harmonised limits, which a rule moves by 100 and
1,000 (https://exaa.at, news of 2022-09; SEMOpx, message of 2023-11-24); a tariff has fees and taxes on top."""
NEIGHBOURS: Final = timedelta(hours=1)
"""Intervals further apart are not neighbours: what lies between is unknown."""
OLDEST: Final = timedelta(days=60)
FARTHEST: Final = timedelta(days=8)
LONGEST: Final = timedelta(days=1)
"""Longest interval: no provider reports the grid in coarser steps, and a longer one would never be polled again."""
_MARGINAL: Final = (Basis.MARGINAL_DIRECT, Basis.MARGINAL_LIFECYCLE)


@dataclass(frozen=True, slots=True)
class Gates(Generic[V]):
    """The checks for values of one kind, beside those for any kind.

    Example:
        >>> intensity_gates(Basis.AVERAGE_DIRECT).refusal is not None
        True
    """

    refusal: Callable[[V], str | None]
    """Why a value is not believed, whatever came before; None if it is."""
    leap: Callable[[V, V], str | None]
    """Why the second of two neighbours has to wait for the next value; None if it need not."""


@dataclass(frozen=True, slots=True)
class Sifted(Generic[V]):
    """The result for one answer.

    Example:
        >>> Sifted((), ("refused -3 g/kWh for 2026-01-01T10:00Z: an intensity lies between 0 and 2000",)).believed
        ()
    """

    believed: tuple[V, ...]
    """Ascending."""
    refused: tuple[str, ...]
    """Why other readings are not believed, for people."""
    waiting: V | None = None
    """A jump that the next interval may confirm."""


def sane(g_per_kwh: float) -> bool:
    """Whether a grid can have this value."""
    return math.isfinite(g_per_kwh) and 0 <= g_per_kwh <= ABSURD_G_PER_KWH


def plausible(point: ForecastPoint) -> bool:
    """Whether a grid can have this value, and the interval is valid."""
    return sane(point.g_per_kwh) and point.end > point.start


def intensity_gates(basis: Basis) -> Gates[Reading]:
    """The checks for intensities on a box that counts `basis`."""

    def refusal(reading: Reading) -> str | None:
        if not sane(reading.g_per_kwh):
            between = f"an intensity lies between 0 and {ABSURD_G_PER_KWH:g}"
            return f"refused {reading.g_per_kwh:g} g/kWh for {_at(reading.start)}: {between}"
        if reading.source.basis is not basis:
            return f"refused a reading of basis {reading.source.basis}: this box counts {basis}"
        return None

    return Gates(refusal, _leap)


def price_gates() -> Gates[Price]:
    """The checks for prices: they may jump, and be negative."""

    def refusal(price: Price) -> str | None:
        if LEAST_EUR_PER_KWH <= price.eur_per_kwh <= MOST_EUR_PER_KWH:  # no nan does
            return None
        between = f"a price lies between {LEAST_EUR_PER_KWH:g} and {MOST_EUR_PER_KWH:g}"
        return f"refused {price.eur_per_kwh:g} EUR/kWh for {_at(price.start)}: {between}"

    return Gates(refusal, lambda _before, _price: None)


def sift(answered: Sequence[V], now: datetime | None, gates: Gates[V]) -> Sifted[V]:
    """The readings in `answered` that are believed, each judged by itself. now: None for recorded or stated values, which may be of any time."""
    good, refused = [], []
    for reading in sorted(answered, key=lambda r: r.start):
        why = _refusal(reading, now) or gates.refusal(reading)
        if why is None:
            good.append(reading)
        else:
            refused.append(why)
    return Sifted(tuple(good), tuple(refused))


def quarantine(sifted: Sifted[V], before: V | None, waiting: V | None, gates: Gates[V]) -> Sifted[V]:
    """The readings in `sifted` that are believed beside their neighbours. before: the believed reading before the first. waiting: a jump in
    the last answer that is not confirmed yet."""
    refused = list(sifted.refused)
    believed: list[V] = []
    for reading in sifted.believed:
        last = believed[-1] if believed else before
        if waiting is not None and waiting.start >= reading.start:
            waiting = None  # it is told anew
        leap = None if last is None or not _touch(last, reading) else gates.leap(last, reading)
        if leap is None:
            believed.append(reading)
            waiting = None
        elif waiting is not None and _touch(waiting, reading) and gates.leap(waiting, reading) is None:
            believed += [waiting, reading]
            waiting = None
        else:
            refused.append(leap)
            waiting = reading
    return Sifted(tuple(believed), tuple(refused), waiting)


def _refusal(reading: V, now: datetime | None) -> str | None:
    """Why a reading is not believed for its time, whatever it says; None where it is."""
    at = _at(reading.start)
    if reading.end <= reading.start:
        return f"refused a reading that ends before it begins, at {at}"
    if now is not None and reading.end - reading.start > LONGEST:
        return f"refused a reading that lasts until {_at(reading.end)}, at {at}"
    if now is not None and (reading.end <= now - OLDEST or reading.start >= now + FARTHEST):
        return f"refused a reading for {at}: that is another time than {_at(now)}"
    return None


def _at(time: datetime) -> str:
    return f"{time:%Y-%m-%dT%H:%MZ}"


def _touch(before: V, reading: V) -> bool:
    return reading.start - before.end <= NEIGHBOURS


def _leap(before: Reading, reading: Reading) -> str | None:
    if reading.source.basis in _MARGINAL or abs(reading.g_per_kwh - before.g_per_kwh) <= LEAP_G_PER_KWH:
        return None
    return (
        f"{reading.g_per_kwh:g} g/kWh for {_at(reading.start)} waits for the next value: no grid leaps from "
        f"{before.g_per_kwh:g}"
    )
