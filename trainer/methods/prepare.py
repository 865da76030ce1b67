"""Sets a model up before its first step, for a run and for a check: its method over its profile, and T_full of any batch shape."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch

from carbonsched.errors import InputError
from carbonsched.model.methods.lora import LoraSettings
from carbonsched.model.methods.traits import METHODS, MethodTraits
from carbonsched.model.profile import Profile
from trainer.methods.adapters import add_lora, is_adapted, plain_twin
from trainer.methods.auto import Auto
from trainer.methods.method import Method
from trainer.methods.registry import build_method, method_row
from trainer.methods.tokens import Tokens
from trainer.profiling.batch_form import BatchForm
from trainer.profiling.flop_counter import FullStepFlops, Shape
from trainer.profiling.meta_model import has_attention_dropout, meta_twin
from trainer.profiling.profiler import profile, run_forward, token_batch
from trainer.profiling.prompt_cache import windows
from trainer.profiling.prompt_split import PromptSplit, SplitError
from trainer.profiling.shaped_costs import ShapedCosts
from trainer.profiling.uncounted import check_recurrent
from trainer.selection.cost_model import CostModel


@dataclass(frozen=True, slots=True)
class Prepared:
    """A method set up for its model, and the cost of full fine-tuning of that model.

    Example::

        prepared = prepare(model, "greentrainer", shape)
        frontier = prepared.method.curve(values)
    """

    method: Method
    full: FullStepFlops
    """T_full of the model without adapters."""
    left: int
    """Tensors that stay frozen because the optimizer does not hold them; for a model without adapters."""
    own_ratio: float
    """Cost ÷ T_full of a step that trains all the optimizer holds, as it would without carbonsched."""
    costs: ShapedCosts
    """Costs of selections at other shapes than the profile's."""


def prepare(
    model: Any,
    name: str,
    shape: Shape,
    seed: int = 0,
    *,
    held: Collection[str] | None = None,
    importance: str = "reach",
    skip_earliest: float = 0.0,
    attn: str | None = None,
    model_name: str | None = None,
    form: BatchForm | None = None,
    gradient_share: float | None = None,
    offers_tokens: bool = False,
    lora: LoraSettings | None = None,
) -> Prepared:
    """The method `name` for `model` (loaded anywhere, or from `meta_model`) at batches of `shape`; with `shape.labelled` its output
    embeddings run on labelled tokens alone.

    held: names of the tensors that the optimizer holds; None: of all that require a gradient. skip_earliest: share of the
    depth, from the bottom, that is left out. attn, model_name and form as for
    `profile`; gradient_share: τ of method tokens, None: ρ decides. offers_tokens: a method that changes its
    setting may run rows in two parts, too; lora: it may put these adapters on before its first step. Raises InputError for a method that does not fit the model, or a shape that the model cannot take.
    """
    traits, adapted = _check_adapters(model, name), is_adapted(model)
    check_recurrent(model)
    trace = _Trace(model, plain_twin(model), _attention(model, attn, shape, form), model_name, form)
    costs = ShapedCosts()
    measured = trace(shape)
    without, per_label = measured, None
    if shape.labelled:
        without = trace(shape._replace(labelled=0))
        per_label = (measured.full_flops - without.full_flops) / shape.labelled
        costs.note_labelled(shape.labelled, measured, without)
    full = FullStepFlops(lambda other: costs.note(other, trace(other)).full_flops, per_label)
    if traits.splits_rows or offers_tokens:
        costs.note_split(trace, check_split(model, name))
    full.learn(shape, costs.note(shape, without).full_flops)
    if held is None:
        held = [n for n, p in model.named_parameters() if p.requires_grad]
    among = frozenset(held) & {t.name for t in measured.tensors}
    left = 0 if adapted else len(measured.tensors) - len(among)
    own = CostModel.of(measured).flops(among) / measured.full_flops if among else 0.0
    if skip_earliest:
        if not traits.selects:
            raise InputError("train.skip_earliest", f"method {name!r} chooses no tensors", "leave it out")
        among = _upper(measured, among, skip_earliest)
    method = build_method(name, measured, seed, among, importance)
    method.inspect(model, shape, trace.attn)
    if isinstance(method, Tokens):
        method.fixed_share = gradient_share
    if isinstance(method, Auto) and offers_tokens:
        method.tokens = Tokens("tokens", METHODS["tokens"], measured, seed, among)
    if isinstance(method, Auto) and lora is not None and not adapted:
        try:
            method.adapters = _adapters_ratio(trace, shape, lora, measured)
        except InputError as e:
            method.without_adapters = str(e)
    return Prepared(method, full, left, own, costs)


