"""How much each tensor's next update would lower the loss: I = −⟨∂L/∂w, Δw⟩, streamed, nothing stepped or copied.

Δw is what the optimizer would do next (trainer/importance/optimizer_updates.py) at learning rate 1: warm-up begins at rate 0, where every
importance would be 0, and one common rate does not change a ranking. A hook takes each gradient as soon as it is whole (a
tied weight's once, with the full sum), forms its dot product chunk by chunk and frees it, so no two tensors' gradients
need to live at a time. What else a pass can measure is in trainer/importance/estimators.py.

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

Weights, moments, gradients, buffers, mode, `requires_grad` and every random generator are bit-identical afterwards.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from carbonsched.errors import CarbonschedError, InputError
from trainer.distributed.ranks import Ranks
from trainer.distributed.wrapping import local_shard, replica_count
from trainer.importance.estimators import ESTIMATORS, Estimator
from trainer.importance.optimizer_updates import CHUNK, UpdateRule, find_rule
from trainer.job.directives import Stopped
from trainer.job.random_state import own_random
from trainer.profiling.flop_counter import StepCounter

MIN_PARTS = 3
"""Batches or rows that an estimator by rows wants: of fewer the pairs have no spread."""


@dataclass(frozen=True, slots=True)
class Importance:
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
) -> Importance:
    """Importance of every parameter that `optimizer` holds, over `batches`, dropout drawn from `seed`.

    estimator: one of ESTIMATORS. common_steps: optimizer steps that every tensor has been trained for, 0 where they differ;
    asked for only by an optimizer that does not count its own (SGD). Raises InputError for an optimizer whose update is
    not known, CarbonschedError where an importance is not finite (training has diverged), Stopped between two batches
    once `stop()` holds.

    ranks: each measures batches of its own, and all get the same result. Replicas' observations stand side by side;
    where parameters are sharded (FSDP2) gradients are those of the batch of all, and an observation is summed over shards.
    """
    started = time.monotonic()
    how = ESTIMATORS[estimator]
    groups = {p: group for group in optimizer.param_groups for p in group["params"] if p.is_floating_point()}
    names: dict[Tensor, str] = {p: name for name, p in model.named_parameters() if p in groups}
    rule = find_rule(optimizer) if how.updates else None
    sharded = any(hasattr(p, "placements") for p in names)
    pieces = {name: replica_count(p, ranks) for p, name in names.items()} if sharded else {}
    if pieces and rule is not None and not rule.elementwise:
        raise InputError(
            "optimizer",
            f"{rule.name}'s next update takes whole matrices, FSDP2 holds pieces",
            'use AdamW or SGD, or an importance that needs no update, e.g. "fisher"',
        )
    age = _common_age(rule, optimizer, names, common_steps) if rule else 0
    parts = _parts(batches, how)
    cross, last = how.crosses and len(parts) > 1, False
    seen: dict[str, list[Tensor]] = {name: [] for name in names.values()}
    kept: dict[Tensor, list[Tensor]] = {}
    kept_bytes, flops = 0, [0.0] * len(batches)

    def take(parameter: Tensor) -> None:
        gradient, parameter.grad = parameter.grad, None
        if gradient is None:
            return
        gradient, weight = local_shard(gradient), local_shard(parameter)
        update: Iterable[Tensor] | None = None
        if rule is not None and not (cross and last):
            state = {key: local_shard(x) for key, x in optimizer.state[parameter].items()} if age else {}
            update = rule.update(groups[parameter], state, weight, gradient, age)
        if not cross:
            seen[names[parameter]].append(_fold(how, weight, gradient, update))
            return
        before = kept.pop(parameter, None)
        if before is not None:
            seen[names[parameter]].append(_fold(how, weight, gradient, before))
        if update is not None:
            kept[parameter] = list(update)

    with _untouched(model, names, seed):
        hooks = [p.register_post_accumulate_grad_hook(take) for p in names]  # type: ignore[no-untyped-call]
        try:
            for i, (batch, part) in enumerate(parts):
                if ranks.any(stop()):
                    raise Stopped("signal")
                last = i == len(parts) - 1
                counter = StepCounter()
                with counter:
                    model(**part).loss.backward()
                flops[batch] += counter.flops
                kept_bytes = max(
                    kept_bytes, sum(u.numel() * u.element_size() for us in kept.values() for u in us)
                )
        finally:
            for hook in hooks:
                hook.remove()
    count = (len(parts) - 1 if cross else len(parts)) * (1 if pieces else ranks.size)
    means, variance = _moments(_of_all(how, seen, pieces, ranks), count)
    for name, mean in means.items():
        if not math.isfinite(mean[0]):
            raise CarbonschedError(
                f"importance of {name} is {mean[0]}: training has diverged; lower train.lr"
            )
    return Importance(
        {name: mean[0] for name, mean in means.items()},
        tuple(ranks.sum(flops)),
        time.monotonic() - started,
        age,
        kept_bytes,
        variance,
        {name: mean[1] for name, mean in means.items()} if estimator == "curvature" else None,
    )


def _parts(batches: Sequence[dict[str, Tensor]], how: Estimator) -> list[tuple[int, dict[str, Tensor]]]:
    """What runs one by one, each with the number of its batch: the batches, or the rows of a single one."""
    if not how.by_rows or len(batches) >= MIN_PARTS:
        return list(enumerate(batches))
    parts = []
    for i, batch in enumerate(batches):
        rows = next(iter(batch.values())).shape[0]
        parts += [(i, {name: t[row : row + 1] for name, t in batch.items()}) for row in range(rows)]
    if len(parts) < MIN_PARTS:
        raise InputError(
            "train.importance",
            f"takes a spread from {MIN_PARTS} rows or batches, there are {len(parts)}",
            f"set importance_batches = {MIN_PARTS}",
        )
    return parts


def _fold(how: Estimator, weight: Tensor, gradient: Tensor, pieces: Iterable[Tensor] | None) -> Tensor:
    """The estimator's sums, float64; on the device: a number a tensor would be a wait for the GPU a tensor."""
    w, g, at = weight.detach().reshape(-1), gradient.reshape(-1), 0
    total = torch.zeros(2, dtype=torch.float64, device=gradient.device)
    for piece in pieces if pieces is not None else torch.split(g, CHUNK[g.device.type]):
        end = at + piece.numel()
        numbers = how.fold(w[at:end].float(), g[at:end].float(), piece.float())
        total[: len(numbers)] += torch.stack(numbers)
        at = end
    return total


