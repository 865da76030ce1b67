"""Activations under the deepest trained block, kept: the way to ρ below 1/3, where the forward pass alone would end it.

What enters the deepest trained block depends on a row's tokens and on frozen weights alone, so it is the same in every
epoch. It is kept for each row without its padding, `[tokens, width]`, under a digest of those tokens. A training step's
batch whose rows are all kept gets these states instead of running the blocks beneath; embedding, mask and positions are
computed as always, and so is everything above. (AutoFreeze, arXiv 2102.01386, caches a frozen prefix likewise.)

When it is right, and what watches over it:
- no dropout or other draws; right padding, and states that do not depend on it; no block that looks past its input at what
  a skipped one left behind. All of that is tried out on the model itself before a row is kept (`_try`), not read off a list
  of architectures; a model that fails is refused.
- a frozen prefix: before each batch the version counters of every tensor beneath are looked at, which torch raises at any
  change in place. A change, or a selection that begins deeper, empties the cache.
- the same tokens: an augmented row has another digest. Batches with other inputs than tokens, mask and labels, or with
  padding on the left, are computed as without a cache.

It lives at one depth. A selection that begins above goes on using it, unless what is left of the training would save more
by beginning again further up, and the segment's ρ can pay for that. Selection plans with what it will save (`foresee`).
It belongs to one process: a resumed training fills it anew.
"""

import functools
import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from carbonsched.errors import InputError
from trainer.data.upcoming_batches import Batches
from trainer.job.random_state import own_random
from trainer.profiling.flop_counter import FullStepFlops, Shape
from trainer.profiling.meta_model import meta_twin, traceable
from trainer.profiling.profiler import counter, token_batch
from trainer.selection.cached_frontier import CacheSaving
from trainer.training.activation_store import DiskStore, MemoryStore, RowStore

log = logging.getLogger("trainer")

Place = Literal["off", "memory", "disk"]
Rows = list[tuple[bytes, int]]
"""Digest and length of each row of a batch."""

FINE, COARSE = 1e-4, 3e-2
"""Largest difference in the trial, relative to the largest value: in fp32, and where products are of half precision."""
_TRIED = (13, 9)
"""Tokens of the trial's rows."""
_REPORTS = ("output_hidden_states", "output_attentions", "output_router_logits")
_OFF = 'or set cache = "off"'


