"""Finds keys of `[train]` that the number of steps, or another key, makes useless: a warm-up that never ends, a cooldown that no scheduler has.

What can never be meant is refused; what only does nothing is told in one line. It needs the number of steps, so it is asked by
the check before a job is accepted, and by a training without a daemon; jobs that were accepted earlier run as they did.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from carbonsched.errors import InputError
from carbonsched.model.job import TrainPart
from trainer.job.segment import Schedule


class _Of(NamedTuple):
    """A key that one value of another key reads."""

    key: str
    owner: str
    reads: Callable[[Any], bool]
    fix: str


_OF = (
    _Of("cooldown", "scheduler", lambda value: value == "budget", '"budget"'),
    _Of("momentum", "optimizer", lambda value: value == "sgd", '"sgd"'),
    _Of("cache_gb", "cache", lambda value: value != "off", '"memory" or "disk"'),
)


def check_warmup(train: TrainPart, schedule: Schedule) -> None:
    """Raises InputError where the learning rate would never be reached."""
    warmup = train.warmup_steps
    most = schedule.most_steps if schedule.is_open else schedule.steps
    if not warmup or most is None:
        return
    # a bounded job of scheduler 'budget' has cooled down by its bound
    cools = max(round(train.cooldown * most), 1) if train.scheduler == "budget" else 0
    if warmup < most - cools:
        return
    left = f"{most} steps" if not cools else f"{most} steps at most, {cools} of them its cooldown"
    least = max((most - cools) // 10, 0)
    raise InputError(
        "train.warmup_steps",
        f"{warmup} steps of warm-up, and the job has {left}: its learning rate is never reached",
        f"set it to {least}, a tenth of them, or give the job more steps",
    )


def unused_keys(train: TrainPart) -> list[str]:
    """One line for each key that was changed and does nothing.

    Example:
        >>> unused_keys(TrainPart(cooldown=0.3))
        ['train.cooldown does nothing with scheduler \\'linear\\': leave it out, or set train.scheduler = "budget"']
    """
    return [
        f"train.{of.key} does nothing with {of.owner} {getattr(train, of.owner)!r}: leave it out, or set "
        f"train.{of.owner} = {of.fix}"
        for of in _OF
        if getattr(train, of.key) != TrainPart.model_fields[of.key].default
        and not of.reads(getattr(train, of.owner))
    ]
