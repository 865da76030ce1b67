"""Tries out on the model itself whether its activations can be kept: the proof that makes the cache safe.

Two things have to hold at a depth, and no list of architectures tells: the states that leave the blocks beneath are the
same twice (no dropout, and right padding does not count), and the blocks above need nothing of those beneath but these
states. The trial runs once per depth, before a row is kept.
"""

import logging

import torch
from torch import Tensor

from carbonsched.errors import InputError
from trainer.training.skippable_blocks import SAMPLE_LENGTHS, SWITCH_OFF, SkippableBlocks

log = logging.getLogger("trainer")

FINE, COARSE = 1e-4, 3e-2
"""Largest difference in the trial, relative to the largest value: in fp32, and where products are of half precision."""


def try_cache(blocks: SkippableBlocks, depth: int) -> None:
    """Raises InputError unless states come out the same twice and serving them changes no prediction."""
    was, blocks.depth = blocks.depth, depth
    try:
        first = _record(blocks, 0, 16)
        second = _record(blocks, 1, 24)
        if any(_differ(blocks, a, b) for a, b in zip(first, second, strict=True)):
            raise InputError(
                "train.cache",
                f"the activations under block {depth} are not the same twice (dropout, or padding that counts)",
                f"set the model's dropout to 0, or {SWITCH_OFF}",
            )
        computed, served = _compare(blocks, first)
        if served is None or any(
            _differ(blocks, computed[i, :n], served[i, :n]) for i, n in enumerate(SAMPLE_LENGTHS)
        ):
            raise InputError(
                "train.cache",
                f"the blocks above {depth} need more of those beneath than their states",
                SWITCH_OFF,
            )
    finally:
        blocks.depth = was
        blocks.reset()


def _record(blocks: SkippableBlocks, seed: int, seq: int) -> list[Tensor]:
    """States of each sample row, [tokens, width], without its padding; the model in training mode, where dropout draws."""
    found: list[Tensor] = []
    with blocks.run_aside(train=True, seed=seed):
        blocks.record(found.extend)
        blocks.model(**blocks.sample_batch(seq, seed), use_cache=False)
    return [row[:n].clone() for row, n in zip(found, SAMPLE_LENGTHS, strict=True)]


def _compare(blocks: SkippableBlocks, kept: list[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Logits as computed whole and from kept states, [rows, tokens, vocabulary]; None: the model refuses these."""
    with blocks.run_aside(train=False):
        inputs = blocks.sample_batch(16, 0)
        computed: Tensor = blocks.model(**inputs, use_cache=False).logits
        # whatever a block left lying about is of other rows from here on
        blocks.model(**{n: t.flip(0) for n, t in inputs.items()}, use_cache=False)
        states = torch.zeros(len(SAMPLE_LENGTHS), 16, kept[0].shape[1], dtype=kept[0].dtype)
        for row, state in zip(states, kept, strict=True):
            row[: len(state)] = state
        blocks.serve(states)
        return computed, _run_served(blocks, inputs)


def _run_served(blocks: SkippableBlocks, inputs: dict[str, Tensor]) -> Tensor | None:
    try:
        logits: Tensor = blocks.model(**inputs, use_cache=False).logits
    except Exception:  # whatever a foreign model raises where something that it looks for is not there
        log.debug("served activations were not taken", exc_info=True)
        return None
    return logits


def _differ(blocks: SkippableBlocks, a: Tensor, b: Tensor) -> bool:
    half = a.dtype in (torch.bfloat16, torch.float16) or hasattr(blocks.model, "_original_forward")
    bound = (COARSE if half else FINE) * float(a.abs().max())
    return not bool((a.float() - b.float()).abs().max() <= bound)