@dataclass(frozen=True, slots=True)
class _Trace:
    """Profiles of a model at any batch shape, with the T_full of the model without adapters."""

    model: Any
    plain: Any
    """The model without adapters: the model itself, or a twin on the meta device."""
    attn: str | None
    model_name: str | None
    form: BatchForm | None

    def __call__(self, at: Shape) -> Profile:
        if at.gradient is not None:  # T_full counts whole rows
            return self.of(self.model, at, gradient=at.gradient)
        measured = self.of(self.plain, at)
        if is_adapted(self.model):
            whole = measured.full_flops
            measured = self.of(self.model, at).model_copy(update={"full_flops": whole})
        return measured

    def of(self, model: Any, at: Shape, gradient: int | None = None) -> Profile:
        labelled = None if at.labelled is None else at.labelled // at.batch
        return profile(
            model,
            *at[:3],
            attn=self.attn,
            name=self.model_name,
            form=self.form,
            labelled=labelled,
            gradient=gradient,
        )


def _check_adapters(model: Any, name: str) -> MethodTraits:
    """The traits of the method. Raises InputError if the model has adapters and should not, or the reverse."""
    traits, adapted = method_row(name).traits, is_adapted(model)
    if traits.trains_adapters and not adapted:
        raise InputError("model", f"has no adapters for method {name!r}", "wrap it by peft.get_peft_model")
    if traits.skips_gradients and adapted:
        raise InputError("train.method", f"{name!r} trains the model itself", "take the adapters off")
    return traits


def _adapters_ratio(trace: _Trace, shape: Shape, lora: LoraSettings, measured: Profile) -> float:
    """Cost ÷ T_full of a step that trains adapters. Raises InputError if the model takes none."""
    adapted = add_lora(meta_twin(trace.plain), lora)
    found = trace.of(adapted, shape)
    names = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    return CostModel.of(found).flops(names & {t.name for t in found.tensors}) / measured.full_flops


def check_split(model: Any, name: str) -> tuple[int, ...]:
    """Widths of the sliding windows of a model whose rows can run in two parts. Raises InputError for any other model."""
    try:
        return windows(PromptSplit(model).base.config)
    except SplitError as e:
        raise cannot_split(name, e) from e


def cannot_split(name: str, why: Exception) -> InputError:
    return InputError(
        "train.method",
        f"{name!r} cannot run the rows of this model in two parts: {why}",
        "use greentrainer, which chooses among tensors",
    )


def _attention(model: Any, attn: str | None, shape: Shape, form: BatchForm | None) -> str | None:
    """By which attention a step is counted: `sdpa` with dropout torch takes apart on a CPU, into what `eager` does.

    (So it does, without dropout, where the mask needs a gradient, T5's while its position bias is trained. That depends
    on the selection, and is planned as fused: ρ comes out below the plan.)
    """
    attn = attn or getattr(getattr(model, "config", None), "_attn_implementation", None)
    device = next(model.parameters()).device.type
    on_cpu = device == "cpu" or (device == "meta" and not torch.cuda.is_available())
    inputs = token_batch(1, 8, None) if form is None else form.build(1, shape.seq, shape.target_seq)
    apart = attn == "sdpa" and on_cpu and has_attention_dropout(model, inputs, run_forward)
    return "eager" if apart else attn


def _upper(profile: Profile, among: frozenset[str], share: float) -> frozenset[str]:
    """All tensors but those in the last `share` of the activation gradient's way from the shallowest to the deepest one."""
    depths = {t.name: t.depth_flops for t in profile.tensors if t.name in among}
    shallow, deep = min(depths.values()), max(depths.values())
    deepest = deep - share * (deep - shallow)
    return frozenset(name for name, depth in depths.items() if depth <= deepest)