def _of_all(
    how: Estimator, seen: dict[str, list[Tensor]], pieces: Mapping[str, int], ranks: Ranks
) -> dict[str, list[list[float]]]:
    """Every tensor's observations. pieces: of sharded ones, on how many ranks the same piece lies."""
    mine = {name: torch.stack(found).tolist() if found else [] for name, found in seen.items()}
    everyone = ranks.gather(mine)
    observed: dict[str, list[list[float]]] = {}
    for name in mine:
        if name in pieces:
            shards = zip(*(rows[name] for rows in everyone), strict=True)
            observed[name] = [[math.fsum(x) / pieces[name] for x in zip(*s, strict=True)] for s in shards]
        else:
            observed[name] = [row for rows in everyone for row in rows[name]]
        if how.root:
            observed[name] = [[x**0.5 for x in row] for row in observed[name]]
    return observed


def _moments(
    seen: dict[str, list[list[float]]], count: int
) -> tuple[dict[str, tuple[float, ...]], dict[str, float] | None]:
    """Means over `count` observations, and the variance of the first number's mean; absent observations are 0."""
    means, variance = {}, {}
    for name, rows in seen.items():
        means[name] = tuple(math.fsum(row[i] for row in rows) / count for i in (0, 1))
        if count > 1:
            mean = means[name][0]
            off = math.fsum((row[0] - mean) ** 2 for row in rows) + (count - len(rows)) * mean**2
            variance[name] = off / (count - 1) / count
    return means, variance if count > 1 else None


def _common_age(rule: UpdateRule, optimizer: Any, names: dict[Tensor, str], common_steps: int | None) -> int:
    states = [optimizer.state.get(p, {}) for p in names]
    if not all(rule.has_moments(state) for state in states):
        return 0
    if all("step" in state for state in states):
        ages = {int(state["step"]) for state in states}
        return ages.pop() if len(ages) == 1 else 0
    return 1 if common_steps is None else common_steps


@contextmanager
def _untouched(model: nn.Module, names: dict[Tensor, str], seed: int) -> Iterator[None]:
    """Everything a pass disturbs, as it was: gradients (set aside, not copied), flags, mode, random generators."""
    gradients = {p: p.grad for p in names}
    trained = {p: p.requires_grad for p in names}
    training = model.training
    devices = sorted(
        {p.device.index for p in names if p.device.type == "cuda" and p.device.index is not None}
    )
    try:
        for parameter in names:
            parameter.grad = None
            parameter.requires_grad_(True)
        model.train()
        with own_random(seed, devices):
            yield
    finally:
        model.train(training)
        for parameter in names:
            parameter.grad = gradients[parameter]
            parameter.requires_grad_(trained[parameter])
