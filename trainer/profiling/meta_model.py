"""Builds models on torch's meta device: every shape and every autograd node of the real thing, no weights, no memory.

A FLOPs profile needs only what a model computes, not what it knows. `meta_model` builds one from config.json alone;
`meta_twin` mirrors a model that is already loaded (ties and adapters included) without copying a weight.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from carbonsched.errors import InputError
from trainer import hub_reach
from trainer.job.random_state import own_random
from trainer.profiling.prefix_cache import pass_as_cache
from trainer.profiling.recurrent_flops import FusedRecurrence

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ATTENTION = ("eager", "sdpa")


def meta_model(name_or_path: str | Path, attn: str = "eager", dtype: str = "fp32") -> Any:
    """The model that `name_or_path` names, on the meta device, in eval mode (no dropout, no layer drop).

    A local folder needs only its config.json; anything else is taken for a hub id. Encoder-decoders get their
    sequence-to-sequence head, all others the causal one. Raises InputError where there is no such model.
    """
    from transformers import AutoConfig

    check_choice("attn", attn, ATTENTION)
    check_choice("dtype", dtype, tuple(DTYPES))
    folder = Path(name_or_path).expanduser()
    if folder.exists() and not (folder / "config.json").is_file():
        raise InputError("model", f"{name_or_path} holds no config.json", "give the folder of a saved model")
    if not folder.exists() and (str(name_or_path)[:1] in "/.~" or str(name_or_path).count("/") > 1):
        raise InputError("model", f"there is no folder {folder}", "give a saved model or a hub id")
    hub_reach.prepare(str(name_or_path))
    try:
        config = AutoConfig.from_pretrained(
            str(folder if folder.exists() else name_or_path), trust_remote_code=False
        )
        return meta_from_config(config, attn, dtype)
    except (OSError, ValueError, KeyError, ImportError) as e:
        first = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise hub_reach.refusal("model", str(name_or_path), "a model") or InputError(
            "model",
            f"{name_or_path} cannot be read ({first})",
            "give a folder with a config.json that transformers knows, or a hub id that this box can reach",
        ) from e


def meta_from_config(config: Any, attn: str = "eager", dtype: str = "fp32") -> Any:
    """The model of a transformers `config`, on the meta device, in eval mode. Raises ValueError for what has no such head."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    factory = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.device("meta"):
        model = factory.from_config(
            config, dtype=DTYPES[dtype], attn_implementation=attn, trust_remote_code=False
        )
    return _for_tracing(model)


def meta_twin(model: nn.Module, attn: str | None = None) -> Any:
    """The same modules as `model` with every tensor on the meta device; `model` stays untouched.

    Nothing of a weight's size is copied, ties stay ties. Call it before accelerate or torch.compile wraps the model.
    """
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"))
    for buffer in model.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    # what hangs on the original (a Trainer's hooks, accelerate's wrapped forward) must not run in the twin, nor be copied: a hook may hold a
    # whole training, DDP's wrapper within
    for module in model.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            memo[id(hooks)] = type(hooks)()
    twin: Any = copy.deepcopy(model, memo)
    for module in twin.modules():
        module.__dict__.pop("forward", None)
    pass_as_cache(twin)  # its hook is the one that belongs to the model
    if attn is not None and hasattr(twin, "set_attn_implementation"):
        check_choice("attn", attn, ATTENTION)
        twin.set_attn_implementation(attn)
    return _for_tracing(twin)


def check_choice(field: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise InputError(field, f"is {given!r}", f"known here: {', '.join(known)}")


def _for_tracing(model: Any) -> Any:
    # experts that are chosen token by token: only this form has shapes that do not depend on the data
    if getattr(model, "_can_set_experts_implementation", lambda: False)():
        model.set_experts_implementation("batched_mm")
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        # which tokens these are does not matter here, that there are any does
        for token in ("decoder_start_token_id", "pad_token_id"):
            if getattr(model.config, token, None) is None:
                setattr(model.config, token, 0)
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return model.eval()


@contextmanager
def traceable(attn: str) -> Iterator[None]:
    """Within it a forward pass on meta tensors goes the way it goes on a GPU with a padded batch.

    With `sdpa`, attention is one fused operator: on meta tensors torch would take it apart, or refuse a mask.
    """
    with ExitStack() as stack:
        stack.enter_context(_Answers())  # type: ignore[no-untyped-call]
        stack.enter_context(FusedRecurrence())
        if attn == "sdpa":
            stack.enter_context(_FusedAttention())
        yield


class _Answers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Answers what models ask of data that is not there: "is every token real?", "is it all zero?" - no."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].dtype == torch.bool:
            return False
        return func(*args, **(kwargs or {}))


def has_attention_dropout(
    model: nn.Module, inputs: dict[str, torch.Tensor], run: Callable[[Any, dict[str, torch.Tensor]], Any]
) -> bool:
    """Whether attention of `model` under `sdpa` asks for dropout while it is trained.

    inputs: a batch on the meta device; run: its forward pass.
    """
    twin, asked = meta_twin(model, "sdpa").train(), _FusedAttention()
    with own_random(0), torch.no_grad(), _Answers(), asked:  # type: ignore[no-untyped-call]
        run(twin, inputs)
    return asked.dropout > 0


class _FusedAttention(TorchFunctionMode):
    dropout = 0.0
    """The highest rate that was asked for; none is applied."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not nn.functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        self.dropout = max(self.dropout, kwargs.get("dropout_p", args[4] if len(args) > 4 else 0.0))
        return _fused(*args, **kwargs)


def _fused(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    groups = query.shape[-3] // key.shape[-3] if enable_gqa else 1
    if groups > 1:
        key, value = (x.repeat_interleave(groups, dim=-3) for x in (key, value))
    if attn_mask is not None:
        attn_mask = attn_mask.to(query.dtype).expand(*query.shape[:-1], key.shape[-2])
    attend = torch.ops.aten._scaled_dot_product_efficient_attention
    out: torch.Tensor = attend(
        query, key, value, attn_mask, compute_log_sumexp=True, dropout_p=0.0, is_causal=is_causal, scale=scale
    )[0]
    return out
