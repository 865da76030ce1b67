"""METHODS lists the methods, one row each: what a method can and cannot, without a line of torch.

JobSpec refuses by these rows what does not go together; the trainer asks them instead of testing names. A site's own
method is a plugin (entry point group `carbonsched.methods`): of it the daemon knows the name alone, and the trainer, which
imports it, applies the plugin's own row.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from carbonsched import plugins


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodTraits:
    """One row of the table of methods.

    Example:
        >>> METHODS["lora"].trains_adapters, METHODS["lora"].selects
        (True, False)
        >>> MethodTraits(constant_rho=True).measures
        'never'
    """

    constant_rho: bool = False
    """It trains at one ρ of its own, whatever is asked: under a budget it can only wait or stop."""
    selects: bool = False
    """It chooses among tensors, so that `skip_earliest` can leave some out."""
    measures: Literal["never", "once", "each segment"] = "never"
    """When importance batches run: never, before the first segment, or before each one."""
    switches: bool = False
    """It changes between settings from segment to segment: which, the planner says."""
    trains_adapters: bool = False
    """It trains adapters (peft) on a frozen model; checkpoints hold the adapters alone."""
    skips_gradients: bool = False
    """A step leaves some of the trained tensors without a gradient: DDP has to look for them."""
    splits_rows: bool = False
    """It runs the first part of a row without gradients: ρ, or `gradient_share`, says how much of it."""
    fp16: bool = False
    """It goes with weights in fp16. Only adapters do: they are kept in fp32."""
    gradient_checkpointing: bool = True
    compile: bool = True
    """It goes with torch.compile."""
    fsdp2: bool = True
    """It goes with parameters sharded over processes; DDP goes with every method."""
    reasons: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Key of `[train]` that it does not go with → (why, what to do); shown in place of a general sentence."""


METHODS: Mapping[str, MethodTraits] = MappingProxyType(
    {
        "full": MethodTraits(constant_rho=True),
        "ft-top2": MethodTraits(constant_rho=True),
        "lora": MethodTraits(constant_rho=True, trains_adapters=True, fp16=True, fsdp2=False),
        "prefix": MethodTraits(
            constant_rho=True,
            trains_adapters=True,
            fp16=True,
            fsdp2=False,
            gradient_checkpointing=False,
            reasons={
                "gradient_checkpointing": (
                    "a prefix travels in the cache, which checkpointing switches off",
                    "set it to false, or use method lora",
                )
            },
        ),
        "dropbp": MethodTraits(
            skips_gradients=True,
            compile=False,
            reasons={
                "compile": (
                    "each step drops other branches: every one would be compiled",
                    "set it to false",
                )
            },
        ),
        "tokens": MethodTraits(
            splits_rows=True,
            compile=False,
            reasons={
                "compile": ("each batch is cut elsewhere: every one would be compiled", "set it to false")
            },
        ),
        "greentrainer": MethodTraits(selects=True, measures="each segment"),
        "greentrainer+lora": MethodTraits(
            selects=True, measures="each segment", trains_adapters=True, fp16=True, fsdp2=False
        ),
        "fixed": MethodTraits(selects=True, measures="once"),
        "random": MethodTraits(selects=True),
        "auto": MethodTraits(selects=True, switches=True),
    }
)
"""Every built-in method. This is the only list of their names."""


def method_names() -> tuple[str, ...]:
    """The names that `train.method` may have: built in, then those of installed plugins. Imports no plugin."""
    return (*METHODS, *plugins.names(plugins.METHODS, METHODS))
