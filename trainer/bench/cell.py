"""Names one run of a benchmark by its method, ρ, learning rate, seed and other settings of `[train]`; parses `--method`.

The form is `METHOD[@RHO][,key=value…]`, as in `greentrainer@0.5,importance=fisher,max_steps=200`; the keys are those of a job's `[train]`
table.
"""

import json
from dataclasses import dataclass, replace
from typing import Any

from carbonsched.errors import InputError
from carbonsched.model.job import JobSpec
from trainer.methods.registry import method_row


@dataclass(frozen=True, slots=True)
class Variant:
    """What is compared: all settings but learning rate and seed.

    Example:
        >>> Variant("greentrainer", 0.5, (("importance", "fisher"),)).name
        'greentrainer@0.5,importance=fisher'
    """

    method: str
    rho: float | None
    """None: the method's own."""
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        ratio = "" if self.rho is None else f"@{self.rho:g}"
        return ",".join([f"{self.method}{ratio}", *(f"{k}={v}" for k, v in self.settings)])


@dataclass(frozen=True, slots=True)
class Cell:
    """A variant at one learning rate and seed: one run.

    Example:
        >>> Cell(Variant("full", None), lr=1e-4, seed=0).id
        'full,lr=0.0001,seed=0'
    """

    variant: Variant
    lr: float
    seed: int

    @property
    def id(self) -> str:
        return f"{self.variant.name},lr={self.lr:.3g},seed={self.seed}".replace("/", "_")

    def spec(self, base: JobSpec) -> JobSpec:
        """The job that runs this cell. Raises InputError for a setting that `[train]` does not have."""
        train = base.train.dump() | dict(self.variant.settings)
        train |= {"method": self.variant.method, "lr": self.lr, "lr_scaling": "as-given", "seed": self.seed}
        # test rows are only for the runs chosen by tuning
        document = base.dump() | {"train": train, "evaluate": {}}
        document["carbon"] = {"budget_share": 1.0, "rho_start": self.variant.rho or 1.0}
        return JobSpec.parse(document, where=f"--method {self.variant.name}")


def parse_variants(text: str, rhos: list[float]) -> list[Variant]:
    """The variants that one `--method` stands for: one for each of `rhos`, unless it names its own ρ. Raises InputError."""
    head, *rest = [part.strip() for part in text.split(",")]
    settings = []
    for part in rest:
        key, sign, value = part.partition("=")
        if not sign or not key:
            raise InputError("--method", f"{part!r} in {text!r} is no key=value", "write e.g. max_steps=200")
        settings.append((key, _value(value)))
    method, sign, ratio = head.partition("@")
    variant = Variant(method, None, tuple(settings))
    if sign:
        try:
            return [replace(variant, rho=float(ratio))]
        except ValueError as e:
            raise InputError("--method", f"{ratio!r} in {text!r} is no ratio", "write e.g. dropbp@0.5") from e
    if method_row(method).traits.constant_rho:
        return [variant]
    if not rhos:
        raise InputError("--method", f"{method} has no ratio", f"write {method}@0.5, or give --rho")
    return [replace(variant, rho=rho) for rho in rhos]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
