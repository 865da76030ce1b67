"""Collects the arguments of `GreenTrainerCallback`, from a caller or from a job's spec."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, fields
from pathlib import Path
from typing import Any

from carbonsched.model.job import JobSpec
from trainer.importance.objectives import objective_of
from trainer.job.directives import PATIENCE_S
from trainer.methods.registry import method_row
from trainer.training.activation_cache import Place
from trainer.training.optimizer_state import Policy


def never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Options:
    """How a training is steered. Raises InputError for a method or an importance that is not known.

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
    shape: tuple[int, int | None] | None = None
    """(seq, target_seq) to profile at; None: of a drawn batch."""
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
    """These four as `train.*` in docs/configuration.md."""

    def __post_init__(self) -> None:
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
