"""Runs a model's output embeddings on the labelled tokens alone, in a step and in the trace of one.

Only a labelled token's logits are in the loss, yet every model multiplies each token, prompt and padding too, by the whole
vocabulary. While it is attached, the hidden states that enter the output embeddings are cut down to the tokens whose logits
the loss takes, as one row `[1, labelled, width]`, and the labels likewise. All that stands behind them works on logits one by one
(scale, soft caps, bias, cross-entropy), and nothing before them is touched, experts' statistics among it, so loss and gradients are those of
the model itself. Whether that holds is tried on the model (trainer/training/head_trial.py), not read off a list of architectures.

A causal model's labels are shifted by its own loss function, which is told so (`shift_labels`); where there is a gradient the same loss is taken by chunks
(trainer/profiling/chunked_loss.py). An encoder-decoder makes what its decoder
reads from its labels, and gets both.
"""

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional

from carbonsched.errors import CarbonschedError, InputError
from trainer.profiling.chunked_loss import causal_loss

IGNORED = -100
"""The label of tokens that are not in the loss."""


class HeadError(CarbonschedError):
    """Why a model's output embeddings cannot run on labelled tokens alone.

    Example:
        >>> str(HeadError("it has no output embeddings"))
        'it has no output embeddings'
    """


def counts_labels(labels: Any) -> TypeGuard[Tensor]:
    """Whether `labels` has one per token."""
    return isinstance(labels, Tensor) and labels.ndim == 2 and not labels.is_floating_point()


def targets_of(labels: Tensor, *, shifted: bool) -> Tensor:
    """The target of each token's logits. shifted: for a causal model, whose token predicts the next one."""
    return functional.pad(labels[:, 1:], (0, 1), value=IGNORED) if shifted else labels


def count_labelled(labels: Tensor, *, shifted: bool) -> int:
    """Tokens whose logits are in the loss.

    Example:
        >>> count_labelled(torch.tensor([[5, -100, 6, 7]]), shifted=True)
        2
    """
    return int((targets_of(labels, shifted=shifted) != IGNORED).sum())


