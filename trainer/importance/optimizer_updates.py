"""Predicts each optimizer's next step: −Δw of one tensor at learning rate 1, formed without stepping.

A `UpdateRule` restates an optimizer's own update in flat chunks, float32, from its parameter group, its state and a gradient.
Nothing is stepped, written or kept, and temporaries stay as small as a chunk. "At rate 1" means (w − w′) ÷ lr in the
limit of a small rate, where every update here is linear in it.

AdamW, Adam    bias-corrected moments; weight decay decoupled or, for Adam, in the gradient (torch)
SGD            momentum, dampening, Nesterov, weight decay in the gradient (torch)
Adafactor      factored second moment, clipped update, scaled by the weight's RMS where the optimizer does (torch's and
               transformers', arXiv 1804.04235), without a first moment
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from carbonsched.errors import InputError

CHUNK: Mapping[str, int] = defaultdict(lambda: 1 << 22, cpu=1 << 18)
"""Elements worked on at a time, by device: temporaries stay small beside an embedding, and in a CPU's cache."""

Group = Mapping[str, Any]
"""An entry of `optimizer.param_groups`."""
State = Mapping[str, Any]
"""An entry of `optimizer.state`; empty for fresh moments."""


@dataclass(frozen=True, slots=True)
class UpdateRule:
    """One kind of optimizer.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        >>> optimizer = torch.optim.SGD([weight], lr=0.1)
        >>> rule = find_rule(optimizer)
        >>> gradient = torch.tensor([0.5, 0.25])
        >>> [chunk.tolist() for chunk in rule.update(optimizer.param_groups[0], {}, weight, gradient, 0)]
        [[0.5, 0.25]]
    """

    name: str
    moment: tuple[str, ...]
    """State entries of which a tensor has one as soon as it was stepped."""
    update: Callable[[Group, State, Tensor, Tensor, int], Iterator[Tensor]]
    """(group, state, weight, gradient, steps behind the state) → −Δw in flat chunks."""
    refuse: Mapping[str, str]
    """Options of a group that the formula leaves out, each with what to do instead."""
    elementwise: bool = True
    """Whether a piece of a tensor is enough to tell its update."""

    def has_moments(self, state: State) -> bool:
        return any(state.get(name) is not None for name in self.moment)


def find_rule(optimizer: Any) -> UpdateRule:
    """The rule of a torch optimizer (or of accelerate's wrapper around one). Raises InputError where there is none."""
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    rule = next((rule for kind, rule in _rules() if isinstance(optimizer, kind)), None)
    if rule is None:
        raise InputError(
            "optimizer",
            f"is {type(optimizer).__name__}, whose next update is not known here",
            f"use one of {', '.join(sorted({rule.name for _, rule in _rules()}))}, "
            'or an importance that needs none, e.g. "fisher"',
        )
    for group in optimizer.param_groups:
        for option, hint in rule.refuse.items():
            if group.get(option) not in (None, False):
                raise InputError("optimizer", f"{rule.name} with {option}={group[option]}", hint)
    return rule


def _rules() -> list[tuple[type, UpdateRule]]:
    from transformers.optimization import Adafactor

    forward = {"maximize": "maximise by minimising the negative loss"}
    first = {
        "beta1": "leave beta1 out: a first moment that holds past learning rates cannot be put on rate 1"
    }
    grown = {"amsgrad": "switch amsgrad off"}
    factored = ("exp_avg_sq_row", "exp_avg_sq")
    return [
        (torch.optim.AdamW, UpdateRule("AdamW", ("exp_avg",), _adam, forward | grown)),
        (torch.optim.Adam, UpdateRule("Adam", ("exp_avg",), _adam, forward | grown)),
        (torch.optim.SGD, UpdateRule("SGD", ("momentum_buffer",), _sgd, forward)),
        (
            torch.optim.Adafactor,
            UpdateRule("Adafactor", ("row_var", "variance"), _adafactor_torch, forward, False),
        ),
        (Adafactor, UpdateRule("Adafactor", factored, _adafactor_hf, first, False)),
    ]


def _adam(group: Group, state: State, weight: Tensor, gradient: Tensor, age: int) -> Iterator[Tensor]:
    beta1, beta2 = group["betas"]
    decay, decoupled = group["weight_decay"], group.get("decoupled_weight_decay", True)
    moments = _chunks(gradient, state["exp_avg"], state["exp_avg_sq"]) if state else None
    for w, g in _chunks(gradient, weight, gradient):
        g = g.float()
        if decay and not decoupled:
            g = g.add(w.float(), alpha=decay)
        if moments is None:
            step = g / g.abs().add_(group["eps"])
        else:
            # in place on what is ours: this runs once over every weight and should cost little beside the backward pass
            m, v = next(moments)
            mean = torch.lerp(m.float(), g, 1 - beta1)
            square = (v.float() * beta2).addcmul_(g, g, value=1 - beta2)
            root = square.sqrt_().div_((1 - beta2 ** (age + 1)) ** 0.5).add_(group["eps"])
            step = mean.div_(root).div_(1 - beta1 ** (age + 1))
        if decay and decoupled:
            step.add_(w.float(), alpha=decay)
        yield step


def _sgd(group: Group, state: State, weight: Tensor, gradient: Tensor, age: int) -> Iterator[Tensor]:
    momentum, dampening, nesterov = group["momentum"], group["dampening"], group["nesterov"]
    buffers = _chunks(gradient, state["momentum_buffer"]) if state and momentum else None
    for w, g in _chunks(gradient, weight, gradient):
        g = g.float().add(w.float(), alpha=group["weight_decay"])
        if not momentum:
            yield g
            continue
        # a buffer begins as the first gradient, not dampened
        kept = g if buffers is None else next(buffers)[0].float().mul(momentum).add_(g, alpha=1 - dampening)
        yield g.add_(kept, alpha=momentum) if nesterov else kept


