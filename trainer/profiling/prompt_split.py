"""Runs the rows of a causal model in two parts: their beginning without gradients into the key-value cache, their end with gradients after it.

A prompt's positions never depend on its answer's, so the loss is the same. The gradient leaves out what would flow through the keys and
values of the first part, every tensor at every depth has one, and a step costs about (1 + 2τ)/3 of a full one, τ (`share`) being the share of
the batch's real tokens that gradient flows through: those nearest to the answers first (trainer/profiling/row_ends.py). A labelled token
always has, so the longest answer of a batch sets the least. Rows that begin with a label have no prompt (plain text): their first part is
context, and its labels leave the loss, which is the mean over those that are left.

A token's position is that in the whole row, and so is the length that a rotary scaling goes by. Where the parts of a row hang together by
more than keys and values (recurrent state, attention to later tokens, packed rows), it cannot be cut so. What a config tells is refused
here, the rest is tried on the model: trainer/training/split_trial.py.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from carbonsched.errors import CarbonschedError, InputError
from trainer.profiling.batch_form import forward_names
from trainer.profiling.labelled_head import count_labelled
from trainer.profiling.prefix_cache import NEW, OLD
from trainer.profiling.prompt_cache import PromptCache, odd_layers
from trainer.profiling.row_ends import RowEnds, is_by_token, push_right

_BY_LENGTH = ("dynamic", "longrope")
"""Rotary scalings that depend on the row's length."""
_PACKED = ("cu_seq_lens_q", "seq_idx", "shift_labels")
"""Inputs that come with rows shared by several texts."""


class SplitError(CarbonschedError):
    """The reason why a model's rows cannot run in two parts.

    Example:
        >>> str(SplitError("it keeps more of the past than keys and values"))
        'it keeps more of the past than keys and values'
    """


class PromptSplit:
    """Runs the rows of one model in two parts, in passes with gradients, while attached.

    Example::

        split = PromptSplit(model)  # SplitError: they cannot be cut
        split.share = 0.3
        with split.attached():
            model(input_ids=ids, labels=labels).loss.backward()
    """

    def __init__(self, model: Any, traced: int | None = None) -> None:
        """traced: number of columns with gradient, for a model on the meta device. Raises SplitError."""
        self.model, self._traced = model, traced
        self.base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.cache_name = _cache_name(self.base)
        _check_config(self.base.config)
        self.body = _body(self.base)
        self.share = 1.0
        """The wanted τ; a batch's labels may require more."""
        self._planned: tuple[Any, RowEnds | None] = (None, None)
        """The labels that were inspected last, and the result."""
        self._first_part: dict[str, Any] | None = None
        """For the running pass: what the body has to read without gradients."""
        self._positions: Tensor | None = None
        self._tells_positions = "position_ids" in (forward_names(self.base) or ()) and not any(
            map(_places_by_mask, self.body.modules())
        )
        self._rotary = [m for m in self.body.modules() if _goes_by_length(m)]
        self._hooks: list[Any] = []
        self._blocks: list[nn.Module] = []

    def attach(self) -> None:
        """Attach until `detach`. A LabelledHead sees the labels that this leaves, whichever of the two is attached first."""

        # functions, not methods: a copy of the model (meta_twin) copies what a method belongs to
        def enter(module: Any, args: Any, kwargs: Any) -> Any:
            return self._enter(args, kwargs)

        def fill(module: Any, args: Any, kwargs: Any) -> Any:
            return self._fill(args, kwargs)

        def leave(module: Any, args: Any, result: Any) -> None:
            left, self._first_part = self._first_part, None
            if left is not None and result is not None:
                raise SplitError("its body is not run as a module of its own")

        self._hooks = [
            self.model.register_forward_pre_hook(enter, with_kwargs=True, prepend=True),
            self.body.register_forward_pre_hook(fill, with_kwargs=True),
            self.model.register_forward_hook(leave, always_call=True),
        ]
        # a block that is run again in the backward pass only reads our cache
        self._blocks = [
            m for m in self.model.modules() if getattr(m, "_can_checkpoint_with_cache", None) is False
        ]
        for block in self._blocks:
            block._can_checkpoint_with_cache = True  # type: ignore[assignment]

    def detach(self) -> None:
        """No error if it is not attached."""
        for hook in self._hooks:
            hook.remove()
        for block in self._blocks:
            del block._can_checkpoint_with_cache
        self._hooks, self._blocks, self._planned = [], [], (None, None)

    @contextmanager
    def attached(self) -> Iterator[None]:
        self.attach()
        try:
            yield
        finally:
            self.detach()

    def look(self, batch: Mapping[str, Any]) -> tuple[RowEnds | None, int | None]:
        """How the rows of `batch` end, and how many columns have gradient; None: it is not cut."""
        labels = batch.get("labels")
        if labels is None or self._planned[0] is not labels:
            self._planned = labels, RowEnds.of(batch)
        ends = self._planned[1]
        if ends is None or self.share >= 1:
            return ends, None
        columns = ends.columns(self.share)
        return ends, columns if columns < ends.seq else None

    # ---- one pass

    def _enter(self, args: Any, kwargs: Any) -> Any:
        self._first_part = None
        if args or not torch.is_grad_enabled() or "labels" not in kwargs:
            return None
        columns = self._traced or self.look(kwargs)[1]
        if columns is None:
            return None
        whole = kwargs
        if self._traced is None:
            _check_batch(kwargs)
            whole = push_right(kwargs, positions=self._tells_positions)
        ids, at = whole["input_ids"], whole["input_ids"].shape[1] - columns
        by_token = [n for n, x in whole.items() if is_by_token(x, ids) and n != "attention_mask"]
        self._positions = whole.get("position_ids")
        self._first_part = {n: whole[n][:, :at] for n in by_token if n != "labels"}
        if whole.get("attention_mask") is not None:
            self._first_part["attention_mask"] = whole["attention_mask"][:, :at]
        rest = {**whole, **{n: whole[n][:, at:] for n in by_token}}
        if rest.get("num_items_in_batch") is not None and self._traced is None:
            kept, all_of_them = (count_labelled(x["labels"], shifted=True) for x in (rest, kwargs))
            if kept < all_of_them:  # a first part of text
                rest["num_items_in_batch"] = rest["num_items_in_batch"] * kept / all_of_them
        return args, {**rest, self.cache_name: PromptCache(config=self.base.config), "use_cache": True}

    def _fill(self, args: Any, kwargs: Any) -> Any:
        if self._first_part is None:
            return None
        first, self._first_part = self._first_part, None
        given = dict(zip(forward_names(self.body) or (), args, strict=False)) | kwargs
        cache = given[self.cache_name]
        with torch.no_grad(), self._whole_length():
            self.body(**{**given, **{n: x for n, x in first.items() if n in given}})
        torch.clear_autocast_cache()  # casts made without a graph would hide the weights from autograd
        cache.close()
        return (), given

    @contextmanager
    def _whole_length(self) -> Iterator[None]:
        """A context in which rotary scalings that depend on a row's length see the whole row's length."""
        positions, hooks = self._positions, []

        def enter(module: Any, args: Any, kwargs: Any) -> Any:
            if len(args) > 1:
                return (args[0], positions, *args[2:]), kwargs
            return args, {**kwargs, "position_ids": positions}

        def leave(module: Any, args: Any, kwargs: Any, result: Any) -> Any:
            return tuple(x[:, : args[0].shape[1]] for x in result)

        for module in self._rotary if positions is not None else ():
            hooks.append(module.register_forward_pre_hook(enter, with_kwargs=True))
            hooks.append(module.register_forward_hook(leave, with_kwargs=True))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def traced_split(twin: Any, gradient: int | None) -> AbstractContextManager[None]:
    """A context in which this many columns of a batch of `twin`, a model on the meta device, have gradient; None: all. Raises InputError if
    it cannot be cut."""
    if gradient is None:
        return nullcontext()
    try:
        return PromptSplit(twin, gradient).attached()
    except SplitError as e:
        raise InputError(
            "gradient_share", f"rows cannot run in two parts: {e}", "leave it out for this model"
        ) from e


