"""Finds settings of a job that exclude each other: with its method, and with an end that the daemon decides."""

from typing import TYPE_CHECKING, NamedTuple

from carbonsched.model.methods.traits import MethodTraits

if TYPE_CHECKING:
    from carbonsched.model.job import JobSpec


class Conflict(NamedTuple):
    """A setting that excludes another one.

    Example:
        >>> Conflict("train.compile", "does not go with method 'dropbp'", "set it to false").field
        'train.compile'
    """

    field: str
    problem: str
    hint: str


def open_end_conflict(spec: "JobSpec") -> Conflict | None:
    """Which key of `[carbon]` excludes a job whose end the daemon decides."""
    carbon = spec.carbon
    if carbon.budget_share is not None and not spec.train.bounded:
        return Conflict(
            "carbon.budget_share",
            "is a share of all steps, and nothing says how many there are",
            "add train.max_steps or epochs",
        )
    for key, asked in (
        ("budget_rate_g_per_h", carbon.budget_rate_g_per_h is not None),
        ("pool", carbon.pool is not None),
        ("objective", carbon.objective != "max-gain"),
    ):
        if asked:
            return Conflict(
                f"carbon.{key}",
                "does not go with train.scheduler = 'budget', which uses a fixed budget up",
                "give budget_g",
            )
    return None


def method_conflict(spec: "JobSpec", traits: MethodTraits) -> Conflict | None:
    """The first setting of `spec` that excludes a method with these traits; None: there is none."""
    train, name = spec.train, spec.train.method
    # fp16's smallest number is 6e-8: AdamW's epsilon of 1e-8 and its second moments round to 0, updates become infinite
    if spec.model.dtype == "fp16" and not traits.fp16:
        return Conflict(
            "model.dtype",
            f"method {name!r} cannot train fp16 weights: AdamW's epsilon and second moments vanish in them",
            'set it to "bf16", or to "fp32" with train.autocast = "bf16"; adapters (method lora) may stand on fp16 weights',
        )
    if train.parallel == "fsdp2" and not traits.fsdp2:
        return Conflict(
            "train.method", "cannot be had with parallel = 'fsdp2'", "change it, or set parallel = 'ddp'"
        )
    if train.skip_earliest and not traits.selects:
        return Conflict("train.skip_earliest", f"method {name!r} chooses no tensors", "leave it out")
    if train.gradient_share is not None and not traits.splits_rows:
        adapters = ": adapters train on every token" if traits.trains_adapters else ""
        return Conflict(
            "train.gradient_share",
            f"method {name!r} takes no fixed share of tokens{adapters}",
            "leave it out, or use method " + ("lora+tokens" if traits.trains_adapters else "tokens"),
        )
    if train.cache != "off" and traits.splits_rows:
        return Conflict(
            "train.cache",
            f"keeps activations of whole rows, method {name!r} runs them in two parts",
            "leave it out",
        )
    for key, asked, able in (
        ("gradient_checkpointing", train.gradient_checkpointing, traits.gradient_checkpointing),
        ("compile", train.compile, traits.compile),
    ):
        if asked and not able:
            general = (f"does not go with method {name!r}", "set it to false")
            return Conflict(f"train.{key}", *traits.reasons.get(key, general))
    return None
