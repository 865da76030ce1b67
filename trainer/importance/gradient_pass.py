"""Runs backward passes and takes each gradient as soon as it is whole, so that no two need to live at a time.

A hook forms the estimator's sums of a tensor chunk by chunk and frees its gradient (a tied weight's hook fires once, with
the full sum). With an estimator that crosses batches the update of one batch is kept until the next one's gradient comes:
noise common to both does not count as gain then, for as much memory as the gradients take in float32.

Weights, moments, gradients, buffers, mode, `requires_grad` and every random generator are bit-identical afterwards.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from carbonsched.errors import InputError
from trainer.device import device_seconds
from trainer.distributed.ranks import Ranks
from trainer.distributed.wrapping import local_shard, replica_count
from trainer.importance.estimators import Estimator
from trainer.importance.optimizer_updates import CHUNK, UpdateRule, find_rule
from trainer.job.directives import Stopped
from trainer.job.random_state import keep_buffers, own_random
from trainer.profiling.flop_counter import StepCounter

Loss = Callable[[nn.Module, dict[str, Any]], Tensor]
"""Of a model and a batch, to be minimised."""


def model_loss(model: nn.Module, batch: dict[str, Any]) -> Tensor:
    """The loss that the model itself gives of a batch with labels."""
    loss: Tensor = model(**batch).loss
    return loss


class GradientPass:
    """The parameters that an optimizer holds, and what an estimator observed of each over some batches.

    Example::

        gradients = GradientPass(model, optimizer, ESTIMATORS["update"], common_steps=None, ranks=Ranks())
        gradients.run([(0, first), (1, second)], seed=0, stop=lambda: False)
        sums = gradients.observations["lm_head.weight"]
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any,
        estimator: Estimator,
        common_steps: int | None,
        ranks: Ranks,
        loss: Loss = model_loss,
    ) -> None:
        """common_steps, loss: as for `measure`. Raises InputError for an optimizer whose update is not known."""
        self.model, self.optimizer, self.estimator, self.ranks = model, optimizer, estimator, ranks
        self.loss = loss
        self.groups = {
            p: group for group in optimizer.param_groups for p in group["params"] if p.is_floating_point()
        }
        self.names: dict[Tensor, str] = {p: n for n, p in model.named_parameters() if p in self.groups}
        self.rule = find_rule(optimizer) if estimator.updates else None
        sharded = any(hasattr(p, "placements") for p in self.names)
        self.replicas = {n: replica_count(p, ranks) for p, n in self.names.items()} if sharded else {}
        """Of sharded parameters, on how many ranks the same piece lies."""
        if sharded and self.rule is not None and not self.rule.elementwise:
            raise InputError(
                "optimizer",
                f"{self.rule.name}'s next update takes whole matrices, FSDP2 holds pieces",
                'use AdamW or SGD, or an importance that needs no update, e.g. "fisher"',
            )
        self.age = _common_age(self.rule, optimizer, self.names, common_steps) if self.rule else 0
        """Optimizer steps behind the moments that updates go by; 0: fresh ones."""
        self.observations: dict[str, list[Tensor]] = {name: [] for name in self.names.values()}
        """The estimator's two sums, float64, per tensor: one for each batch, or pair of batches."""
        self.recomputed = 0.0
        """FLOPs of gradient checkpointing, counted apart."""
        self.seconds: list[float] = []
        """Of each part: the first of a process loads kernels and fills the allocator, too."""
        self.kept_bytes = 0
        """The most that updates took between two batches."""
        self._crosses = self._last = False
        self._updates: dict[Tensor, list[Tensor]] = {}

    def run(
        self, parts: Sequence[tuple[int, dict[str, Tensor]]], seed: int, stop: Callable[[], bool]
    ) -> list[float]:
        """Run what is in `parts`, each with the number of its batch; returns the counted FLOPs of every batch.

        seed: dropout is drawn from it. Raises Stopped between two parts once `stop()` holds on any rank.
        """
        self._crosses = self.estimator.crosses and len(parts) > 1
        flops = [0.0] * (1 + max(batch for batch, _ in parts))
        with restore_after(self.model, self.names, seed), self._hooks():
            for i, (batch, part) in enumerate(parts):
                if self.ranks.any(stop()):
                    raise Stopped("signal")
                self._last = i == len(parts) - 1
                began = device_seconds()
                counter = StepCounter()
                with counter:
                    self.loss(self.model, part).backward()  # type: ignore[no-untyped-call]
                flops[batch] += counter.flops
                self.recomputed += counter.recomputed
                self.seconds.append(device_seconds() - began)
                held = sum(u.numel() * u.element_size() for us in self._updates.values() for u in us)
                self.kept_bytes = max(self.kept_bytes, held)
        return flops

    def take(self, parameter: Tensor) -> None:
        """Observe the gradient of `parameter`, which is whole now, and free it."""
        gradient, parameter.grad = parameter.grad, None
        if gradient is None:
            return
        with _disable_current_modes():
            # the counter would look at each of these thousands of operations in Python, and count none
            self._observe(parameter, gradient)

    def _observe(self, parameter: Tensor, gradient: Tensor) -> None:
        gradient, weight, name = local_shard(gradient), local_shard(parameter), self.names[parameter]
        update = self._predict_update(parameter, weight, gradient)
        if not self._crosses:
            self.observations[name].append(_fold(self.estimator, weight, gradient, update))
            return
        before = self._updates.pop(parameter, None)
        if before is not None:
            self.observations[name].append(_fold(self.estimator, weight, gradient, before))
        if update is not None:
            self._updates[parameter] = list(update)

    def _predict_update(self, parameter: Tensor, weight: Tensor, gradient: Tensor) -> Iterable[Tensor] | None:
        """The optimizer's next update in flat chunks; None where nothing will ask for it."""
        if self.rule is None or (self._crosses and self._last):
            return None
        state: dict[str, Any] = {}
        if self.age:
            state = {key: local_shard(x) for key, x in self.optimizer.state[parameter].items()}
        return self.rule.update(self.groups[parameter], state, weight, gradient, self.age)

    @contextmanager
    def _hooks(self) -> Iterator[None]:
        hooks = [p.register_post_accumulate_grad_hook(self.take) for p in self.names]  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def _fold(estimator: Estimator, weight: Tensor, gradient: Tensor, pieces: Iterable[Tensor] | None) -> Tensor:
    """The estimator's sums, float64; on the device: one number per tensor on the host would mean one wait for the GPU per tensor."""
    w, g, at = weight.detach().reshape(-1), gradient.reshape(-1), 0
    total = torch.zeros(2, dtype=torch.float64, device=gradient.device)
    for piece in pieces if pieces is not None else torch.split(g, CHUNK[g.device.type]):
        end = at + piece.numel()
        numbers = estimator.fold(w[at:end].float(), g[at:end].float(), piece.float())
        total[: len(numbers)] += torch.stack(numbers)
        at = end
    return total


def _common_age(rule: UpdateRule, optimizer: Any, names: dict[Tensor, str], common_steps: int | None) -> int:
    states = [optimizer.state.get(p, {}) for p in names]
    if not all(rule.has_moments(state) for state in states):
        return 0
    if all("step" in state for state in states):
        ages = {int(state["step"]) for state in states}
        return ages.pop() if len(ages) == 1 else 0
    return 1 if common_steps is None else common_steps


@contextmanager
def restore_after(model: nn.Module, names: dict[Tensor, str], seed: int) -> Iterator[None]:
    """Everything a pass disturbs, as it was: gradients (set aside, not copied), flags, mode, buffers, random generators."""
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
        with own_random(seed, devices), keep_buffers(model):
            yield
    finally:
        model.train(training)
        for parameter in names:
            parameter.grad = gradients[parameter]
            parameter.requires_grad_(trained[parameter])
