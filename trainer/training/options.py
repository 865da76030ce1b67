"""Collects the arguments of `GreenTrainerCallback`, from a caller or from a job's spec."""

import difflib
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any, get_args

from carbonsched.errors import InputError
from carbonsched.model.job import JobSpec
from trainer.importance.objectives import objective_of
from trainer.job.directives import PATIENCE_S
from trainer.methods.registry import method_row
from trainer.training.activation_cache import Place
from trainer.training.optimizer_state import Policy

MOST_RHO = 2.0
"""Above 1 lie the importance batches of a segment of few steps; what is larger is meant as a percentage."""


def never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Options:
    """How a training is steered. Raises InputError for a value that cannot be meant.

    Example:
        >>> options = Options(0.5, segment=100)
        >>> options.method, options.silence_s
        ('greentrainer', 30.0)
    """

    rho: float = 0.6
    """Constant without a job directory; with one, for the first segment of a trainer run by hand that gets no answer."""
    _: KW_ONLY
    job_dir: str | Path | None = None
    """None: $CARBONSCHED_JOB_DIR, which the daemon sets for what it starts; without either no job directory."""
    method: str = "greentrainer"
    segment: int | str = "epoch"
    """`epoch` or optimizer steps."""
    importance: str = "reach"
    importance_batches: int = 1
    seed: int = 0
    shape: tuple[int, int | None] | tuple[int, int | None, int] | None = None
    """(seq, target_seq) to profile at, and labelled tokens of a row; None: of a drawn batch."""
    keep_checkpoints: int = 2
    stopping: Callable[[], bool] = never
    """Polled between steps, importance batches and while waiting; once it holds, training ends behind a checkpoint."""
    patience_s: float | None = None
    """None: 30 s."""
    alone: bool = False
    """Write the events to `job_dir`, but train at `rho` and ask no daemon."""
    skip_earliest: float = 0.0
    stale_state: Policy = "keep"
    cache: Place = "off"
    cache_gb: float = 4.0
    lr_scaling: str = "as-given"
    labelled_head: bool = False
    gradient_share: float | None = None
    """These seven as `train.*` in docs/configuration.md."""

    def __post_init__(self) -> None:
        for name, (fits, wanted) in _WANTED.items():
            value = getattr(self, name)
            if not fits(value):
                raise InputError(name, f"must be {wanted}, is {value!r}", _hint(name, value))
        object.__setattr__(self, "rho", float(self.rho))  # of NumPy, say
        if self.gradient_share is not None and not method_row(self.method).traits.splits_rows:
            raise InputError(
                "gradient_share",
                f"method {self.method!r} takes no fixed share of tokens",
                "leave it out, or use method tokens",
            )
        method_row(self.method)
        objective_of(self.importance)

    @property
    def silence_s(self) -> float:
        """Seconds without an answer after which the lease of the last directive decides."""
        return PATIENCE_S if self.patience_s is None else self.patience_s

    @classmethod
    def of(cls, spec: JobSpec, **more: Any) -> "Options":
        """Those that a job's spec holds under the same names; `more`: the others."""
        train = spec.train
        given = {f.name: getattr(train, f.name) for f in fields(cls) if f.name in type(train).model_fields}
        return cls(spec.carbon.rho_start, **given, **more)


def check_names(given: Iterable[str]) -> None:
    """Raises InputError for a name that is no option."""
    known = [f.name for f in fields(Options)]
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
            raise InputError(name, "is no option of GreenTrainerCallback", hint)


def _number(value: Any) -> bool:
    return type(value) is not bool and isinstance(value, Real) and math.isfinite(value)


def _whole(value: Any) -> bool:
    return type(value) is not bool and isinstance(value, Integral)


def _count(value: Any) -> bool:
    return _whole(value) and value >= 1


def _shape(value: Any) -> bool:
    if value is None:
        return True
    sizes = isinstance(value, (tuple, list)) and len(value) in (2, 3)
    return sizes and all(_count(n) or (at == 1 and n is None) for at, n in enumerate(value))


_WANTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "rho": (lambda v: _number(v) and 0 < v <= MOST_RHO, f"a number above 0 and at most {MOST_RHO:g}"),
    "job_dir": (lambda v: v is None or (isinstance(v, (str, os.PathLike)) and str(v) != ""), "a folder"),
    "method": (lambda v: isinstance(v, str), "a method's name"),
    "segment": (lambda v: v == "epoch" or _count(v), "'epoch' or a number of steps from 1"),
    "importance": (lambda v: isinstance(v, str), "an importance's name"),
    "importance_batches": (_count, "a whole number from 1"),
    "seed": (lambda v: _whole(v) and 0 <= v < 2**32, "a whole number from 0, below 2**32"),
    "shape": (_shape, "(seq, target_seq) in tokens, or None"),
    "keep_checkpoints": (_count, "a whole number from 1"),
    "stopping": (callable, "something to call"),
    "patience_s": (lambda v: v is None or (_number(v) and v >= 0), "seconds from 0, or None"),
    "alone": (lambda v: isinstance(v, bool), "True or False"),
    "skip_earliest": (lambda v: _number(v) and 0 <= v < 1, "a share from 0, below 1"),
    "stale_state": (lambda v: v in get_args(Policy), f"one of {', '.join(get_args(Policy))}"),
    "cache": (lambda v: v in get_args(Place), f"one of {', '.join(get_args(Place))}"),
    "lr_scaling": (lambda v: v in ("full", "as-given"), "full or as-given"),
    "labelled_head": (lambda v: isinstance(v, bool), "True or False"),
    "gradient_share": (
        lambda v: v is None or (_number(v) and 0 < v <= 1),
        "a share above 0 and at most 1, or None",
    ),
    "cache_gb": (lambda v: _number(v) and v > 0, "gigabytes above 0"),
}


def _hint(name: str, value: Any) -> str:
    """What is likely meant."""
    if isinstance(value, str):
        try:
            return f"leave out the quotes: {float(value):g}"
        except ValueError:
            return ""
    if name in ("rho", "skip_earliest", "gradient_share") and _number(value) and MOST_RHO <= value <= 100:
        return f"a ratio is meant, {value:g}% is {value / 100:g}"
    return ""
