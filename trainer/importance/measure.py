"""Measures how much each tensor's next update would lower the loss: I = −⟨∂L/∂w, Δw⟩, nothing stepped or copied.

Δw is what the optimizer would do next (trainer/importance/optimizer_updates.py) at learning rate 1: warm-up begins at rate 0, where every
importance would be 0, and one common rate does not change a ranking. Gradients are taken one by one as they come
(trainer/importance/gradient_pass.py). What else a pass can measure is in trainer/importance/estimators.py.

One state age: moments of a tensor that stood still are stale and overrate it (about twice), so do absent ones. If every
tensor has been trained for the same number of optimizer steps its own moments are used; else *every* tensor is predicted
from fresh moments, which for AdamW makes Δw = −g/(|g| + ε) − decay·w. SGD does not count its steps: the caller may
(`common_steps`), else its buffers are used if every tensor has one.

Estimator: with two batches or more Δw comes from one batch and ∂L/∂w from the next (all neighbouring pairs averaged),
which noise cannot inflate; the updates in between are kept, as much memory as the gradients take in float32. With one
batch both come from it, and a value has no known variance.

Clipping: the global norm is known only when the last gradient is, so a stream cannot clip. Gradients are taken as they
are. Fresh AdamW and Adafactor do not notice a common factor; SGD's new gradients all come out longer by the same one,
beside a momentum buffer of clipped ones.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from carbonsched.errors import CarbonschedError, InputError
from trainer.device import device_seconds
from trainer.distributed.ranks import Ranks
from trainer.importance.estimators import ESTIMATORS, Estimator
from trainer.importance.gradient_pass import GradientPass, Loss, model_loss

MIN_PARTS = 3
"""Batches or rows that an estimator by rows wants: of fewer the pairs have no spread."""


@dataclass(frozen=True, slots=True)
class Importance:
    """What a pass found, per tensor.

    Example:
        >>> found = Importance({"w": 2.0}, flops=(1e9,), seconds=0.1, age=0, kept_bytes=0, variance={"w": 0.04})
        >>> round(found.relative_error, 3)
        0.1
    """

    values: dict[str, float]
    """By `named_parameters()` name, the mean over batches (or pairs of them); 0 for a tensor the loss gave no gradient."""
    flops: tuple[float, ...]
    """Counted, of each batch; recomputation apart."""
    seconds: float
    age: int
    """Optimizer steps behind the moments that were used; 0: fresh ones. 1 stands for an optimizer's that counts none."""
    kept_bytes: int
    """Held between two batches by the cross-batch estimator."""
    variance: dict[str, float] | None = None
    """Of each value, as the mean that it is (neighbouring pairs taken for independent); None: one batch or one pair has
    no spread, so it is unknown."""
    curvature: dict[str, float] | None = None
    """Σ (g·u)², means likewise; None where the estimator does not measure it."""
    recomputed: float = 0.0
    """FLOPs of gradient checkpointing, all batches and ranks."""
    batch_seconds: float | None = None
    """Of one batch once the device is warm; None: not known, the only pass was its first."""

    @property
    def relative_error(self) -> float | None:
        """Median over tensors of standard error ÷ |value|; None: unknown, see `variance`."""
        if self.variance is None:
            return None
        return median([math.sqrt(self.variance[n]) / abs(v) for n, v in self.values.items() if v] or [0.0])


def measure(
    model: nn.Module,
    optimizer: Any,
    batches: Sequence[dict[str, Tensor]],
    *,
    estimator: str = "update",
    common_steps: int | None = None,
    seed: int = 0,
    stop: Callable[[], bool] = lambda: False,
    ranks: Ranks = Ranks(),
    loss: Loss = model_loss,
    warm: bool = True,
) -> Importance:
    """Importance of every parameter that `optimizer` holds, over `batches`, dropout drawn from `seed`.

    estimator: one of ESTIMATORS. common_steps: optimizer steps that every tensor has been trained for, 0 where they differ;
    asked for only by an optimizer that does not count its own (SGD). Raises InputError for an optimizer whose update is
    not known, CarbonschedError where an importance is not finite (training has diverged), Stopped between two batches
    once `stop()` holds.

    warm: whether this device has run such a pass before; a first one on a board tells no speed.
    loss: what is minimised; that of the model itself unless its user trains by another.
    ranks: each measures batches of its own, and all get the same result. Replicas' observations stand side by side;
    where parameters are sharded (FSDP2) gradients are those of the batch of all, and an observation is summed over shards.
    """
    started = device_seconds()
    kind = ESTIMATORS[estimator]
    gradient_pass = GradientPass(model, optimizer, kind, common_steps, ranks, loss)
    parts = _split(batches, kind)
    flops = gradient_pass.run(parts, seed, stop)
    means, variance = _reduce(gradient_pass, len(parts), ranks)
    return Importance(
        {name: mean[0] for name, mean in means.items()},
        tuple(ranks.sum(flops)),
        device_seconds() - started,
        gradient_pass.age,
        gradient_pass.kept_bytes,
        variance,
        {name: mean[1] for name, mean in means.items()} if estimator == "curvature" else None,
        ranks.sum([gradient_pass.recomputed])[0],
        _batch_seconds(gradient_pass.seconds, len(batches), warm=warm),
    )


