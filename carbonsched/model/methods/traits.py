"""METHODS lists the methods, one row each: what a method can and cannot, without a line of torch.

JobSpec refuses by these rows what does not go together; the trainer asks them instead of testing names. A site's own
method is a plugin (entry point group `carbonsched.methods`): of it the daemon knows the name alone, and the trainer, which
imports it, applies the plugin's own row.
"""

import difflib
import re
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
    """It trains at one fixed ρ, whatever is directed: under a budget it can only wait or stop."""
    selects: bool = False
    """It chooses among tensors, so that `skip_earliest` can exclude some."""
    measures: Literal["never", "once", "each segment"] = "never"
    """When importance batches run: never, before the first segment, or before each one."""
    switches: bool = False
    """It changes between settings from segment to segment, as the planner decides."""
    trains_adapters: bool = False
    """It trains adapters (peft) on a frozen model; checkpoints hold the adapters alone."""
    skips_gradients: bool = False
    """A step leaves some of the trained tensors without a gradient: DDP has to look for them."""
    splits_rows: bool = False
    """It runs the first part of a row without gradients: ρ, or `gradient_share`, says how much of it."""
    fp16: bool = False
    """It supports fp16 weights. Only adapters do: they are kept in fp32."""
    gradient_checkpointing: bool = True
    compile: bool = True
    """It supports torch.compile."""
    fsdp2: bool = True
    """It supports parameters sharded over processes; every method supports DDP."""
    lr_multiplier: float = 1.0
    """Its best learning rate ÷ full fine-tuning's on the same model, measured with AdamW (docs/results.md); 1 where nothing was measured."""
    lr_measured_to: float | None = None
    """The greatest ρ (of `tokens`: gradient share) that it was measured at: from there on it approaches 1. None: it holds at every one."""
    reasons: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Key of `[train]` that it excludes → (why, what to do); shown instead of a general sentence."""

    def lr_factor(self, at: float) -> float:
        """`lr_multiplier` at this ρ or gradient share; where all is trained it is full fine-tuning, at full's rate.

        Example:
            >>> METHODS["greentrainer"].lr_factor(0.5), METHODS["greentrainer"].lr_factor(0.8), METHODS["greentrainer"].lr_factor(1.0)
            (4.0, 2.0, 1.0)
        """
        if self.lr_measured_to is None or at <= self.lr_measured_to:
            return self.lr_multiplier
        left = max(1.0 - at, 0.0) / (1.0 - self.lr_measured_to)
        return float(self.lr_multiplier ** round(left, 12))


_CUT = {"compile": ("each batch is cut elsewhere: every one would be compiled", "set it to false")}
"""Of methods that cut rows in two parts."""
METHODS: Mapping[str, MethodTraits] = MappingProxyType(
    {
        "full": MethodTraits(constant_rho=True),
        "ft-top2": MethodTraits(constant_rho=True),
        "lora": MethodTraits(
            constant_rho=True, trains_adapters=True, fp16=True, fsdp2=False, lr_multiplier=16.0
        ),
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
            lr_multiplier=2.0,
            lr_measured_to=0.5,
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
            lr_multiplier=0.6,
            lr_measured_to=0.25,
            reasons=_CUT,
        ),
        "greentrainer": MethodTraits(
            selects=True, measures="each segment", lr_multiplier=4.0, lr_measured_to=0.6
        ),
        "greentrainer+lora": MethodTraits(
            # the rate is lora's: its own was not measured
            selects=True,
            measures="each segment",
            trains_adapters=True,
            fp16=True,
            fsdp2=False,
            lr_multiplier=16.0,
        ),
        "greentrainer+tokens": MethodTraits(
            # the rate is that of tokens: what both together want was not measured
            selects=True,
            measures="each segment",
            splits_rows=True,
            compile=False,
            lr_multiplier=0.6,
            lr_measured_to=0.25,
            reasons=_CUT,
        ),
        "lora+tokens": MethodTraits(
            # the rate is lora's: its own was not measured
            splits_rows=True,
            trains_adapters=True,
            fp16=True,
            compile=False,
            fsdp2=False,
            lr_multiplier=16.0,
            reasons=_CUT,
        ),
        # as greentrainer's, by which it chooses
        "fixed": MethodTraits(selects=True, measures="once", lr_multiplier=4.0, lr_measured_to=0.6),
        "random": MethodTraits(selects=True, lr_multiplier=4.0, lr_measured_to=0.6),
        # as greentrainer does where no directive names a setting
        "auto": MethodTraits(selects=True, switches=True, lr_multiplier=4.0, lr_measured_to=0.6),
    }
)
"""Every built-in method. This is the only list of their names."""


_ALIASES: Mapping[str, str] = {
    "qlora": "lora",
    "peft": "lora",
    "green-trainer": "greentrainer",
    "tensors": "greentrainer",
    "token": "tokens",
    "full-fine-tuning": "full",
    "full-finetuning": "full",
    "finetuning": "full",
    "fine-tuning": "full",
    "ft": "full",
    "prefix-tuning": "prefix",
}
"""What people call the parts of a method's name elsewhere."""


def parts_of(name: str) -> tuple[str, ...]:
    """The parts of a method's name, whatever their order, case and sign between them: by these a name that does not exist is found.

    Example:
        >>> parts_of("Tokens + LoRA"), parts_of("greentrainer-tokens"), parts_of("ft-top2")
        (('lora', 'tokens'), ('greentrainer', 'tokens'), ('ft-top2',))
    """
    plain = re.sub(r"[\s_]+", "-", name.strip().lower())
    plain = re.sub(r"-*[+,&/]-*", "+", plain)
    if plain not in METHODS and plain not in _ALIASES and "+" not in plain:
        joined = plain.replace("green-trainer", "greentrainer").split("-")
        if all(part in METHODS or part in _ALIASES for part in joined):
            plain = "+".join(joined)
    found = (part.strip("-") for part in plain.split("+"))
    return tuple(sorted({_ALIASES.get(part, part) for part in found if part}))


def unknown_method(name: str) -> tuple[str, str]:
    """(problem, hint) of a name that is no method's.

    Example:
        >>> unknown_method("tokens+lora")
        ("'tokens+lora' is no method of this installation", "did you mean 'lora+tokens'?")
    """
    known, parts = method_names(), parts_of(name)
    meant = next((each for each in known if parts_of(each) == parts), None)
    if meant is None and len(parts) > 1 and all(part in METHODS for part in parts):
        return f"{name!r}: these cannot be had together", f"use {' or '.join(parts)}"
    close = [meant] if meant else difflib.get_close_matches(name.strip().lower(), known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"use one of {', '.join(known)}"
    return f"{name!r} is no method of this installation", hint


def method_names() -> tuple[str, ...]:
    """The valid values of `train.method`: built-in methods, then installed plugins. Imports no plugin."""
    return (*METHODS, *plugins.names(plugins.METHODS, METHODS))
