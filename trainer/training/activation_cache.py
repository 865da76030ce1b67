"""Keeps the activations under the deepest trained block: the way to ρ below 1/3, where the forward pass alone would end it.

What enters the deepest trained block depends on a row's tokens and on frozen weights alone, so it is the same in every
epoch. It is kept for each row without its padding, `[tokens, width]`, under a digest of those tokens. A training step's
batch whose rows are all kept gets these states instead of running the blocks beneath; embedding, mask and positions are
computed as always, and so is everything above. (AutoFreeze, arXiv 2102.01386, caches a frozen prefix likewise.)

When it is right, and what watches over it:
- no dropout or other draws; right padding, and states that do not depend on it; no block that looks past its input at what
  a skipped one left behind. All of that is tried out on the model itself before a row is kept
  (trainer/training/cache_trial.py), not read off a list of architectures; a model that fails is refused.
- a frozen prefix: before each batch the version counters of every tensor beneath are read, which torch raises at any
  change in place. A change, or a selection that begins deeper, empties the cache.
- the same tokens: an augmented row has another digest. Batches with other inputs than tokens, mask and labels, or with
  padding on the left, are computed as without a cache.

It lives at one depth. A selection that begins above goes on using it, unless what is left of the training would save more
by beginning again further up, and the segment's ρ can pay for that. Selection plans with what it will save (`forecast_saving`).
It belongs to one process: a resumed training fills it anew.
"""

import functools
import hashlib
import logging
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from carbonsched.errors import InputError
from trainer.data.upcoming_batches import Batches
from trainer.device import to_host
from trainer.profiling.flop_counter import FullStepFlops, Shape
from trainer.profiling.meta_model import meta_twin, traceable
from trainer.profiling.profiler import make_counter, token_batch
from trainer.selection.cached_frontier import CacheSaving
from trainer.training.activation_store import DiskStore, MemoryStore, RowStore
from trainer.training.cache_trial import try_cache
from trainer.training.skippable_blocks import SWITCH_OFF, SkippableBlocks, find_blocks

log = logging.getLogger("trainer")

Place = Literal["off", "memory", "disk"]
Rows = list[tuple[bytes, int]]
"""Digest and length of each row of a batch."""

_REPORTS = ("output_hidden_states", "output_attentions", "output_router_logits")