def _adafactor_torch(
    group: Group, state: State, weight: Tensor, gradient: Tensor, age: int
) -> Iterator[Tensor]:
    eps1, eps2 = group["eps"]
    eps1 = torch.finfo(weight.dtype).eps if eps1 is None else eps1
    new = float((age + 1) ** group["beta2_decay"])
    if gradient.dim() > 1:
        row, col = _means(gradient, 0.0)
        if state:
            row = torch.lerp(_as(state["row_var"], row), row, new)
            col = torch.lerp(_as(state["col_var"], col), col, new)
        scaled = row / row.mean(dim=-1, keepdim=True).clamp_(min=eps1)

        def step(b: int, rows: slice, g: Tensor) -> Tensor:
            return torch.outer(scaled[b, rows], col[b]).clamp_(min=eps1 * eps1).rsqrt_().mul_(g)

        parts = _Parts(gradient, step)
    else:
        parts = _vector(gradient, state.get("variance"), new, 0.0, floor=eps1 * eps1)
    size = max(eps2, _rms(weight)) / max(1.0, parts.rms() / group["d"])
    for w, u in zip(_flat(weight, parts.sizes()), parts, strict=True):
        yield u.mul_(size).add_(w.float(), alpha=group["weight_decay"])


def _adafactor_hf(group: Group, state: State, weight: Tensor, gradient: Tensor, age: int) -> Iterator[Tensor]:
    eps1, eps2 = group["eps"]
    new = float((age + 1) ** group["decay_rate"])
    if gradient.dim() > 1:
        row, col = _means(gradient, eps1)
        if state:
            row = torch.lerp(_as(state["exp_avg_sq_row"], row), row, new)
            col = torch.lerp(_as(state["exp_avg_sq_col"], col), col, new)
        by_row, by_col = (row / row.mean(dim=-1, keepdim=True)).rsqrt_(), col.rsqrt()

        def step(b: int, rows: slice, g: Tensor) -> Tensor:
            return torch.outer(by_row[b, rows], by_col[b]).mul_(g)

        parts = _Parts(gradient, step)
    else:
        parts = _vector(gradient, state.get("exp_avg_sq"), new, eps1)
    scale = max(eps2, _rms(weight)) if group["scale_parameter"] else 1.0
    size = scale / max(1.0, parts.rms() / group["clip_threshold"])
    for w, u in zip(_flat(weight, parts.sizes()), parts, strict=True):
        yield u.mul_(size).add_(w.float(), alpha=scale * group["weight_decay"])


class _Parts:
    """An unclipped update by row blocks of its gradient, formed anew at each walk: its RMS is wanted before it is."""

    def __init__(self, gradient: Tensor, step: Callable[[int, slice, Tensor], Tensor]) -> None:
        self._gradient, self._step = gradient, step

    def __iter__(self) -> Iterator[Tensor]:
        for b, rows, g in _blocks(self._gradient):
            yield self._step(b, rows, g.float()).reshape(-1)

    def sizes(self) -> list[int]:
        return [g.numel() for _, _, g in _blocks(self._gradient)]

    def rms(self) -> float:
        return _root_mean(self, self._gradient.numel())


def _vector(gradient: Tensor, variance: Tensor | None, new: float, eps: float, floor: float = 0.0) -> _Parts:
    square = gradient.reshape(-1).float().square().add_(eps)
    if variance is not None:
        square = torch.lerp(_as(variance, square), square, new)
    root = square.clamp_(min=floor).rsqrt_()

    def step(b: int, rows: slice, g: Tensor) -> Tensor:
        return g.reshape(-1) * root

    return _Parts(gradient.reshape(1, 1, -1), step)


def _blocks(gradient: Tensor) -> Iterator[tuple[int, slice, Tensor]]:
    """(index of the matrix, rows, those rows) of the last two dimensions, in memory order."""
    matrices = gradient.reshape(-1, *gradient.shape[-2:])
    rows = max(1, CHUNK[gradient.device.type] // matrices.shape[2])
    for b, matrix in enumerate(matrices):
        for at in range(0, matrix.shape[0], rows):
            yield b, slice(at, at + rows), matrix[at : at + rows]


def _means(gradient: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Mean squares (+ eps) over rows and over columns of each matrix: shapes (matrices, rows), (matrices, columns)."""
    matrices = gradient.reshape(-1, *gradient.shape[-2:])
    count, height, width = matrices.shape
    row = torch.empty(count, height, device=gradient.device)
    col = torch.zeros(count, width, device=gradient.device)
    for b, rows, g in _blocks(gradient):
        square = g.float().square()
        row[b, rows] = square.mean(dim=-1)
        col[b] += square.sum(dim=0)
    return row.add_(eps), col.div_(height).add_(eps)


def _as(kept: Tensor, like: Tensor) -> Tensor:
    return kept.to(like.device, torch.float32).reshape(like.shape)


def _rms(tensor: Tensor) -> float:
    return _root_mean((t for (t,) in _chunks(tensor, tensor)), tensor.numel())


def _root_mean(pieces: Any, count: int) -> float:
    return float((sum(p.float().square().sum(dtype=torch.float64) for p in pieces) / count) ** 0.5)


def _chunks(like: Tensor, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    # a state that was moved to the host comes over a chunk at a time
    size = CHUNK[like.device.type]
    for parts in zip(*(torch.split(t.detach().reshape(-1), size) for t in tensors), strict=True):
        yield tuple(p.to(like.device) for p in parts)


def _flat(tensor: Tensor, sizes: list[int]) -> Sequence[Tensor]:
    return torch.split(tensor.detach().reshape(-1), sizes)
