"""Keys of [train] that the number of steps, or another key, makes useless."""

from typing import Any

import pytest

from carbonsched.errors import InputError
from carbonsched.model.job import TrainPart
from trainer.job.schedule_rules import check_warmup, unused_keys
from trainer.run import schedule_of


@pytest.mark.parametrize(
    ("train", "told"),
    [
        ({"max_steps": 40, "warmup_steps": 40}, "40 steps of warm-up, and the job has 40 steps:"),
        ({"max_steps": 40, "warmup_steps": 500}, "set it to 4, a tenth"),
        ({"epochs": 2, "warmup_steps": 32}, "has 32 steps"),
        ({"max_steps": 40, "warmup_steps": 40, "scheduler": "constant"}, "never reached"),
        ({"max_steps": 40, "warmup_steps": 32, "scheduler": "budget"}, "40 steps at most, 8 of them its cooldown"),
        ({"max_steps": 1, "warmup_steps": 1}, "set it to 0"),
        ({"max_steps": 40, "warmup_steps": 39}, None),
        ({"max_steps": 40, "warmup_steps": 31, "scheduler": "budget"}, None),
        ({"warmup_steps": 10_000, "scheduler": "budget"}, None),
        ({"max_steps": 1}, None),
    ],
)  # fmt: skip
def test_a_warm_up_that_never_ends_is_refused(train: dict[str, Any], told: str | None) -> None:
    """64 rows in batches of 4: 16 steps an epoch; a job without a bound has any number."""
    part = TrainPart.parse(train)
    if told is None:
        return check_warmup(part, schedule_of(part, 64))
    with pytest.raises(InputError, match=r"^train\.warmup_steps: ") as refused:
        check_warmup(part, schedule_of(part, 64))
    assert told in str(refused.value)
    return None


@pytest.mark.parametrize(
    ("train", "told"),
    [
        ({"cooldown": 0.3}, 'train.cooldown does nothing with scheduler \'linear\': leave it out, or set train.scheduler = "budget"'),
        ({"cooldown": 0.3, "scheduler": "cosine"}, "scheduler 'cosine'"),
        ({"momentum": 0.5}, "train.momentum does nothing with optimizer 'adamw'"),
        ({"cache_gb": 1.0}, "train.cache_gb does nothing with cache 'off'"),
        ({"cooldown": 0.3, "scheduler": "budget", "momentum": 0.5, "optimizer": "sgd", "cache_gb": 1.0, "cache": "disk"}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_a_key_that_does_nothing_is_told(train: dict[str, Any], told: str | None) -> None:
    part = TrainPart.parse(train)
    lines = unused_keys(part)
    assert (told is None) == (lines == [])
    assert told is None or told in lines[0]
    assert unused_keys(TrainPart.parse(part.dump())) == lines, "also of a job whose every key is written down"
