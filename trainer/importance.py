"""How much each tensor's next update would lower the loss: I = −⟨∂L/∂w, Δw⟩, streamed, nothing stepped or copied.

Δw is what AdamW would do next (bias-corrected moments and decoupled weight decay, torch's formula) at learning rate 1:
warm-up begins at rate 0, where every importance would be 0, and one common rate does not change a ranking. A hook takes
each gradient as soon as it is whole (a tied weight's once, with the full sum), forms its dot product and frees it, so no
two tensors' gradients need to live at a time.

One state age: moments of a tensor that stood still are stale and overrate it (about twice), so do absent ones. If every
tensor has been trained for the same number of optimizer steps its own moments are used; else *every* tensor is predicted
from fresh moments, which makes Δw = −g/(|g| + ε) − decay·w.

Estimator: with two batches or more Δw comes from one batch and ∂L/∂w from the next (all neighbouring pairs averaged),
which noise cannot inflate; the updates in between are kept, as much memory as the gradients take. With one batch both
come from it.

Clipping: the global norm is known only when the last gradient is, so a stream cannot clip. Gradients are taken as they
are; clipping scales all of them alike.

Weights, moments, gradients, buffers, mode, `requires_grad` and every random generator are bit-identical afterwards.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from carbonsched.errors import CarbonschedError, InputError
from trainer.flopcount import StepCounter
from trainer.order import own_random
from trainer.steering import Stopped

CHUNK: Mapping[str, int] = defaultdict(lambda: 1 << 24, cpu=1 << 18)
"""Elements worked on at a time, by device: temporaries stay small beside an embedding, and in a CPU's cache."""


@dataclass(frozen=True, slots=True)
class Importance:
    values: dict[str, float]
    """By `named_parameters()` name; 0 for a tensor the loss gave no gradient."""
    flops: tuple[float, ...]
    """Counted, of each batch; recomputation apart."""
    seconds: float
    age: int
    """Optimizer steps behind the moments that were used; 0: fresh ones."""
    kept_bytes: int
    """Held between two batches by the cross-batch estimator."""


def measure(
    model: nn.Module,
    optimizer: Any,
    batches: Sequence[dict[str, Tensor]],
    *,
    seed: int = 0,
    stop: Callable[[], bool] = lambda: False,
) -> Importance:
    """Importance of every parameter that `optimizer` holds, over `batches`, dropout drawn from `seed`.

    Raises InputError for an optimizer other than AdamW, CarbonschedError where an
    importance is not finite (training has diverged), Stopped between two batches once `stop()` holds.
    """
    started = time.monotonic()
    groups = _groups(optimizer)
    names: dict[Tensor, str] = {p: name for name, p in model.named_parameters() if p in groups}
    age = _common_age(optimizer, names)
    sums: dict[str, Any] = dict.fromkeys(names.values(), 0.0)
    kept: dict[Tensor, Tensor] = {}
    cross = len(batches) > 1
    kept_bytes, flops = 0, []

    def take(parameter: Tensor) -> None:
        gradient, parameter.grad = parameter.grad, None
        if gradient is None:
            return
        if not cross:
            sums[names[parameter]] += _dot(
                gradient, _update(optimizer, groups[parameter], parameter, gradient, age)
            )
            return
        before = kept.pop(parameter, None)
        if before is not None:
            sums[names[parameter]] += _dot(gradient, [before.reshape(-1)])
        kept[parameter] = torch.cat(list(_update(optimizer, groups[parameter], parameter, gradient, age)))

    with _untouched(model, names, seed):
        hooks = [p.register_post_accumulate_grad_hook(take) for p in names]  # type: ignore[no-untyped-call]
        try:
            for batch in batches:
                if stop():
                    raise Stopped("signal")
                counter = StepCounter()
                with counter:
                    model(**batch).loss.backward()
                flops.append(counter.flops)
                kept_bytes = max(kept_bytes, sum(u.numel() * u.element_size() for u in kept.values()))
        finally:
            for hook in hooks:
                hook.remove()
    pairs = max(len(batches) - 1, 1)
    values = {name: float(total) / pairs for name, total in sums.items()}
    for name, value in values.items():
        if not math.isfinite(value):
            raise CarbonschedError(f"importance of {name} is {value}: training has diverged; lower train.lr")
    return Importance(values, tuple(flops), time.monotonic() - started, age, kept_bytes)


def _update(
    optimizer: Any, group: dict[str, Any], weight: Tensor, gradient: Tensor, age: int
) -> Iterator[Tensor]:
    """−Δw in flat chunks, float32, as `torch.optim.AdamW` would step at rate 1 with moments of `age` steps."""
    beta1, beta2 = group["betas"]
    state = optimizer.state[weight] if age else {}
    size = CHUNK[gradient.device.type]
    weights, gradients = (torch.split(t.reshape(-1), size) for t in (weight.detach(), gradient))
    moments = (
        [torch.split(state[name].reshape(-1), size) for name in ("exp_avg", "exp_avg_sq")] if state else []
    )
    for i, (w, g) in enumerate(zip(weights, gradients, strict=True)):
        g = g.float()
        if not moments:
            step = g / g.abs().add_(group["eps"])
        else:
            # in place on what is ours: this runs once over every weight and should cost little beside the backward pass
            mean = torch.lerp(moments[0][i].float(), g, 1 - beta1)
            square = (moments[1][i].float() * beta2).addcmul_(g, g, value=1 - beta2)
            root = square.sqrt_().div_((1 - beta2 ** (age + 1)) ** 0.5).add_(group["eps"])
            step = mean.div_(root).div_(1 - beta1 ** (age + 1))
        if group["weight_decay"]:
            step.add_(w.float(), alpha=group["weight_decay"])
        yield step


def _dot(gradient: Tensor, pieces: Iterable[Tensor]) -> Tensor:
    # stays on the device: a number a tensor would be a wait for the GPU a tensor
    at, total = 0, torch.zeros((), dtype=torch.float64, device=gradient.device)
    flat = gradient.reshape(-1)
    for piece in pieces:
        total += torch.dot(flat[at : at + piece.numel()].float(), piece.float())
        at += piece.numel()
    return total


def _groups(optimizer: Any) -> dict[Tensor, dict[str, Any]]:
    groups = {p: group for group in optimizer.param_groups for p in group["params"] if p.is_floating_point()}
    if any(not {"betas", "eps", "weight_decay"} <= group.keys() for group in groups.values()):
        raise InputError(
            "optimizer", "is not AdamW", "importance is the update that AdamW would make: use AdamW"
        )
    return groups


def _common_age(optimizer: Any, names: dict[Tensor, str]) -> int:
    ages = {int(optimizer.state[p]["step"]) if "exp_avg" in optimizer.state.get(p, {}) else 0 for p in names}
    return ages.pop() if len(ages) == 1 else 0


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