def _cache_name(base: Any) -> str:
    names = forward_names(base) or ()
    if getattr(base.config, "is_encoder_decoder", False):
        raise SplitError("it is an encoder-decoder: what it reads is read in both directions")
    for name in (NEW, OLD):
        if name in names:
            return name
    raise SplitError("it takes no key-value cache")


def _check_config(config: Any) -> None:
    text = config.get_text_config(decoder=True)
    if not getattr(text, "is_causal", True) or getattr(text, "use_bidirectional_attention", None):
        raise SplitError("its tokens attend to later ones")
    odd = odd_layers(config)
    if odd:
        raise SplitError(f"it keeps more of the past than keys and values ({', '.join(odd)})")


def _body(base: Any) -> nn.Module:
    body = base.get_decoder() if hasattr(base, "get_decoder") else getattr(base, "base_model", None)
    if not isinstance(body, nn.Module) or body is base:
        raise SplitError("it has no body apart from its output embeddings")
    return body


def _goes_by_length(module: Any) -> bool:
    kind = getattr(module, "rope_type", None)
    kinds = kind.values() if isinstance(kind, Mapping) else [kind]
    return any(isinstance(k, str) and any(word in k for word in _BY_LENGTH) for k in kinds)


def _places_by_mask(module: Any) -> bool:
    """Whether it embeds positions that it computes from the attention mask (OPT)."""
    return isinstance(module, nn.Embedding) and "attention_mask" in (forward_names(module) or ())


def _check_batch(batch: Mapping[str, Any]) -> None:
    """Raise SplitError for rows shared by several texts, and for the caller's own attention."""
    ids, mask, positions = batch["input_ids"], batch.get("attention_mask"), batch.get("position_ids")
    if any(batch.get(name) is not None for name in _PACKED):
        raise SplitError("its rows are packed")
    if mask is not None and mask.shape != ids.shape:
        raise SplitError("its attention mask is not one of tokens")
    if positions is None:
        return
    if positions.ndim != 2:
        raise SplitError("its positions are of several kinds")
    steps = positions.expand(ids.shape).diff(dim=1)
    if mask is not None:
        steps = torch.where(mask[:, 1:].bool() & mask[:, :-1].bool(), steps, 1)
    if not bool((steps == 1).all()):
        raise SplitError("its rows are packed: positions begin anew within them")