class ActivationCache:
    def __init__(self, place: Place = "off", gigabytes: float = 4.0) -> None:
        self._store: RowStore | None = None
        if place != "off":
            self._store = (MemoryStore if place == "memory" else DiskStore)(gigabytes * 1e9)
        self.depth = 0
        """Blocks that a kept row does not run."""
        self._skipped: list[Shape] = []
        """Batches that were served since `take_saved`."""
        self._model: Any = None
        self._said: set[str] = set()

    def attach(self, model: Any) -> None:
        """Before the first step. Raises InputError for a model whose activations cannot be kept."""
        if self._store is None:
            return
        check_cache(model.config)
        if (
            any(hasattr(p, "device_mesh") for p in model.parameters())
            or model._compiled_call_impl is not None
        ):
            raise InputError("train.cache", "does not go with sharded or compiled models", _OFF[3:])
        self._model, self._blocks = model, find_blocks(model)
        self._served: Tensor | None = None
        self._recorded: Rows | None = None
        self._seen: Any = None
        self._bare = True
        self._rest: tuple[None, ...] = ()
        self._twin = meta_twin(model)
        self._versions: tuple[int, ...] = ()
        for i, block in enumerate(self._blocks):
            block.forward = self._skippable(i, block.forward)
        self._hook = model.register_forward_hook(self._after, always_call=True)
        self._bottom = self._beneath_blocks()
        self._try(max(len(self._blocks) // 2, 1))

    def detach(self) -> None:
        """The model as it was, the rows forgotten."""
        if self._model is None or self._store is None:
            return
        self._hook.remove()
        for block in self._blocks:
            del block.forward
        self._place(0)
        self._model = None

    @property
    def on(self) -> bool:
        return self._store is not None

    @property
    def filled(self) -> bool:
        """Whether rows are kept."""
        return self._store is not None and self.depth > 0 and len(self._store) > 0

    def foresee(self, batches: Batches, full: FullStepFlops, first: int, end: int) -> CacheSaving | None:
        """What the rows kept now will save of steps [first, end); None: nothing. Every rank asks."""
        if not self.on:
            return None
        valid = self.filled and self._stamp() == self._versions
        ratio = batches.share_ahead(self._saves if valid else None, full, first, end)
        if not ratio:
            return None
        beneath = {id(p) for p in self._beneath}
        names = (n for n, p in self._model.named_parameters() if id(p) in beneath)
        return CacheSaving(frozenset(names), ratio)

    def follow(self, passes: float, *, stay: bool = False) -> None:
        """After each toggle: find the depth for the selection.

        passes: epochs that are left; stay: the selection counts on what is kept, so it is not given up for more later.
        """
        if self._model is None or self._store is None:
            return
        frozen = self._frozen()
        if frozen < self.depth:
            self._place(0)
        kept = self.depth if len(self._store) else 0
        if stay and kept:
            return
        if (passes - 1) * frozen > passes * kept and frozen != self.depth:
            self._place(frozen)
            self._try(frozen)
            log.info("activations under block %d of %d are kept from here on", frozen, len(self._blocks))
        elif not frozen:
            self._say("nothing lies under the deepest trained block: no activations are kept")

    def serve(self, inputs: Mapping[str, Any], shape: Shape) -> None:
        """Just before the forward pass of a training batch: it takes what is kept, or its rows get kept."""
        self._served = self._recorded = self._seen = None
        if not self.depth or self._store is None:
            return
        versions = self._stamp()
        if versions != self._versions:
            self._store.clear()
            self._versions = versions
        rows = _rows(inputs)
        if rows is None:
            self._say("batches with other inputs than tokens, right-padded mask and labels are not cached")
        elif all(key in self._store for key, _ in rows):
            self._served = self._padded(rows, shape.seq)
            self._skipped.append(Shape(shape.batch, shape.seq))
        else:
            self._recorded = rows

    def take_saved(self) -> float:
        """FLOPs that the batches since the last call did not spend. Not while FLOPs are counted: it may trace."""
        skipped, self._skipped = self._skipped, []
        return sum(self._spared.flops(shape) for shape in skipped)

    def _saves(self, inputs: Mapping[str, Any], shape: Shape) -> float:
        assert self._store is not None  # noqa: S101 - only a filled cache saves
        rows = _rows(inputs)
        kept = rows is not None and all(key in self._store for key, _ in rows)
        return self._spared.flops(Shape(shape.batch, shape.seq)) if kept else 0.0

    # ---- the model, while it is attached

    def _skippable(self, i: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(forward)
        def run(*args: Any, **kwargs: Any) -> Any:
            if self._served is not None and i < self.depth:
                return self._served if self._bare else (self._served, *self._rest)
            out = forward(*args, **kwargs)
            if self._recorded is not None and i == self.depth - 1:
                self._seen = out
            return out

        return run

    def _after(self, model: nn.Module, args: Any, output: Any) -> None:
        if self._recorded is not None and self._seen is not None and self._store is not None:
            states = self._states()
            for (key, length), row in zip(self._recorded, states, strict=True):
                if key not in self._store and not self._store.put(key, row[:length].to("cpu", copy=True)):
                    self._say(
                        f"train.cache_gb = {self._store.limit / 1e9:g} is full with {len(self._store)} rows: "
                        "batches with a row outside are computed whole"
                    )
        self._served = self._recorded = self._seen = None

    def _states(self) -> Tensor:
        """[rows, tokens, width] of the block that was seen."""
        self._bare = isinstance(self._seen, Tensor)
        self._rest = () if self._bare else tuple(self._seen[1:])
        if any(x is not None for x in self._rest):
            raise InputError("train.cache", "the model's blocks give more than their states", _OFF[3:])
        states: Tensor = (self._seen if self._bare else self._seen[0]).detach()
        return states

    def _padded(self, rows: Rows, seq: int) -> Tensor:
        assert self._store is not None  # noqa: S101 - only a serving cache pads
        kept = [self._store.get(key) for key, _ in rows]
        states = torch.zeros(len(rows), seq, kept[0].shape[1], dtype=kept[0].dtype)
        for row, state in zip(states, kept, strict=True):
            row[: len(state)] = state
        return states.to(self._device)

    @property
    def _device(self) -> torch.device:
        device: torch.device = next(self._blocks[0].parameters()).device
        return device

    # ---- depth

    def _place(self, depth: int) -> None:
        assert self._store is not None  # noqa: S101
        self._store.clear()
        self.depth = depth
        self._beneath = [*self._bottom, *(p for b in self._blocks[:depth] for p in b.parameters())]
        self._versions = self._stamp()
        self._spared = FullStepFlops(lambda shape: flops_beneath(self._twin, shape)[depth])

    def _stamp(self) -> tuple[int, ...]:
        return tuple(p._version for p in self._beneath)

    def _frozen(self) -> int:
        """Blocks under the deepest trained one; 0 where something beneath all blocks is trained."""
        if any(p.requires_grad for p in self._bottom):
            return 0
        trained = [any(p.requires_grad for p in block.parameters()) for block in self._blocks]
        return trained.index(True) if True in trained else len(self._blocks)

    def _beneath_blocks(self) -> list[nn.Parameter]:
        """Parameters outside the blocks, but for those whose modules only run when the last block is done."""
        inside = {id(m) for block in self._blocks for m in block.modules()}
        outside = [m for m in self._model.modules() if id(m) not in inside]
        begun: set[int] = set()
        above: set[int] = set()
        over = False

        def begins(module: nn.Module, args: Any) -> None:
            if over and id(module) not in begun:
                above.add(id(module))
            begun.add(id(module))

        def ends(module: nn.Module, args: Any, output: Any) -> None:
            nonlocal over
            over = True

        hooks = [m.register_forward_pre_hook(begins) for m in outside]
        hooks.append(self._blocks[-1].register_forward_hook(ends))
        try:
            with self._quietly(train=False):
                self._model(**self._rows_to_try(16, 0), use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        return [p for m in outside if id(m) not in above for p in m.parameters(recurse=False)]

    # ---- the trial

    def _try(self, depth: int) -> None:
        """Raises InputError unless states come out the same twice and serving them changes no prediction."""
        was, self.depth = self.depth, depth
        try:
            first = self._record(0, 16, train=True)
            second = self._record(1, 24, train=True)
            if any(self._differ(a, b) for a, b in zip(first, second, strict=True)):
                raise InputError(
                    "train.cache",
                    f"the activations under block {depth} are not the same twice (dropout, or padding that counts)",
                    f"set the model's dropout to 0, {_OFF}",
                )
            with self._quietly(train=False):
                inputs = self._rows_to_try(16, 0)
                computed = self._model(**inputs, use_cache=False).logits
                # whatever a block left lying about is of other rows from here on
                self._model(**{n: t.flip(0) for n, t in inputs.items()}, use_cache=False)
                self._served = torch.zeros(len(_TRIED), 16, first[0].shape[1], dtype=first[0].dtype).to(
                    self._device
                )
                for row, state in zip(self._served, first, strict=True):
                    row[: len(state)] = state
                served = self._run_served(inputs)
            if served is None or any(
                self._differ(computed[i, :n], served[i, :n]) for i, n in enumerate(_TRIED)
            ):
                raise InputError(
                    "train.cache",
                    f"the blocks above {depth} need more of those beneath than their states",
                    _OFF[3:],
                )
        finally:
            self.depth = was
            self._served = self._recorded = self._seen = None

    def _run_served(self, inputs: dict[str, Tensor]) -> Tensor | None:
        try:
            logits: Tensor = self._model(**inputs, use_cache=False).logits
        except Exception:  # whatever a foreign model raises where something that it looks for is not there
            log.debug("served activations were not taken", exc_info=True)
            return None
        return logits

    def _record(self, seed: int, seq: int, *, train: bool) -> list[Tensor]:
        found: list[Tensor] = []
        with self._quietly(train=train, seed=seed):
            hook = self._blocks[self.depth - 1].register_forward_hook(
                lambda module, args, output: setattr(self, "_seen", output)
            )
            try:
                # `_after` forgets what was seen: it is read while the model still runs
                reader = self._model.register_forward_hook(
                    lambda *_: found.extend(self._states()), prepend=True
                )
                self._model(**self._rows_to_try(seq, seed), use_cache=False)
            finally:
                hook.remove()
                reader.remove()
        return [row[:n].clone() for row, n in zip(found, _TRIED, strict=True)]

    def _rows_to_try(self, seq: int, filling: int) -> dict[str, Tensor]:
        vocabulary = self._model.get_input_embeddings().weight.shape[0]
        draw = torch.Generator().manual_seed(0)
        ids = torch.full((len(_TRIED), seq), filling % vocabulary)
        mask = torch.zeros_like(ids)
        for i, n in enumerate(_TRIED):
            ids[i, :n] = torch.randint(vocabulary, (n,), generator=draw)
            mask[i, :n] = 1
        return {"input_ids": ids.to(self._device), "attention_mask": mask.to(self._device)}

    @contextmanager
    def _quietly(self, *, train: bool, seed: int = 0) -> Iterator[None]:
        training, index = self._model.training, self._device.index
        try:
            self._model.train(train)
            with own_random(seed, [] if index is None else [index]), torch.no_grad():
                yield
        finally:
            self._model.train(training)

    def _differ(self, a: Tensor, b: Tensor) -> bool:
        half = a.dtype in (torch.bfloat16, torch.float16) or hasattr(self._model, "_original_forward")
        bound = (COARSE if half else FINE) * float(a.abs().max())
        return not bool((a.float() - b.float()).abs().max() <= bound)

    def _say(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            log.warning(message)


def check_cache(config: Any) -> None:
    """Raises InputError where the config alone tells that activations cannot be kept."""
    if config.is_encoder_decoder:
        raise InputError("train.cache", "needs a decoder-only model", f"take one, {_OFF}")
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
                f"set that to 0 in config.json, {_OFF}",
            )


def flops_beneath(twin: Any, shape: Shape) -> list[float]:
    """Forward FLOPs of the lowest 0, 1, 2, … blocks of a model on the meta device."""
    blocks, at = find_blocks(twin), [0.0]
    with counter() as count, traceable(twin.config._attn_implementation or "eager"):
        hooks = [
            blocks[0].register_forward_pre_hook(lambda *_: at.__setitem__(0, count.get_total_flops())),
            *(block.register_forward_hook(lambda *_: at.append(count.get_total_flops())) for block in blocks),
        ]
        twin(**token_batch(shape.batch, shape.seq, None), use_cache=False)
    for hook in hooks:
        hook.remove()
    return [flops - at[0] for flops in at]


def find_blocks(model: nn.Module) -> list[Any]:
    """The model's stack of blocks: its ModuleList of the most parameters. Raises InputError where there is none."""
    stacks: list[Any] = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) > 1]
    if not stacks:
        raise InputError("train.cache", "finds no stack of blocks in this model", _OFF[3:])
    largest: Any = max(stacks, key=lambda m: sum(p.numel() for p in m.parameters()))
    return list(largest)


def _rows(inputs: Mapping[str, Any]) -> Rows | None:
    """Digest and length of each row; None for a batch that more than its rows' own tokens decides."""
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
