"""Looks at a step before the optimizer takes it: are the losses finite, and are the gradients those of the selection?

What a Trainer logs does not tell: it leaves out losses that are not finite (`logging_nan_inf_filter`), and says nothing of a
tensor without a gradient.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from carbonsched.errors import CarbonschedError
from trainer.data.upcoming_batches import unlabelled
from trainer.distributed.wrapping import local_shard
from trainer.training.departure import skipped_layers

_NAMED = 3
"""Tensors that a message names."""


@dataclass(slots=True)
class StepLosses:
    """The losses of the running step's micro-batches, as the Trainer takes them: they add up to the step's.

    Example:
        >>> losses = StepLosses()
        >>> losses.add(torch.tensor(1.5), {"labels": torch.tensor([[3]])})
        >>> losses.add(torch.tensor(float("nan")), {"labels": torch.tensor([[-100]])})
        >>> losses.bad, losses.unlabelled, losses.total
        (True, True, 1.5)
    """

    found: list[tuple[Tensor, Any]] = field(default_factory=list)
    total: float | None = None
    """Of those that are finite; None before `bad` was asked for, and where none is."""
    worst: float | None = None
    """One that is not finite."""
    unlabelled: bool = False
    """Whether all that are not finite are of batches without a label."""

    def add(self, loss: Tensor, batch: Any) -> None:
        labels = batch.get("labels") if isinstance(batch, Mapping) else None
        self.found.append((loss.detach(), labels))

    @property
    def bad(self) -> bool:
        """Whether one is not finite. Waits for the device."""
        if not self.found:
            return False
        values = torch.stack([loss.float().mean() for loss, _ in self.found]).tolist()
        finite = [x for x in values if x - x == 0]
        self.total = sum(finite) if finite else None
        self.worst = next((x for x in values if x - x != 0), None)
        without = [labels for x, (_, labels) in zip(values, self.found, strict=True) if x - x != 0]
        self.unlabelled = all(unlabelled({"labels": labels}) for labels in without)
        return bool(without)


def diverged(what: str, step: int, lr: float) -> CarbonschedError:
    """That training cannot go on, and what helps."""
    return CarbonschedError(f"{what} at step {step}: lower train.lr (now {lr:g}) or train in fp32")


def finite(tensors: Iterable[Tensor | None]) -> bool:
    """Whether no number in any of them is infinite or none at all."""
    looked = [torch.isfinite(local_shard(t)).all() for t in tensors if t is not None]
    return bool(torch.stack([flag.cpu() for flag in looked]).all()) if looked else True


def gradient_faults(
    model: nn.Module, held: Collection[str], selected: Collection[str], lr: float | None = None
) -> str | None:
    """What is amiss with the gradients of a step that is about to be taken, in words; None: they are the selection's.

    lr: the learning rate of the steps before; None: there was none.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> model(torch.ones(1, 2)).sum().backward()
        >>> gradient_faults(model, {"weight", "bias"}, {"weight", "bias"}) is None
        True
        >>> gradient_faults(model, {"weight", "bias"}, {"weight"})
        '1 tensor that is not selected got a gradient (bias): something set requires_grad after the selection, another callback perhaps'
    """
    has = {n: p.grad is not None for n, p in model.named_parameters() if n in held}
    missing = [n for n in selected if not has.get(n, True)]
    extra = [n for n, got in has.items() if got and n not in selected]
    if missing:
        routed = all("expert" in n for n in missing)
        skips = skipped_layers(getattr(model, "config", None))
        if routed:
            why = "no token was routed to these experts"
        elif skips is not None:
            why = f"the model leaves out layers at random ({skips})"
        else:
            why = "a block checkpointed with use_reentrant=True, a loss that does not reach them, or requires_grad set by another callback"
        return f"{len(missing)} of {len(selected)} selected tensors got no gradient ({_some(missing)}): {why}"
    if extra:
        s, are = ("", "is") if len(extra) == 1 else ("s", "are")
        return (
            f"{len(extra)} tensor{s} that {are} not selected got a gradient ({_some(extra)}): "
            "something set requires_grad after the selection, another callback perhaps"
        )
    gradients = [
        local_shard(p.grad) for n, p in model.named_parameters() if n in selected and p.grad is not None
    ]
    if gradients and not any(bool(flag) for flag in torch.stack([g.any().cpu() for g in gradients])):
        rate = (
            ""
            if lr is None
            else f", or was train.lr (now {lr:g}) so high that the weights are beyond learning"
        )
        return (
            f"every gradient is 0: nothing is trained; are all labels -100, or is the loss a constant{rate}?"
        )
    return None


def _some(names: list[str]) -> str:
    more = f", and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
