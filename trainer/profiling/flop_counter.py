"""Counts the FLOPs of real work by torch's FlopCounterMode, and works out those of full fine-tuning at any batch shape.

The counter runs over a real step with the real `requires_grad` flags. Forward work that happens inside the backward
pass is recomputation by gradient checkpointing: counted apart, for model FLOPs leave it out.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from trainer.profiling.profiler import make_counter


class Shape(NamedTuple):
    """Of one batch: rows, and tokens per row.

    Example:
        >>> Shape(batch=4, seq=128)
        Shape(batch=4, seq=128, target_seq=None)
    """

    batch: int
    seq: int
    target_seq: int | None = None
    """Tokens that an encoder-decoder writes; None for decoders."""


class StepCounter:
    """A context, or `start` and `stop` where a step begins in one callback and ends in another.

    Example:
        >>> weight = torch.ones(3, 4, requires_grad=True)
        >>> with StepCounter() as counter:
        ...     (torch.ones(2, 3) @ weight).sum().backward()
        >>> counter.flops  # 2·2·3·4 forward, as many for the weight's gradient
        96.0
    """

    def __init__(self) -> None:
        self.recomputed = 0.0
        self.beside = 0.0
        """Of passes that no gradient goes through, before the backward pass: a reference model's (DPO), generation."""
        self._mode = make_counter()
        self._total = 0.0
        self._running = False
        self._depth, self._with_graph = 0, True
        """Of modules, how many are being called; of the outermost, whether it was called with gradients on."""
        count = self._mode._count_flops

        def tally(packet: Any, out: Any, args: Any, kwargs: Any) -> Any:
            again = _recomputing(packet is torch.ops.aten.mm and kwargs.get("out") is not None)
            beside = not again and self._beside()
            before = self._mode.get_total_flops() if again or beside else None
            result = count(packet, out, args, kwargs)  # type: ignore[no-untyped-call]
            if before is not None:
                more = self._mode.get_total_flops() - before
                self.recomputed += more * again
                self.beside += more * beside
            return result

        self._mode._count_flops = tally  # type: ignore[method-assign]

    @property
    def flops(self) -> float:
        """Forward + backward, without recomputation and what no gradient goes through."""
        return self._total - self.recomputed - self.beside

    def start(self) -> None:
        self._hooks = (
            register_module_forward_pre_hook(self._enter_module),
            register_module_forward_hook(self._leave_module, always_call=True),
        )
        self._mode.__enter__()  # type: ignore[no-untyped-call]
        self._running = True

    def stop(self) -> None:
        """No error where it does not run."""
        if self._running:
            self._running = False
            self._mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            self._total += self._mode.get_total_flops()
            for hook in self._hooks:
                hook.remove()

    # A frozen part of the trained model may run without a graph, too: what counts is whether the outermost call is to have one.

    def _enter_module(self, module: Any, args: Any) -> None:
        if not self._depth:
            self._with_graph = torch.is_grad_enabled()
        self._depth += 1

    def _leave_module(self, module: Any, args: Any, result: Any) -> None:
        self._depth -= 1

    def _beside(self) -> bool:
        if torch.is_grad_enabled() or _graphless or torch._C._current_graph_task_id() != -1:
            return False
        return self._depth > 0 and not self._with_graph

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


_graphless = 0
"""How many `without_graph` are open."""


@contextmanager
def without_graph() -> Iterator[None]:
    """`torch.no_grad` for work of a forward pass: in a checkpointed block that is run again it still counts as that."""
    global _graphless
    _graphless += 1
    try:
        with torch.no_grad():
            yield
    finally:
        _graphless -= 1


def _recomputing(into_buffer: bool) -> bool:
    # a backward pass runs with gradients off; only a checkpointed block, run again inside it, switches them on. And
    # autograd's own formulas never write a product into a buffer: that is a fused loss forming its logits again (TRL)
    if torch._C._current_graph_task_id() == -1:
        return False
    return bool(torch.is_grad_enabled() or _graphless or into_buffer)


class FullStepFlops:
    """T_full of any batch shape from a few traces.

    Example:
        >>> full = FullStepFlops(lambda shape: 1000.0 * shape.batch * shape.seq)
        >>> full.learn(Shape(1, 10), 10_000.0)
        >>> full.flops(Shape(4, 10))
        40000.0

    FLOPs are linear in the batch and a polynomial of degree two in the lengths (attention), so once the traced shapes
    span a shape's terms the value follows exactly; until then the shape itself is traced.
    """

    def __init__(self, trace: Callable[[Shape], float]) -> None:
        self._trace = trace
        self._known: dict[tuple[int, int | None], float] = {}
        """FLOPs of one row by (seq, target_seq)."""

    def learn(self, shape: Shape, flops: float) -> None:
        """A shape whose FLOPs are known already."""
        self._known[shape.seq, shape.target_seq] = flops / shape.batch

    def flops(self, shape: Shape) -> float:
        """Forward + backward with every tensor trained."""
        key = (shape.seq, shape.target_seq)
        if key not in self._known:
            value = self._extrapolate(key)
            if value is None:
                value = self._trace(shape) / shape.batch
                self._known[key] = value
            return value * shape.batch
        return self._known[key] * shape.batch

    def _extrapolate(self, key: tuple[int, int | None]) -> float | None:
        if len(self._known) < 2:
            return None
        rows = np.array([_terms(k) for k in self._known])
        weights, _, _, _ = np.linalg.lstsq(rows.T, _terms(key), rcond=None)
        if not np.allclose(rows.T @ weights, _terms(key), rtol=1e-9, atol=1e-9):
            return None
        return float(weights @ np.array(list(self._known.values())))


def _terms(key: tuple[int, int | None]) -> np.ndarray[Any, np.dtype[np.float64]]:
    # scaled to thousands of tokens, so that squares and ones are of like size
    s, t = key[0] / 1000, key[1]
    if t is None:
        return np.array([1.0, s, s * s])
    u = t / 1000
    return np.array([1.0, s, s * s, u, u * u, s * u])
