"""The arguments of the callback, and what a job's spec says of them."""

import inspect
from pathlib import Path

import pytest
from support.models import tiny_spec

from carbonsched.errors import InputError
from carbonsched.model.job import JobSpec
from trainer import GreenTrainerCallback
from trainer.training.options import Options


def test_a_spec_says_all_that_goes_by_the_same_name(tmp_path: Path) -> None:
    asked = {"method": "random", "segment": 5, "importance_batches": 3, "seed": 7, "skip_earliest": 0.25}
    kept = {"keep_checkpoints": 4, "stale_state": "drop", "cache": "memory", "cache_gb": 2.5}
    train = {**asked, **kept, "importance": "fisher"}
    spec = JobSpec.parse(tiny_spec(tmp_path, tmp_path, train=train, carbon={"rho_start": 0.55}))
    options = Options.of(spec, job_dir=tmp_path, alone=True)
    assert {name: getattr(options, name) for name in train} == train
    assert (options.rho, options.job_dir, options.alone) == (0.55, tmp_path, True)
    assert options.shape is None
    assert GreenTrainerCallback.of(options).options == options


def test_the_callback_takes_what_options_take() -> None:
    given = inspect.signature(GreenTrainerCallback).parameters
    assert list(given) == list(inspect.signature(Options).parameters)
    assert given["rho"].default == GreenTrainerCallback().options.rho
    assert GreenTrainerCallback(0.4, cache_gb=1.0).options == Options(0.4, cache_gb=1.0)
    with pytest.raises(InputError, match=r"metod.*method"):
        GreenTrainerCallback(metod="full")
    with pytest.raises(InputError, match=r"train\.importance"):
        GreenTrainerCallback(importance="guess")
