"""Lists every method that this installation can train with, one row each: its traits, its class, its adapters.

Built-in rows stand here, what they can and cannot in carbonsched/model/methods/traits.py, which the daemon reads, too.
A site adds a method without a fork: a MethodRow under the entry point group `carbonsched.methods`, in a package that is
installed for the trainer (which imports it) and for the daemon (which reads its name).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from carbonsched import plugins
from carbonsched.errors import InputError
from carbonsched.model.job import JobSpec, TrainPart
from carbonsched.model.job_conflicts import method_conflict
from carbonsched.model.methods.traits import METHODS, MethodTraits, method_names, unknown_method
from carbonsched.model.profile import Profile
from trainer.methods import adapters
from trainer.methods.auto import Auto
from trainer.methods.constant import ConstantMethod, LastBlocks
from trainer.methods.dropbp import DropBP
from trainer.methods.method import Method
from trainer.methods.tensors_and_tokens import TensorsAndTokens
from trainer.methods.tokens import Tokens


@dataclass(frozen=True, slots=True)
class MethodRow:
    """One method; a plugin is an entry point of the group `carbonsched.methods` whose object is such a row.

    Example::

        class BitFit(ConstantMethod):
            def narrow(self, names):
                return [name for name in names if name.endswith(".bias")]

        BITFIT = MethodRow(MethodTraits(constant_rho=True), BitFit)
    """

    traits: MethodTraits
    """What it can and cannot do; JobSpec and the trainer refuse settings that do not fit."""
    method: type[Method]
    """Its part in a run: which tensors it may train, and the SelectionCurve of each segment."""
    wrap: Callable[[Any, TrainPart], Any] | None = None
    """Puts adapters on a loaded (or meta) model, by peft; for methods that train adapters."""


ROWS: Mapping[str, MethodRow] = {
    "full": MethodRow(METHODS["full"], ConstantMethod),
    "ft-top2": MethodRow(METHODS["ft-top2"], LastBlocks),
    "lora": MethodRow(METHODS["lora"], ConstantMethod, adapters.add_lora),
    "prefix": MethodRow(METHODS["prefix"], ConstantMethod, adapters.add_prefix),
    "dropbp": MethodRow(METHODS["dropbp"], DropBP),
    "tokens": MethodRow(METHODS["tokens"], Tokens),
    "greentrainer": MethodRow(METHODS["greentrainer"], Method),
    "greentrainer+lora": MethodRow(METHODS["greentrainer+lora"], Method, adapters.add_lora),
    "greentrainer+tokens": MethodRow(METHODS["greentrainer+tokens"], TensorsAndTokens),
    "lora+tokens": MethodRow(METHODS["lora+tokens"], Tokens, adapters.add_lora),
    "fixed": MethodRow(METHODS["fixed"], Method),
    "random": MethodRow(METHODS["random"], Method),
    "auto": MethodRow(METHODS["auto"], Auto),
}


def method_row(name: str) -> MethodRow:
    """The row of a built-in or a plugin. Raises InputError: no such method, or a plugin that cannot be imported."""
    if name in ROWS:
        return ROWS[name]
    if name not in method_names():
        raise InputError("train.method", *unknown_method(name))
    return plugins.load(plugins.METHODS, name, _checked, ROWS)


def check_method(spec: JobSpec) -> MethodRow:
    """The row of the job's method. Raises InputError where another setting does not go with it.

    JobSpec has asked the same of built-in methods; of a plugin it knows the name alone.
    """
    row = method_row(spec.train.method)
    conflict = method_conflict(spec, row.traits)
    if conflict is not None:
        raise InputError(*conflict)
    return row


def build_method(
    name: str,
    profile: Profile,
    seed: int = 0,
    among: frozenset[str] | None = None,
    importance: str = "reach",
) -> Method:
    """The method `name` over a model's profile; arguments as Method's. Raises InputError."""
    row = method_row(name)
    return row.method(name, row.traits, profile, seed, among, importance)


def add_adapters(model: Any, train: TrainPart) -> Any:
    """`model` with the adapters that `train.method` asks for, the rest frozen; `model` itself where it asks for none.

    Raises InputError for targets that the model does not have, and for adapters that it cannot take.
    """
    wrap = method_row(train.method).wrap
    return model if wrap is None else wrap(model, train)


def _checked(found: object) -> MethodRow:
    if not isinstance(found, MethodRow):
        raise TypeError("is no trainer.methods.registry.MethodRow")
    return found
