"""Trains adapters of peft, LoRA and prefixes: attaches, saves and loads them, and says what ρ means for them.

The base weights stay frozen and out of the optimizer. ρ is set against full fine-tuning of the *plain* model: T_full is
that of the modules beneath the adapters, while the forward pass that is paid is the one with the adapters in it.
"""

import warnings
from pathlib import Path
from typing import Any, Literal, cast

from torch import nn

from carbonsched.errors import InputError
from carbonsched.model.methods.lora import LoraSettings
from carbonsched.model.methods.prefix import PrefixSettings
from trainer.profiling.meta_model import meta_twin
from trainer.profiling.prefix_cache import pass_as_cache

_TARGETS = (
    ("q_proj", "v_proj"),
    ("q", "v"),
    ("query", "value"),
    ("query_key_value",),
    ("qkv_proj",),
    ("c_attn",),
    ("Wqkv",),
    ("in_proj",),
)
"""Names of the query and value projections by family, or of the one matrix that holds both."""

_NOT_IN_MAMBA = ("out_proj",)
_MAMBAS = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
"""Models whose fused kernels take these matrices past their modules: peft refuses to adapt them there."""


def add_lora(model: Any, settings: LoraSettings) -> Any:
    """`model` with low-rank adapters, the rest frozen. Raises InputError for targets that the model does not have."""
    return _add(model, _lora(model, settings))


def add_prefix(model: Any, settings: PrefixSettings) -> Any:
    """`model` with trained prefixes, the rest frozen. Raises InputError for a model that cannot take them."""
    return _add(model, _prefix(model, settings))


def _add(model: Any, config: Any) -> Any:
    from peft import get_peft_model

    try:
        with warnings.catch_warnings():
            # peft asks models for properties that transformers has renamed
            warnings.simplefilter("ignore", FutureWarning)
            adapted = get_peft_model(model, config)
    except (ValueError, TypeError, AttributeError) as e:
        first = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise InputError(
            "train.method", f"peft cannot adapt {model.config.model_type} ({first})", "use greentrainer"
        ) from e
    pass_as_cache(adapted)
    return adapted


def restore(model: Any, folder: Path) -> Any:
    """`model` with the trained adapters of a checkpoint."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=True)
    pass_as_cache(adapted)
    return adapted


def is_adapted(model: Any) -> bool:
    """Whether peft wraps it."""
    return hasattr(model, "peft_config")


def plain_twin(model: Any) -> Any:
    """`model` without adapters, on the meta device: whose full fine-tuning is ρ = 1."""
    twin = meta_twin(model)
    if not is_adapted(model):
        return twin
    return twin.get_base_model() if twin.active_peft_config.is_prompt_learning else twin.unload()


def save(
    model: Any, folder: Path, state: dict[str, Any] | None = None
) -> Literal["model", "merged", "adapter"]:
    """Save a trained model for others to load; says what `folder` holds. Adapters are merged into `model` where they can.

    model: as trained. merged: a plain model, its adapters' part added to its weights, and the adapters themselves in
    `adapter/`. adapter: prefixes alone, to be loaded by peft (`AutoPeftModel…from_pretrained`) on top of the base model,
    for they are no part of any weight. state: the whole weights where `model` has only a piece of each (FSDP2).
    """
    if not is_adapted(model):
        model.save_pretrained(folder, state_dict=state)
        return "model"
    if model.active_peft_config.is_prompt_learning:
        model.save_pretrained(folder)
        return "adapter"
    model.save_pretrained(folder / "adapter", save_embedding_layers=False)
    model.merge_and_unload().save_pretrained(folder)
    return "merged"


def targets(model: Any) -> tuple[str, ...]:
    """The query and value projections. Raises InputError where none is known."""
    ends = {_end(name) for name in _matrices(model)}
    for found in _TARGETS:
        if ends.issuperset(found):
            return found
    raise InputError(
        "train.lora_targets",
        f"is not set, and {model.config.model_type} has no query and value projections by a known name",
        f"name some of {', '.join(sorted(ends))}",
    )


def all_linear(model: Any) -> tuple[str, ...]:
    """Every linear layer but the output embeddings: ends of names, whole names where an end means one that is left out, too.

    Experts that transformers holds as one tensor are no linear layers, and get no adapters. Raises InputError where none is left.
    """
    head, left_out = model.get_output_embeddings(), set()
    if model.config.model_type in _MAMBAS:
        left_out = {name for name in _matrices(model) if _end(name) in _NOT_IN_MAMBA}
    left_out |= {name for name, module in model.named_modules() if module is head}
    chosen = [name for name in _matrices(model) if name not in left_out]
    if not chosen:
        raise InputError(
            "train.lora_targets", f"{model.config.model_type} has no linear layers", "use greentrainer"
        )
    shared = {_end(name) for name in left_out}
    return tuple(sorted({name if _end(name) in shared else _end(name) for name in chosen}))


def _lora(model: Any, settings: LoraSettings) -> Any:
    from peft import LoraConfig
    from transformers.pytorch_utils import Conv1D

    asked = settings.lora_targets
    if asked is None:
        asked = targets(model)
    chosen = all_linear(model) if isinstance(asked, str) else asked
    matrices = _matrices(model)
    shared = _shared(model)
    for target in chosen:
        if tied := next((n for n in matrices if f".{n}".endswith(f".{target}") and n in shared), None):
            # merged, its part would be added to the embeddings, too: another model than was trained
            problem = f"{tied} shares its weight with the embeddings, adapters on it cannot be merged"
            raise InputError("train.lora_targets", problem, f"leave {target!r} out")
        if not any(f".{name}".endswith(f".{target}") for name in matrices):
            ends = sorted({_end(name) for name in matrices if name not in shared})
            raise InputError(
                "train.lora_targets", f"the model has no {target!r}", f"name some of {', '.join(ends)}"
            )
    adapted = [m for n, m in matrices.items() if any(f".{n}".endswith(f".{t}") for t in chosen)]
    most = max(min(cast(Any, m).weight.shape) for m in adapted)
    if settings.lora_rank > most:
        problem = (
            f"{settings.lora_rank} is more than any of the adapted matrices has: the largest has rank {most}"
        )
        raise InputError("train.lora_rank", problem, f"take {most} or less; 8 to 64 is usual")
    return LoraConfig(
        task_type=_task(model),
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=list(chosen),
        fan_in_fan_out=isinstance(adapted[0], Conv1D),
    )


def _prefix(model: Any, settings: PrefixSettings) -> Any:
    from peft import PrefixTuningConfig

    room = getattr(model.config, "max_position_embeddings", None)
    if room is not None and settings.prefix_tokens >= room:
        problem = f"{settings.prefix_tokens} is no less than the {room} positions that the model has: no row would fit behind it"
        raise InputError("train.prefix_tokens", problem, "20 to 100 is usual")
    return PrefixTuningConfig(task_type=_task(model), num_virtual_tokens=settings.prefix_tokens)


def _task(model: Any) -> str:
    return "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"


def _matrices(model: Any) -> dict[str, nn.Module]:
    from transformers.pytorch_utils import Conv1D

    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D)}


def _shared(model: Any) -> set[str]:
    """Names of matrices whose weight another module holds, too."""
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name.rpartition(".")[0])
    return {name for names in owners.values() if len(names) > 1 for name in names}


def _end(name: str) -> str:
    return name.rpartition(".")[2]
