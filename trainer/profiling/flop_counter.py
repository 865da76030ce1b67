"""Counts the FLOPs of real work by torch's FlopCounterMode, and works out those of full fine-tuning at any batch shape.

The counter runs over a real step with the real `requires_grad` flags. Forward work that happens inside the backward
pass is recomputation by gradient checkpointing: counted apart, for model FLOPs leave it out.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from carbonsched.errors import CarbonschedError
from trainer.profiling.length_fit import MOST, LengthFit, Weights
from trainer.profiling.profiler import make_counter
from trainer.profiling.row_ends import RowEnds
from trainer.profiling.uncounted import uncounted_name

log = logging.getLogger("trainer")


class Shape(NamedTuple):
    """The shape of one batch: rows, and tokens per row.

    Example:
        >>> Shape(batch=4, seq=128, labelled=40).cut(0.5).gradient
        64
    """

    batch: int
    seq: int
    target_seq: int | None = None
    """Tokens that an encoder-decoder writes; None for decoders."""
    labelled: int | None = None
    """How many of its tokens run through the output embeddings; None: all do."""
    gradient: int | None = None
    """Last tokens of a row that have gradient; None: all have."""
    ends: RowEnds | None = None
    """How its rows end, if they may run in two parts."""

    def cut(self, share: float) -> "Shape":
        """The same shape with gradient through `share` of its tokens, as far as the labels allow."""
        if self.ends is not None:
            columns = self.ends.columns(share)
        else:  # by the mean row
            labelled = self.batch if self.labelled is None else self.labelled
            columns = max(int(share * self.seq), -(-labelled // self.batch))
        return self._replace(gradient=columns if columns < self.seq else None)


class StepCounter:
    """Counts FLOPs as a context manager, or between `start` and `stop` if a step begins in one callback and ends in another.

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
        """FLOPs of passes without gradient before the backward pass: a reference model's (DPO), generation."""
        self.uncounted: set[str] = set()
        """Operators that multiply, or may, and have no formula."""
        self._mode = make_counter()
        self._total = 0.0
        self._running = False
        self._depth, self._with_graph = 0, True
        """Number of modules being called, and whether the outermost was called with gradients on."""
        count = self._mode._count_flops

        def tally(packet: Any, out: Any, args: Any, kwargs: Any) -> Any:
            if packet not in self._mode.flop_registry:
                name = uncounted_name(packet, args)
                if name is not None:
                    self.uncounted.add(name)
                return out
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
        """Forward + backward, without recomputation and passes without gradient."""
        return self._total - self.recomputed - self.beside

    def start(self) -> None:
        self._hooks = (
            register_module_forward_pre_hook(self._enter_module),
            register_module_forward_hook(self._leave_module, always_call=True),
        )
        self._mode.__enter__()  # type: ignore[no-untyped-call]
        self._running = True

    def stop(self) -> None:
        """No error if it is not running."""
        if self._running:
            self._running = False
            self._mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            self._total += self._mode.get_total_flops()
            for hook in self._hooks:
                hook.remove()

    # a frozen part of the trained model may run without a graph too: what counts is whether the outermost call has one

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
"""Number of open `without_graph` contexts."""


@contextmanager
def without_graph() -> Iterator[None]:
    """`torch.no_grad` for a part of a forward pass: in a checkpointed block that is run again it still counts as recomputation."""
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
    """T_full of any batch shape, from a few traces.

    Example:
        >>> full = FullStepFlops(lambda shape: 1000.0 * shape.batch * shape.seq)
        >>> full.learn(Shape(1, 10), 10_000.0)
        >>> full.flops(Shape(4, 10))
        40000.0

    FLOPs are linear in the batch and follow the lengths by a formula that the traces show (trainer/profiling/length_fit.py);
    until they do, the shape itself is traced. Where the output embeddings run on labelled tokens alone, what is traced has none, and each
    labelled token costs the same.
    """

    def __init__(
        self, trace: Callable[[Shape], float], per_label: float | None = None, *, parts: bool = False
    ) -> None:
        """per_label: FLOPs of one labelled token in the output embeddings; None: they run on every token, which is traced. parts: a shape's
        lengths are those of the two parts of its rows."""
        self._trace = trace
        self.per_label = per_label
        self._fit = LengthFit(parts)
        self._warned = False

    def learn(self, shape: Shape, flops: float) -> None:
        """Add a shape whose FLOPs are already known, without those of its labelled tokens."""
        self._fit.add((shape.seq, shape.target_seq), flops / shape.batch)

    def flops(self, shape: Shape) -> float:
        """Forward + backward with every tensor trained."""
        known = self._fit.known
        head = 0.0 if self.per_label is None else self.per_label * labelled_tokens(shape)
        return shape.batch * sum(w * known[key] for key, w in self.weights(shape).items()) + head

    def weights(self, shape: Shape) -> Weights:
        """FLOPs of one row of `shape` as a weighted sum of those at traced lengths. Traces what is missing."""
        key, fit = (shape.seq, shape.target_seq), self._fit
        while (weights := fit.weights(key)) is None:
            if fit.exhausted:
                self._warn_once()
                return fit.nearest(key)
            wanted = fit.next_trace(key)
            try:
                without = None if self.per_label is None else 0
                fit.add(wanted, self._trace(Shape(shape.batch, *wanted, without)) / shape.batch)
            except CarbonschedError:  # too long for the model, or not a length its inputs can have
                if wanted == key:
                    raise
                fit.unreachable.add(wanted)
        return weights

    def total(self, shapes: Sequence[Shape]) -> float:
        """FLOPs of all these shapes. The longest and shortest are traced first: the formula then covers those between."""
        ends = [extreme(shapes, key=size) for size in _SIZES for extreme in (min, max) if shapes]
        for shape in ends:
            self.weights(shape)
        return sum(map(self.flops, shapes))

    def _warn_once(self) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "this model's FLOPs follow no formula in the length that is known here: %d lengths are traced, "
                "those of others are read off the nearest",
                MOST,
            )


def labelled_tokens(shape: Shape) -> int:
    """Tokens of a batch that run through the output embeddings."""
    everything = shape.batch * (shape.target_seq or shape.seq)
    return everything if shape.labelled is None else shape.labelled


_SIZES: tuple[Callable[[Shape], int], ...] = (lambda s: s.seq, lambda s: s.target_seq or 0)
