"""Prefixes of peft on transformers since 5.24, which calls `cache` what peft up to 0.21 calls `past_key_values`.

Where peft passes the old name, transformers warns at every call, and when it generates it takes its own empty cache and
drops the prefix without an error. A model that keeps the old name, or a peft that knows the new one, is left as it is.
"""

import inspect
from functools import partial
from typing import Any

OLD, NEW = "past_key_values", "cache"


def pass_as_cache(model: Any) -> None:
    """Have the prefixes of `model` reach the model beneath as its `cache`. Does nothing for other models, or twice."""
    config = getattr(model, "active_peft_config", None)
    if config is None or not config.is_prompt_learning:
        return
    base = model.base_model
    if NEW not in inspect.signature(base.forward).parameters:
        return
    if _renamed not in base._forward_pre_hooks.values():
        base.register_forward_pre_hook(_renamed, with_kwargs=True)
    prepare = model.base_model_prepare_inputs_for_generation
    if not isinstance(prepare, partial):
        # a partial, unlike a closure, is copied along with the model that it calls
        model.base_model_prepare_inputs_for_generation = partial(_under_both_names, prepare)


def _under_both_names(prepare: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """peft looks in these inputs for the cache, and puts its prefix there while the cache is empty."""
    inputs: dict[str, Any] = prepare(*args, **kwargs)
    if NEW in inputs:
        inputs[OLD] = inputs[NEW]
    return inputs


def _renamed(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
    if OLD not in kwargs:
        return None
    old, new = kwargs.pop(OLD), kwargs.get(NEW)
    # of two caches the filled one holds the prefix, whichever name peft put it under
    if new is None or not new.get_seq_length():
        kwargs[NEW] = old
    return args, kwargs
