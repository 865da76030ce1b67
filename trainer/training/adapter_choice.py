"""Lets a job of method auto become one of LoRA before its first step, when the daemon says so, and stay one.

Adapters cannot come and go between segments, so they are offered with the first segment alone. A directive that names them ends the training that has not taken
a step (`AdaptersChosen`); whoever runs the job puts adapters on the model and begins again. From then on the only setting on offer is theirs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from carbonsched.model.job import JobSpec, TrainPart
from carbonsched.model.job_conflicts import method_conflict
from carbonsched.model.methods.traits import METHODS
from carbonsched.model.setting import Setting
from trainer.job.directives import Granted

LORA = "lora"

Settings = Sequence[tuple[Setting, float]]
"""Each with its ρ."""


class AdaptersChosen(Exception):  # noqa: N818  (not an error: training begins anew, with adapters)
    """Raised out of `Trainer.train()` before the first step: the model has to get adapters.

    Example:
        >>> try:
        ...     raise AdaptersChosen(LORA)
        ... except AdaptersChosen as e:
        ...     print(e)
        lora
    """


@dataclass(frozen=True, slots=True)
class AdapterChoice:
    """The adapters that a job of method auto may choose, and whether it has.

    Example::

        choice = AdapterChoice.of(spec)
        options = Options.of(spec if choice is None else choice.spec(spec))
    """

    train: TrainPart
    """The job's own settings, under method lora."""
    made: bool = False
    """Whether it trains adapters now."""

    @classmethod
    def of(cls, spec: JobSpec, *, made: bool = False) -> "AdapterChoice | None":
        """None for a job of another method, or if its other settings do not fit adapters."""
        traits = METHODS.get(spec.train.method)
        if traits is None or not traits.switches:
            return None
        choice = cls(spec.train.model_copy(update={"method": LORA}), made)
        conflict = method_conflict(choice.spec(spec), METHODS[LORA])
        # several processes would each have to restart, and a cache or a bound on the depth belong to the selection
        alone = spec.train.parallel == "none" and spec.train.cache == "off" and not spec.train.skip_earliest
        return choice if made or (conflict is None and alone) else None

    def spec(self, spec: JobSpec) -> JobSpec:
        """The job as one of LoRA."""
        return spec.model_copy(update={"train": self.train})

    def offered(self, own: Settings, ratio: float | None, step: int) -> Settings:
        """What a segment that begins at `step` can train in. own: settings without adapters; ratio: ρ of adapters, None: the model takes none."""
        if ratio is None:
            return own
        adapters = (Setting(method=LORA), ratio)
        if self.made:
            return (adapters,)
        return own if step else (*own, adapters)

    def check(self, granted: Granted, ratio: float | None, step: int) -> None:
        """Raise AdaptersChosen if this directive turns a job without adapters into one with them."""
        named = granted.setting is not None and granted.setting.method == LORA
        if named and not self.made and step == 0 and ratio is not None:
            raise AdaptersChosen(LORA)


def without_adapters(granted: Granted, choice: AdapterChoice | None) -> Granted:
    """The directive for a model that can no longer get adapters: its ρ counts, the setting it names does not."""
    named = granted.setting is not None and METHODS.get(granted.setting.method)
    if named and named.trains_adapters and choice is not None and not choice.made:
        return replace(granted, setting=None)
    return granted
