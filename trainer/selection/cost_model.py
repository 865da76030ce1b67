"""Prices any selection of tensors from a profile alone: exactly, by groups of operators.

A profile's tensors are listed shallowest first. cost(S) = forward + Σ_{i∈S} dw_i + Σ flops of each group that S meets.
A group is the set of tensors beneath some operators of the backward pass: those from position `from` on, and the ones
in `also` before it. Along a chain every group is a plain suffix, and the sum over groups is max_{i∈S} D_i: then
`Profile.patterns` is empty and the groups are read off the depths. Otherwise it is

    {"groups": [{"flops": F, "from": p, "also": [i, …]}, …]}

Costs are kept as integers (FLOPs are; a hand-written profile's fractions are scaled up), so sums do not drift.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from carbonsched.errors import InputError
from carbonsched.model.profile import Profile


@dataclass(frozen=True, slots=True)
class CostModel:
    """The exact cost of any selection. Sets of tensors and of groups are Python integers, one bit per member.

    All costs are in integer units of 1/scale FLOP.

    Example:
        >>> from carbonsched.model.profile import Profile, TensorCost
        >>> deep = TensorCost(name="deep", numel=4, depth_flops=30, dw_flops=20)
        >>> head = TensorCost(name="head", numel=4, depth_flops=0, dw_flops=50)
        >>> profile = Profile(
        ...     model="m", params=8, forward_flops=100, full_flops=200, tensors=(head, deep), batch=1, seq=8
        ... )
        >>> CostModel.of(profile).flops(["head"]), CostModel.of(profile).flops(["head", "deep"])
        (150.0, 200.0)
    """

    names: tuple[str, ...]
    scale: int
    forward: int
    full: int
    dw: tuple[int, ...]
    group_flops: tuple[int, ...]
    above: tuple[int, ...]
    """For each tensor the groups that run when it is trained."""

    @classmethod
    def of(cls, profile: Profile) -> "CostModel":
        """Raises InputError where the profile's tensors or patterns do not make sense."""
        tensors = profile.tensors
        names = tuple(t.name for t in tensors)
        if not tensors:
            raise InputError("profile.tensors", "is empty", "profile a model that has trainable tensors")
        if len(set(names)) < len(names):
            twice = next(n for n in names if names.count(n) > 1)
            raise InputError("profile.tensors", f"{twice} stands twice", "name each tensor once")
        for t in tensors:
            if t.dw_flops < 0 or t.depth_flops < 0:
                raise InputError(
                    f"profile.tensors[{t.name}]", "has negative FLOPs", "profile the model again"
                )
        if profile.full_flops <= 0 or profile.forward_flops < 0:
            raise InputError("profile.full_flops", "must be above 0", "profile the model again")
        groups = _groups(profile)
        scale = _scale(
            [
                profile.forward_flops,
                profile.full_flops,
                *(t.dw_flops for t in tensors),
                *(f for f, _ in groups),
            ]
        )
        above = [0] * len(tensors)
        for g, (_, members) in enumerate(groups):
            for i in members:
                above[i] |= 1 << g
        return cls(
            names=names,
            scale=scale,
            forward=_scaled(profile.forward_flops, scale),
            full=_scaled(profile.full_flops, scale),
            dw=tuple(_scaled(t.dw_flops, scale) for t in tensors),
            group_flops=tuple(_scaled(f, scale) for f, _ in groups),
            above=tuple(above),
        )

    def group_cost(self, groups: int) -> int:
        """The cost of a set of groups."""
        return sum(self.group_flops[g] for g in bits(groups))

    def units(self, selected: Iterable[int]) -> int:
        """Forward + backward cost of tensors given by position, in units of 1/scale FLOP."""
        ran, total = 0, self.forward
        for i in set(selected):
            ran |= self.above[i]
            total += self.dw[i]
        return total + self.group_cost(ran)

    def flops(self, names: Iterable[str], where: str = "selected") -> float:
        """Forward + backward FLOPs of one batch with `names` trained. Raises InputError: unknown name, empty selection."""
        position = {name: i for i, name in enumerate(self.names)}
        names = list(names)
        if not names:
            raise InputError(where, "is empty", "name at least one tensor")
        for name in names:
            if name not in position:
                raise InputError(
                    where, f"the profile has no tensor {name!r}", "use names as the profile gives them"
                )
        return self.units(position[name] for name in names) / self.scale


def _groups(profile: Profile) -> list[tuple[float, Iterable[int]]]:
    count = len(profile.tensors)
    if not profile.patterns:
        # a chain: crossing each distinct depth costs what it adds to the one before
        steps: list[tuple[float, Iterable[int]]] = []
        depths = sorted({Fraction(t.depth_flops) for t in profile.tensors} | {Fraction(0)})
        for low, high in pairwise(depths):
            beyond = [i for i, t in enumerate(profile.tensors) if t.depth_flops >= high]
            steps.append((high - low, beyond))  # type: ignore[arg-type]
        return steps
    found: list[tuple[float, Iterable[int]]] = []
    try:
        for row in profile.patterns["groups"]:
            members = set(range(int(row["from"]), count)) | {int(i) for i in row["also"]}
            if not members or min(members) < 0 or max(members) >= count or row["flops"] < 0:
                raise ValueError(row)  # noqa: TRY301
            found.append((row["flops"], members))
    except (KeyError, TypeError, ValueError) as e:
        raise InputError("profile.patterns", "cannot be read", "profile the model again") from e
    return found


def _scale(values: Iterable[float | Fraction]) -> int:
    """The least factor that makes all integers, but at most one that keeps their sum in 62 bits."""
    exact = [Fraction(v) for v in values]
    room = 2**62 // (2 * max(1, math.ceil(sum(exact))))
    return max(1, min(math.lcm(*(v.denominator for v in exact)), room))


def _scaled(value: float | Fraction, scale: int) -> int:
    return round(Fraction(value) * scale)


def bits(mask: int) -> list[int]:
    """The members of a set kept as bits, ascending."""
    found = []
    while mask:
        low = mask & -mask
        found.append(low.bit_length() - 1)
        mask ^= low
    return found
