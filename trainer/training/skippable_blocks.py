"""Skips the lowest blocks of a model in a forward pass, or reads what leaves them.

The activation cache stands on it: blocks below `depth` give kept states instead of running, and the states that leave the
block just below `depth` are handed out to be kept. The model itself is not changed; each block's `forward` is wrapped.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from carbonsched.errors import InputError
from trainer.job.random_state import keep_buffers, own_random

SWITCH_OFF = 'set cache = "off"'
"""What a user can always do about a model that is not supported."""
SAMPLE_LENGTHS = (13, 9)
"""Tokens of the rows of `sample_batch`."""


class SkippableBlocks:
    """The stack of blocks of one model, until `detach`.

    Example::

        blocks, kept = SkippableBlocks(model), []
        blocks.depth = 4
        blocks.record(kept.append)
        logits = model(**inputs).logits
        blocks.serve(kept[0])
        same = model(**inputs).logits  # the lowest four blocks did not run
        blocks.detach()
    """

    def __init__(self, model: Any) -> None:
        """Raises InputError if the model has no stack of blocks."""
        self.model, self.blocks = model, find_blocks(model)
        self.depth = 0
        """Number of blocks that are skipped while states are served."""
        self._served: Tensor | None = None
        self._keep: Callable[[Tensor], None] | None = None
        self._output: Any = None
        """Output of the block below `depth` in this pass; None: not read."""
        self._bare = True
        """Whether a block returns its states alone, not in a tuple."""
        self._rest: tuple[None, ...] = ()
        for i, block in enumerate(self.blocks):
            block.forward = self._make_skippable(i, block.forward)
        self._hook = model.register_forward_hook(self._end_pass, always_call=True)
        self._outside = self._find_outside()

    def detach(self) -> None:
        """Restore the model."""
        self._hook.remove()
        for block in self.blocks:
            del block.forward

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.blocks[0].parameters()).device
        return device

    def serve(self, states: Tensor) -> None:
        """In the next pass skip the blocks below `depth`: `states`, [rows, tokens, width], left them earlier."""
        self._served = states.to(self.device, non_blocking=states.is_pinned())

    def record(self, keep: Callable[[Tensor], None]) -> None:
        """At the end of the next pass give `keep` the states, [rows, tokens, width], that left the block below `depth`."""
        self._keep = keep

    def reset(self) -> None:
        """Forget what the next pass was to serve or to record."""
        self._served = self._keep = self._output = None

    def parameters_beneath(self, depth: int) -> list[nn.Parameter]:
        """Parameters of the lowest `depth` blocks and of what runs before them."""
        return [*self._outside, *(p for block in self.blocks[:depth] for p in block.parameters())]

    def frozen_depth(self) -> int:
        """Number of blocks below the deepest trained one; 0 if something below all blocks is trained."""
        if any(p.requires_grad for p in self._outside):
            return 0
        trained = [any(p.requires_grad for p in block.parameters()) for block in self.blocks]
        return trained.index(True) if True in trained else len(self.blocks)

    @contextmanager
    def run_aside(self, *, train: bool, seed: int = 0) -> Iterator[None]:
        """A context in which the model runs without gradients; afterwards its mode, buffers and every random generator are as before."""
        training, index = self.model.training, self.device.index
        try:
            self.model.train(train)
            devices = [] if index is None else [index]
            with own_random(seed, devices), keep_buffers(self.model), torch.no_grad():
                yield
        finally:
            self.model.train(training)

    def sample_batch(self, seq: int, filling: int) -> dict[str, Tensor]:
        """Rows of SAMPLE_LENGTHS tokens, always the same ones, padded on the right to `seq` by the token `filling`."""
        vocabulary = self.model.get_input_embeddings().weight.shape[0]
        draw = torch.Generator().manual_seed(0)
        ids = torch.full((len(SAMPLE_LENGTHS), seq), filling % vocabulary)
        mask = torch.zeros_like(ids)
        for i, n in enumerate(SAMPLE_LENGTHS):
            ids[i, :n] = torch.randint(vocabulary, (n,), generator=draw)
            mask[i, :n] = 1
        return {"input_ids": ids.to(self.device), "attention_mask": mask.to(self.device)}

    def _make_skippable(self, i: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(forward)
        def run(*args: Any, **kwargs: Any) -> Any:
            if self._served is not None and i < self.depth:
                return self._served if self._bare else (self._served, *self._rest)
            out = forward(*args, **kwargs)
            if self._keep is not None and i == self.depth - 1:
                self._output = out
            return out

        return run

    def _end_pass(self, model: nn.Module, args: Any, output: Any) -> None:
        if self._keep is not None and self._output is not None:
            self._keep(self._read_states())
        self.reset()

    def _read_states(self) -> Tensor:
        self._bare = isinstance(self._output, Tensor)
        self._rest = () if self._bare else tuple(self._output[1:])
        if any(x is not None for x in self._rest):
            raise InputError("train.cache", "the model's blocks give more than their states", SWITCH_OFF)
        states: Tensor = (self._output if self._bare else self._output[0]).detach()
        return states

    def _find_outside(self) -> list[nn.Parameter]:
        """Parameters outside the blocks, but for those whose modules only run when the last block is done."""
        inside = {id(m) for block in self.blocks for m in block.modules()}
        outside = [m for m in self.model.modules() if id(m) not in inside]
        begun: set[int] = set()
        above: set[int] = set()
        over = False

        def begin(module: nn.Module, args: Any) -> None:
            if over and id(module) not in begun:
                above.add(id(module))
            begun.add(id(module))

        def end(module: nn.Module, args: Any, output: Any) -> None:
            nonlocal over
            over = True

        hooks = [m.register_forward_pre_hook(begin) for m in outside]
        hooks.append(self.blocks[-1].register_forward_hook(end))
        try:
            with self.run_aside(train=False):
                self.model(**self.sample_batch(16, 0), use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        return [p for m in outside if id(m) not in above for p in m.parameters(recurse=False)]


def find_blocks(model: nn.Module) -> list[Any]:
    """The model's stack of blocks: its ModuleList of the most parameters. Raises InputError where there is none."""
    stacks: list[Any] = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) > 1]
    if not stacks:
        raise InputError("train.cache", "finds no stack of blocks in this model", SWITCH_OFF)
    largest: Any = max(stacks, key=lambda m: sum(p.numel() for p in m.parameters()))
    return list(largest)
