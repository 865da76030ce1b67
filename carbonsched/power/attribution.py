"""Charges the energy of a delta: splits it in time, or shares it among jobs that ran together. Pure, in whole millijoules.

A split goes by the power that was read inside of the delta, else it assumes constant power over the stretch; either way it is
labelled `estimated`. Nothing is lost: the largest-remainder method gives out every millijoule, and the counter marks of
the pieces chain from the delta's first to its last, so that Σ mJ = Σ counter deltas can be checked row by row.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from carbonsched.model.energy import Account, EnergyDelta, EnergyMethod
from carbonsched.units import MJ_PER_J, split_mj

Profile = Sequence[tuple[datetime, float]]
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Cut:
    """A stretch [start, end) that belongs to one account.

    Example::

        cuts = [
            Cut(start, done, Account.JOB, "tiny-1", 0, 0.6),
            Cut(done, end, Account.IDLE, None, None, None),
        ]
        pieces = split(delta, cuts)
    """

    start: datetime
    end: datetime
    account: Account
    job_id: str | None
    segment: int | None
    rho: float | None


def split(delta: EnergyDelta, cuts: Sequence[Cut]) -> list[tuple[Cut, EnergyDelta]]:
    """Split `delta` along `cuts`, which follow each other and cover it exactly.

    Energy goes by `delta.profile`, else by duration. One cut returns the delta as it is, but for its profile; pieces of several are `estimated` (an `unavailable`
    delta stays so, its pieces too are null). Raises ValueError where the cuts do not cover the delta.
    """
    edges = [cut.start for cut in cuts] + [cut.end for cut in cuts[-1:]]
    follow = all(a.end == b.start for a, b in pairwise(cuts))
    if not cuts or not follow or (edges[0], edges[-1]) != (delta.start, delta.end):
        raise ValueError(f"cuts must cover {delta.start} to {delta.end} without a hole, they are {edges}")
    if any(cut.end < cut.start for cut in cuts):
        raise ValueError(f"cuts must ascend, they are {edges}")
    profile, delta = delta.profile, delta.model_copy(update={"profile": ()}) if delta.profile else delta
    if len(cuts) == 1:
        return [(cuts[0], delta)]
    shares = [_joules(profile, cut.end) - _joules(profile, cut.start) for cut in cuts] if profile else []
    if sum(shares) > 0:
        parts = [
            _with_own_power(piece, cut)
            for cut, piece in zip(cuts, _parts(delta, shares, "split by power readings"), strict=True)
        ]
    else:
        shares = [float((cut.end - cut.start) // _MICROSECOND) for cut in cuts]
        parts = _parts(delta, shares, "split by time")
    return [
        (cut, piece.model_copy(update={"start": cut.start, "end": cut.end}))
        for cut, piece in zip(cuts, parts, strict=True)
    ]


def _joules(profile: Profile, at: datetime) -> float:
    """Joules since its start, with constant power between readings."""
    after = bisect_left(profile, at, key=lambda point: point[0])
    if after == 0 or after == len(profile):
        return profile[min(after, len(profile) - 1)][1]
    (start, before), (end, then) = profile[after - 1], profile[after]
    return before + (then - before) * ((at - start) / (end - start))


def _with_own_power(piece: EnergyDelta, cut: Cut) -> EnergyDelta:
    seconds = (cut.end - cut.start).total_seconds()
    if piece.energy_mj is None or seconds <= 0:
        return piece
    return piece.model_copy(update={"power_w": piece.energy_mj / MJ_PER_J / seconds})


def share_by(delta: EnergyDelta, shares: Sequence[float], how: str) -> list[EnergyDelta]:
    """Share `delta` in proportion to `shares`, which are declared and not measured: `estimated`. how: in words."""
    whole = sum(shares)
    return [
        piece.model_copy(update={"power_w": None if delta.power_w is None else delta.power_w * part / whole})
        for part, piece in zip(shares, _parts(delta, list(shares), how), strict=True)
    ]


def estimate(delta: EnergyDelta, why: str) -> EnergyDelta:
    """The same energy, no longer attributed to this account alone."""
    reason = why if delta.reason is None else f"{delta.reason}; {why}"
    if delta.energy_mj is None:
        return delta.model_copy(update={"reason": reason})
    return delta.model_copy(update={"reason": reason, "method": EnergyMethod.ESTIMATED})


def share(delta: EnergyDelta, n: int) -> list[EnergyDelta]:
    """Share `delta` equally among `n` jobs that ran on the device together over the same time. A device does not distinguish its users, so
    equal shares are a declared convention, labelled `estimated`."""
    if n < 1:
        raise ValueError(f"cannot share energy among {n} jobs")
    if n == 1:
        return [delta]
    return share_by(delta, [1.0] * n, f"shared equally by {n} jobs")


def _parts(delta: EnergyDelta, shares: list[float], how: str) -> list[EnergyDelta]:
    reason = how if delta.reason is None else f"{delta.reason}; {how}"
    if delta.energy_mj is None:
        return [delta.model_copy(update={"reason": reason})] * len(shares)
    parts: list[EnergyDelta] = []
    mark = delta.counter_start_mj
    for energy in split_mj(delta.energy_mj, shares):
        following = None if mark is None else mark + energy
        parts.append(
            delta.model_copy(
                update={
                    "energy_mj": energy,
                    "method": EnergyMethod.ESTIMATED,
                    "counter_start_mj": mark,
                    "counter_end_mj": following,
                    "reason": reason,
                }
            )
        )
        mark = following
    return parts