class ActivationCache:
    """The stored states of one model, in one process, at one depth.

    Example::

        cache = ActivationCache("memory", gigabytes=4)
        cache.attach(model)
        cache.update_depth(epochs=3)  # after tensors were frozen
        cache.serve(inputs, Shape(4, 128))
        loss = model(**inputs).loss
    """

    def __init__(self, place: Place = "off", gigabytes: float = 4.0) -> None:
        self._store: RowStore | None = None
        if place != "off":
            self._store = (MemoryStore if place == "memory" else DiskStore)(gigabytes * 1e9)
        self._blocks: SkippableBlocks | None = None
        self._skipped: list[Shape] = []
        """Batches served since `take_saved_flops`."""
        self._warned: set[str] = set()

    def attach(self, model: Any) -> None:
        """Attach before the first step. Raises InputError for a model whose activations cannot be stored."""
        if self._store is None:
            return
        check_cache(model.config)
        if (
            any(hasattr(p, "device_mesh") for p in model.parameters())
            or model._compiled_call_impl is not None
        ):
            raise InputError("train.cache", "does not go with sharded or compiled models", SWITCH_OFF)
        self._twin = meta_twin(model)
        self._blocks = SkippableBlocks(model)
        self._versions: tuple[int, ...] = ()
        try_cache(self._blocks, max(len(self._blocks.blocks) // 2, 1))

    def detach(self) -> None:
        """Restore the model and forget the rows."""
        if self._blocks is None or self._store is None:
            return
        self._blocks.detach()
        self._blocks = None
        self._store.clear()

    @property
    def on(self) -> bool:
        return self._store is not None

    @property
    def depth(self) -> int:
        """Number of blocks that a stored row skips."""
        return 0 if self._blocks is None else self._blocks.depth

    @property
    def filled(self) -> bool:
        """Whether any rows are stored."""
        return self._store is not None and self.depth > 0 and len(self._store) > 0

    def forecast_saving(
        self, batches: Batches, full: FullStepFlops, first: int, end: int
    ) -> CacheSaving | None:
        """What the stored rows will save in steps [first, end); None: nothing. Every rank asks."""
        if self._blocks is None:
            return None
        valid = self.filled and self._read_versions() == self._versions
        ratio = batches.share_ahead(self._saved_flops if valid else None, full, first, end)
        if not ratio:
            return None
        beneath = {id(p) for p in self._beneath}
        names = (n for n, p in self._blocks.model.named_parameters() if id(p) in beneath)
        return CacheSaving(frozenset(names), ratio)

    def update_depth(self, epochs: float, *, stay: bool = False) -> None:
        """Find the depth for the selection, after each change of it. epochs: those that are left; stay: the selection relies on the stored
        rows, so they are not given up for a greater saving later."""
        if self._blocks is None or self._store is None:
            return
        frozen = self._blocks.frozen_depth()
        if frozen < self.depth:
            self._set_depth(self._blocks, 0)
        kept = self.depth if len(self._store) else 0
        if stay and kept:
            return
        if (epochs - 1) * frozen > epochs * kept and frozen != self.depth:
            self._set_depth(self._blocks, frozen)
            try_cache(self._blocks, frozen)
            log.info(
                "activations under block %d of %d are kept from here on", frozen, len(self._blocks.blocks)
            )
        elif not frozen:
            self._warn_once("nothing lies under the deepest trained block: no activations are kept")

    def serve(self, inputs: Mapping[str, Any], shape: Shape) -> None:
        """Call just before the forward pass of a training batch: it uses stored states, or its rows get stored."""
        if self._blocks is None or self._store is None:
            return
        self._blocks.reset()
        if not self.depth:
            return
        versions = self._read_versions()
        if versions != self._versions:
            self._store.clear()
            self._versions = versions
        rows = _rows(inputs)
        if rows is None:
            self._warn_once(
                "batches with other inputs than tokens, right-padded mask and labels are not cached"
            )
        elif all(key in self._store for key, _ in rows):
            kept = [self._store.get(key) for key, _ in rows]
            self._blocks.serve(_pad(kept, shape.seq, pinned=self._blocks.device.type == "cuda"))
            self._skipped.append(Shape(shape.batch, shape.seq))
        else:
            self._blocks.record(functools.partial(self._keep, self._store, rows))

    def take_saved_flops(self) -> float:
        """FLOPs saved by the batches since the last call. Not while FLOPs are counted, since it may trace."""
        skipped, self._skipped = self._skipped, []
        return sum(self._spared.flops(shape) for shape in skipped)

    def _saved_flops(self, inputs: Mapping[str, Any], shape: Shape) -> float:
        rows = _rows(inputs)
        kept = rows is not None and all(self._store is not None and key in self._store for key, _ in rows)
        return self._spared.flops(Shape(shape.batch, shape.seq)) if kept else 0.0

    def _keep(self, store: RowStore, rows: Rows, states: Tensor) -> None:
        """Store the rows of a batch. states: [rows, tokens, width]."""
        if all(key in store for key, _ in rows):
            return
        # one copy of the batch through page-locked memory; its rows are cut out of it here
        for (key, length), row in zip(rows, to_host(states), strict=True):
            if key not in store and not store.put(key, row[:length].clone()):
                self._warn_once(
                    f"train.cache_gb = {store.limit / 1e9:g} is full with {len(store)} rows: "
                    "batches with a row outside are computed whole"
                )

    def _set_depth(self, blocks: SkippableBlocks, depth: int) -> None:
        if self._store is not None:
            self._store.clear()
        blocks.depth = depth
        self._beneath = blocks.parameters_beneath(depth)
        self._versions = self._read_versions()
        self._spared = FullStepFlops(lambda shape: flops_beneath(self._twin, shape)[depth])

    def _read_versions(self) -> tuple[int, ...]:
        return tuple(p._version for p in self._beneath)

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            log.warning(message)


def check_cache(config: Any) -> None:
    """Raise InputError if the config alone shows that activations cannot be stored."""
    if config.is_encoder_decoder:
        raise InputError("train.cache", "needs a decoder-only model", f"take one, or {SWITCH_OFF}")
    for name, value in config.to_dict().items():
        drops = any(word in name for word in ("dropout", "pdrop", "layerdrop"))
        if (
            drops
            and not name.startswith(("classifier", "summary"))
            and isinstance(value, float)
            and value > 0
        ):
            raise InputError(
                "train.cache",
                f"the model draws at random in its frozen part ({name} = {value:g})",
                f"set that to 0 in config.json, or {SWITCH_OFF}",
            )


def flops_beneath(twin: Any, shape: Shape) -> list[float]:
    """Forward FLOPs of the lowest 0, 1, 2, … blocks of a model on the meta device."""
    blocks, at = find_blocks(twin), [0.0]
    with make_counter() as count, traceable(twin.config._attn_implementation or "eager"):
        hooks = [
            blocks[0].register_forward_pre_hook(lambda *_: at.__setitem__(0, count.get_total_flops())),
            *(block.register_forward_hook(lambda *_: at.append(count.get_total_flops())) for block in blocks),
        ]
        twin(**token_batch(shape.batch, shape.seq, None), use_cache=False)
    for hook in hooks:
        hook.remove()
    return [flops - at[0] for flops in at]


def _pad(kept: list[Tensor], seq: int, *, pinned: bool) -> Tensor:
    """[rows, seq, width] from states without padding; pinned: in page-locked memory, from which a board copies."""
    states = torch.zeros(len(kept), seq, kept[0].shape[1], dtype=kept[0].dtype, pin_memory=pinned)
    for row, state in zip(states, kept, strict=True):
        row[: len(state)] = state
    return states


def _rows(inputs: Mapping[str, Any]) -> Rows | None:
    """Digest and length of each row; None for a batch that depends on more than its rows' own tokens."""
    known = ("input_ids", "attention_mask", "labels", "num_items_in_batch")
    ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
    if ids is None or any(isinstance(v, Tensor) and n not in known for n, v in inputs.items()):
        return None
    if any(inputs.get(name) for name in _REPORTS) or (mask is not None and mask.shape != ids.shape):
        return None
    ids = ids.cpu().long()
    lengths = torch.full((len(ids),), ids.shape[1]) if mask is None else mask.cpu().long().sum(1)
    if mask is not None:
        right = torch.arange(ids.shape[1]) < lengths[:, None]
        if not bool((mask.cpu().bool() == right).all()) or not bool(lengths.all()):
            return None
    return [
        (hashlib.blake2b(row[:n].numpy().tobytes(), digest_size=16).digest(), n)
        for row, n in zip(ids, lengths.tolist(), strict=True)
    ]