def _batch_seconds(parts: Sequence[float], batches: int, *, warm: bool) -> float | None:
    """Seconds of a batch, by the parts behind the first; by a single one only where the device was warm."""
    steady = parts[1:] if len(parts) > 1 else parts if warm else []
    return len(parts) / batches * sum(steady) / len(steady) if steady else None


def _split(batches: Sequence[dict[str, Tensor]], estimator: Estimator) -> list[tuple[int, dict[str, Tensor]]]:
    """What runs one by one, each with the number of its batch: the batches, or the rows of a single one."""
    if not estimator.by_rows or len(batches) >= MIN_PARTS:
        return list(enumerate(batches))
    parts = []
    for i, batch in enumerate(batches):
        rows = next(t.shape[0] for t in batch.values() if isinstance(t, Tensor))
        parts += [(i, {name: _row(t, row, rows) for name, t in batch.items()}) for row in range(rows)]
    if len(parts) < MIN_PARTS:
        raise InputError(
            "train.importance",
            f"takes a spread from {MIN_PARTS} rows or batches, there are {len(parts)}",
            f"set importance_batches = {MIN_PARTS}",
        )
    return parts


def _row(value: Any, row: int, rows: int) -> Any:
    by_row = isinstance(value, Tensor) and value.ndim > 0 and value.shape[0] == rows
    return value[row : row + 1] if by_row else value


def _reduce(
    gradient_pass: GradientPass, parts: int, ranks: Ranks
) -> tuple[dict[str, tuple[float, ...]], dict[str, float] | None]:
    """Means and variance over the observations of all ranks. Raises CarbonschedError where a mean is not finite."""
    kind, replicas = gradient_pass.estimator, gradient_pass.replicas
    pairs = parts - 1 if kind.crosses and parts > 1 else parts
    observed = _gather(kind, gradient_pass.observations, replicas, ranks)
    means, variance = _moments(observed, pairs * (1 if replicas else ranks.size))
    for name, mean in means.items():
        if not math.isfinite(mean[0]):
            raise CarbonschedError(
                f"importance of {name} is {mean[0]}: training has diverged; lower train.lr"
            )
    return means, variance


def _gather(
    estimator: Estimator, observations: dict[str, list[Tensor]], replicas: Mapping[str, int], ranks: Ranks
) -> dict[str, list[list[float]]]:
    """Every tensor's observations on all ranks. replicas: of sharded ones, on how many ranks the same piece lies."""
    mine = {name: torch.stack(found).tolist() if found else [] for name, found in observations.items()}
    everyone = ranks.gather(mine)
    observed: dict[str, list[list[float]]] = {}
    for name in mine:
        if name in replicas:
            shards = zip(*(rows[name] for rows in everyone), strict=True)
            observed[name] = [[math.fsum(x) / replicas[name] for x in zip(*s, strict=True)] for s in shards]
        else:
            observed[name] = [row for rows in everyone for row in rows[name]]
        if estimator.root:
            observed[name] = [[x**0.5 for x in row] for row in observed[name]]
    return observed


def _moments(
    observed: dict[str, list[list[float]]], count: int
) -> tuple[dict[str, tuple[float, ...]], dict[str, float] | None]:
    """Means over `count` observations, and the variance of the first number's mean; absent observations are 0."""
    means, variance = {}, {}
    for name, rows in observed.items():
        means[name] = tuple(math.fsum(row[i] for row in rows) / count for i in (0, 1))
        if count > 1:
            mean = means[name][0]
            off = math.fsum((row[0] - mean) ** 2 for row in rows) + (count - len(rows)) * mean**2
            variance[name] = off / (count - 1) / count
    return means, variance if count > 1 else None