class LabelledHead:
    """Runs the output embeddings of one model on labelled tokens alone while attached.

    Example::

        head = LabelledHead(model)  # HeadError: not built so
        with head.attached():
            model(input_ids=ids, labels=labels).loss.backward()
    """

    def __init__(self, model: Any, traced: int | None = None) -> None:
        """traced: the number of labelled tokens in a batch, for a model on the meta device. Raises HeadError."""
        self.model, self._traced = model, traced
        self.base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.head = _output_embeddings(self.base)
        self.shifted = not getattr(self.base.config, "is_encoder_decoder", False)
        _check_loss(self.base, shifted=self.shifted)
        self.without_gradient = False
        """Whether it works in passes without gradient too; readers of their logits have to know."""
        self.expected: Tensor | None = None
        """Labels of the coming batch if the model itself does not get them (label smoothing)."""
        self.targets: Tensor | None = None
        """The targets of the last pass's logits, [1, labelled]; None: the logits are those of all tokens."""
        self._hooks: list[Any] = []
        self._rows: Tensor | None = None
        """For the running pass: the tokens to take, with all rows joined; None: not joined, or already taken."""
        self._shape: tuple[int, ...] = ()
        self._coming: Tensor | None = None
        self._own_loss: Any = None

    def attach(self) -> None:
        """Attach until `detach`."""

        # functions, not methods: a copy of the model (meta_twin) copies what a method belongs to
        def enter(module: Any, args: Any, kwargs: Any) -> Any:
            return self._enter(args, kwargs)

        def take(module: Any, args: Any) -> Any:
            return self._take(args)

        def leave(module: Any, args: Any, result: Any) -> None:
            self._leave()

        self._hooks = [
            self.model.register_forward_pre_hook(enter, with_kwargs=True),
            self.head.register_forward_pre_hook(take),
            self.model.register_forward_hook(leave, always_call=True),
        ]

    def detach(self) -> None:
        """No error if it is not attached."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self.expected = self.targets = None

    @contextmanager
    def attached(self, *, without_gradient: bool = False) -> Iterator[None]:
        """A context in which it is attached, in passes without gradient too if asked for."""
        self.attach()
        self.without_gradient = without_gradient
        try:
            yield
        finally:
            self.without_gradient = False
            self.detach()

    # ---- one pass

    def _enter(self, args: Any, kwargs: Any) -> Any:
        self.targets = self._rows = self._coming = None
        if not (torch.is_grad_enabled() or self.without_gradient):
            return None
        labels = kwargs.get("labels", self.expected)
        if labels is None:
            labels = self.expected
        if not counts_labels(labels) or kwargs.get("shift_labels") is not None:
            return None
        if self._traced is None:
            targets = targets_of(labels, shifted=self.shifted).reshape(-1)
            self._rows = (targets != IGNORED).nonzero().squeeze(1)
            self._coming = targets[self._rows][None]
        else:
            self._rows = torch.zeros(self._traced, dtype=torch.long, device=labels.device)
            self._coming = self._rows[None]
        self._shape = tuple(labels.shape)
        if self.shifted:
            self._wrap_loss()
            return None
        if kwargs.get("labels") is None:
            return None
        more = {"labels": self._coming}
        if all(kwargs.get(name) is None for name in ("decoder_input_ids", "decoder_inputs_embeds")):
            more["decoder_input_ids"] = self.base.prepare_decoder_input_ids_from_labels(labels=labels)
        return args, {**kwargs, **more}

    def _wrap_loss(self) -> None:
        """For this pass the model's loss function gets labels that are already shifted and cut."""
        own = self.base.loss_function

        @functools.wraps(own)
        def loss(*args: Any, **kwargs: Any) -> Any:
            targets = self.targets
            if targets is None:
                return own(*args, **kwargs)
            logits: Tensor = kwargs["logits"] if "logits" in kwargs else args[0]
            plain = kwargs.get("ignore_index", IGNORED) == IGNORED and targets.numel()
            if plain and self._traced is None and logits.requires_grad:
                return causal_loss(logits.flatten(0, 1), targets[0], kwargs.get("num_items_in_batch"))
            return own(*args, **kwargs | {"shift_labels": targets})

        self._own_loss = vars(self.base).get("_loss_function")
        self.base._loss_function = loss

    def _take(self, args: Any) -> Any:
        if self.targets is not None:
            raise HeadError("its output embeddings run more than once in a pass")
        if self._rows is None or not args or tuple(args[0].shape[:2]) != self._shape:
            return None
        states, rows = args[0], self._rows
        self._rows, self.targets = None, self._coming
        return states.flatten(0, 1).index_select(0, rows)[None], *args[1:]

    def _leave(self) -> None:
        self._rows = self._coming = None
        if "_loss_function" in vars(self.base) and self.shifted:
            if self._own_loss is None:
                del self.base._loss_function
            else:
                self.base._loss_function = self._own_loss
        self._own_loss = None


def traced_head(twin: Any, labelled: int | None) -> AbstractContextManager[None]:
    """A context in which the output embeddings of `twin`, a model on the meta device, run on this many tokens of a batch; None: on all.
    Raises InputError if they cannot."""
    if labelled is None:
        return nullcontext()
    try:
        return LabelledHead(twin, labelled).attached()
    except HeadError as e:
        raise InputError(
            "labelled", f"the output embeddings run on every token: {e}", "leave it out for this model"
        ) from e


def _output_embeddings(base: Any) -> nn.Module:
    try:
        head = base.get_output_embeddings()
    except (AttributeError, NotImplementedError):
        head = None
    if not isinstance(head, nn.Module) or isinstance(head, nn.Embedding):
        raise HeadError("it has no output embeddings of its own")
    return head


def _check_loss(base: Any, *, shifted: bool) -> None:
    from transformers.loss.loss_utils import ForCausalLMLoss

    if not shifted and not hasattr(base, "prepare_decoder_input_ids_from_labels"):
        raise HeadError("what its decoder reads is not made from its labels alone")
    if shifted and getattr(base, "loss_function", None) is not ForCausalLMLoss:
        raise HeadError("its loss is not the usual one of causal models")
