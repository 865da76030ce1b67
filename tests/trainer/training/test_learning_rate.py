"""The rate that fits a setting: what the optimizer's step sees, how it climbs, and whose rate stays as it is."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import job_folder, tiny_llama, tiny_spec, word_data
from support.steer import FakeDaemon, always, of

from carbonsched.model.job import JobSpec
from carbonsched.model.methods.traits import METHODS
from carbonsched.model.setting import Setting
from trainer.check import check_job
from trainer.job.job_dir import JobDir
from trainer.run import run_job
from trainer.training.learning_rate import RAMP_STEPS, LearningRate, multiplier, scales_with_full
from trainer.training.options import Options

torch.set_num_threads(1)


def optimizer(rate: float = 1e-3, kind: Any = torch.optim.AdamW) -> Any:
    return kind([torch.nn.Parameter(torch.zeros(1))], lr=rate)


def stepped(rate: LearningRate, own: Any, steps: int) -> list[float]:
    """The rates of so many steps of the optimizer."""
    seen = []
    for _ in range(steps):
        rate.raise_for_step(own)
        seen.append(own.param_groups[0]["lr"])
        rate.put_back(own)
        assert own.param_groups[0]["lr"] == 1e-3, "a scheduler finds what it had set"
    return seen


def test_it_begins_at_its_target_climbs_over_some_steps_and_falls_at_once() -> None:
    rate, own = LearningRate(on=True), optimizer()
    rate.aim(1.0)
    assert stepped(rate, own, 2) == [1e-3, 1e-3]
    rate.aim(4.0)
    climb = stepped(rate, own, RAMP_STEPS + 2)
    assert climb == sorted(climb)
    assert climb[0] == pytest.approx(1e-3 * 4 ** (1 / RAMP_STEPS))
    assert climb[-3:] == [4e-3] * 3
    rate.aim(0.6)
    assert stepped(rate, own, 1) == [0.6e-3]


def test_a_climb_that_was_interrupted_goes_on() -> None:
    straight, resumed = LearningRate(on=True), LearningRate(on=True)
    for rate in (straight, resumed):
        rate.aim(1.0)
        rate.aim(16.0)
        stepped(rate, optimizer(), 4)
    again = LearningRate(on=True)
    again.restore(resumed.dump())
    again.aim(16.0)  # the directive is there still
    assert stepped(again, optimizer(), 8) == stepped(straight, optimizer(), 8)
    again.restore(None)


def test_what_is_off_or_no_adam_stays_as_it_is() -> None:
    rate = LearningRate(on=False)
    rate.aim(4.0)
    assert stepped(rate, optimizer(), 2) == [1e-3, 1e-3]
    assert scales_with_full(optimizer())
    assert not scales_with_full(optimizer(kind=torch.optim.SGD))
    assert Options().lr_scaling == "as-given", "a rate in somebody's own script is his affair"


def test_the_multiple_follows_rho_and_the_setting() -> None:
    tensors = METHODS["greentrainer"]
    assert [multiplier(tensors, rho) for rho in (0.4, 0.6, 0.8, 1.0, 1.1)] == [4.0, 4.0, 2.0, 1.0, 1.0]
    assert multiplier(tensors, 1.0, Setting(method="full")) == 1.0
    assert multiplier(METHODS["full"], 0.5, Setting(method="greentrainer")) == 4.0
    tokens = METHODS["tokens"]
    assert [multiplier(tokens, 0.5, share=t) for t in (0.1, 0.25, 1.0, None)] == [0.6, 0.6, 1.0, 1.0]
    assert multiplier(tensors, 0.5, share=0.25) == 0.6, "of both the lower one"
    assert multiplier(METHODS["auto"], 0.5, Setting(method="tokens", gradient_share=0.2)) == 0.6
    assert multiplier(METHODS["lora"], 0.7) == METHODS["lora"].lr_multiplier > 4


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ({}, "full"),
        ({"lr": 1e-4}, "as-given"),
        ({"lr": 1e-4, "lr_scaling": "full"}, "full"),
        ({"lr_scaling": "as-given"}, "as-given"),
    ],
)
def test_a_rate_that_a_job_gives_is_its_methods(train: dict[str, Any], expected: str) -> None:
    spec = tiny_spec(Path("m"), Path("d")) | {"train": {"method": "greentrainer"} | train}
    found = JobSpec.parse(spec)
    assert found.train.lr_scaling == expected
    assert JobSpec.parse(found.dump()) == found
    accepted = found.dump()
    del accepted["train"]["lr_scaling"]  # every key but this one stood in an older spec.json
    assert JobSpec.parse(accepted).train.lr_scaling == "as-given"


def test_under_auto_a_rate_is_full_fine_tunings_since_each_setting_has_its_own() -> None:
    spec = tiny_spec(Path("m"), Path("d")) | {"train": {"lr": 1e-4}}
    assert JobSpec.parse(spec).train.method == "auto"
    assert JobSpec.parse(spec).train.lr_scaling == "full"
    asked = spec | {"train": {"lr": 1e-4, "lr_scaling": "as-given"}}
    assert JobSpec.parse(asked).train.lr_scaling == "as-given"


def test_lora_at_fulls_rate_takes_its_multiple(tmp_path: Path) -> None:
    model, data = tiny_llama(tmp_path / "model"), word_data(tmp_path / "data")
    times = METHODS["lora"].lr_multiplier
    losses = []
    for name, train in (
        ("full's", {"lr": 1e-3, "lr_scaling": "full"}),
        ("own", {"lr": 1e-3 * times}),
    ):
        spec = tiny_spec(model, data, train=train | {"method": "lora", "max_steps": 3, "epochs": 1})
        job = job_folder(tmp_path / name, spec)
        with FakeDaemon(job, always(1.0)):
            run_job(JobDir(job), lambda: False)
        losses.append(of(job, "evaluated")[-1]["loss"])
        notes = " ".join(check_job(JobSpec.parse(spec)).notes)
        assert (f"{times:g} times train.lr" in notes) == (name == "full's")
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
