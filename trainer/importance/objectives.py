"""Turns what a pass measured into the value of each tensor, which selection maximises. `train.importance` is the switch.

The first six are a pass's numbers as they are (trainer/importance/estimators.py), `random` and `spread` need none. The others are attempts at
what additive importance misses, each on top of the same exact selection:

concave     several steps ahead, tensors of one block do the same work twice: Σ over blocks of √Σ I (trainer/selection/submodular.py)
reach       the same with the power 1/4: a block's first tensor counts most, so few tensors are trained in many blocks
spread      the same as `reach` with the values of `random`: a draw that goes deep, to tell depth from measuring
noise       an importance seen in one row and not in the next is luck: I shrunk by I² ÷ (I² + its variance), as the best
            linear guess of a value that varies about 0 would be
curvature   a tensor that bends the loss soon stops gaining: what its own best step takes off, I² ÷ 2·Σ (g·u)²
coverage    as `reach`, with I × √(1 + segments since it was trained): what was left out comes to its turn

All passes are counted in ρ as they run; none of these needs another than `update` does.
"""

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

import numpy as np

from carbonsched.errors import InputError
from trainer.importance.measure import Importance


@dataclass(slots=True)
class TrainingHistory:
    """Which tensors were trained so far, and for how long, by segments that ended; kept in checkpoints.

    Example:
        >>> history = TrainingHistory()
        >>> history.add([(("a", "b"), 3)])
        >>> history.add([(("a",), 2)])
        >>> history.common_steps(["a"]), history.common_steps(["a", "b"]), history.segments_since("b")
        (5, 0, 1)
    """

    steps: int = 0
    segments: int = 0
    trained: dict[str, int] = field(default_factory=dict)
    """Optimizer steps of each tensor that had any."""
    last: dict[str, int] = field(default_factory=dict)
    """Segments there were when it was last trained, that one included."""

    def add(self, spans: Iterable[tuple[Collection[str], int]]) -> None:
        """Add a segment as its spans: (tensors, optimizer steps that they were trained for)."""
        self.segments += 1
        for names, steps in spans:
            self.steps += steps
            for name in names if steps else ():
                self.trained[name] = self.trained.get(name, 0) + steps
                self.last[name] = self.segments

    def common_steps(self, names: Iterable[str]) -> int:
        """Steps that every one of `names` has been trained for, if none ever stood still; else 0."""
        return self.steps if all(self.trained.get(name, 0) == self.steps for name in names) else 0

    def segments_since(self, name: str) -> int:
        """Segments that ended since tensor `name` was last trained, or since the beginning."""
        return self.segments - self.last.get(name, 0)


@dataclass(frozen=True, slots=True)
class Objective:
    """One value of `train.importance`.

    Example:
        >>> objective_of("reach").estimator, objective_of("reach").power
        ('update', 0.25)
    """

    estimator: str | None
    """What a pass measures for it; None: no pass."""
    value: Callable[[Importance, TrainingHistory], dict[str, float]]
    power: float | None = None
    """Values of one block add up under this power (trainer/selection/submodular.py); None: they just add up."""


def objective_of(name: str) -> Objective:
    """Raises InputError for a name that is none of OBJECTIVES."""
    if name not in OBJECTIVES:
        raise InputError("train.importance", f"{name!r} is not known", f"use one of {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]


def draw_importance(sizes: dict[str, int], seed: int, k: int) -> dict[str, float]:
    """√size × a random number: what the choice of segment `k` goes by where nothing is measured."""
    draws = np.random.default_rng((seed, k)).random(len(sizes)).tolist()
    return {name: size**0.5 * x for (name, size), x in zip(sizes.items(), draws, strict=True)}


def _keep_values(found: Importance, history: TrainingHistory) -> dict[str, float]:
    return found.values


def _shrink_by_variance(found: Importance, history: TrainingHistory) -> dict[str, float]:
    variance = found.variance or {}
    return {name: value * _share(value**2, variance.get(name, 0.0)) for name, value in found.values.items()}


def _value_best_step(found: Importance, history: TrainingHistory) -> dict[str, float]:
    bend = found.curvature or {}
    return {n: math.copysign(v * v / (2 * bend[n]) if bend[n] else 0.0, v) for n, v in found.values.items()}


def _raise_by_age(found: Importance, history: TrainingHistory) -> dict[str, float]:
    return {n: v * (1 + history.segments_since(n)) ** 0.5 if v > 0 else v for n, v in found.values.items()}


def _share(part: float, rest: float) -> float:
    return part / (part + rest) if part else 0.0


OBJECTIVES = {
    "update": Objective("update", _keep_values),
    "magnitude": Objective("magnitude", _keep_values),
    "grad-norm": Objective("grad-norm", _keep_values),
    "fisher": Objective("fisher", _keep_values),
    "snip": Objective("snip", _keep_values),
    "random": Objective(None, _keep_values),
    "concave": Objective("update", _keep_values, power=0.5),
    "reach": Objective("update", _keep_values, power=0.25),
    "spread": Objective(None, _keep_values, power=0.25),
    "noise": Objective("rows", _shrink_by_variance),
    "curvature": Objective("curvature", _value_best_step),
    "coverage": Objective("update", _raise_by_age, power=0.25),
}
