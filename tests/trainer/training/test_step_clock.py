"""Which seconds are whose: parts of a step by sleeping modules, and those of a real run beside its events."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import job_folder, tiny_llama, tiny_spec, word_data
from torch import Tensor, nn

from trainer.job.job_dir import JobDir
from trainer.job.step_parts import StepParts
from trainer.run import run_job
from trainer.training.step_clock import StepClock

torch.set_num_threads(1)
NAP = 0.02


class SleepyBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> Tensor:
        time.sleep(3 * NAP)
        return grad[0]


class Prompt(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        time.sleep(2 * NAP)
        return x


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.prompt, self.head = Prompt(), nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.prompt(x)
        time.sleep(NAP)
        out: Tensor = SleepyBackward.apply(self.head(x))  # type: ignore[no-untyped-call]
        return out


def test_each_part_is_its_own() -> None:
    model = Model()
    optimizer = torch.optim.AdamW(model.parameters())
    backward, clip = Tensor.backward, nn.utils.clip_grad_norm_
    with StepClock() as clock:
        model(torch.ones(1, 2))  # an evaluation: no step has begun
        assert clock.parts == StepParts()
        for _ in range(2):
            clock.begin_step()
            model(torch.ones(1, 2)).sum().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            clock.end_step()
    assert (Tensor.backward, nn.utils.clip_grad_norm_) == (backward, clip), "all is as it was"
    parts = clock.parts
    assert parts.steps == 2
    for found, naps in (
        (parts.forward_no_grad_s, 4),
        (parts.forward_s, 2),
        (parts.backward_s, 6),
    ):
        assert naps * NAP <= found < 10 * naps * NAP  # the machine may be busy
    assert parts.clipping_s > 0
    assert parts.update_s > 0
    assert parts.add(parts).steps == 4


def test_a_run_writes_its_parts_and_they_fit_into_its_seconds(tmp_path: Path) -> None:
    model, data = tiny_llama(tmp_path / "model"), word_data(tmp_path / "data")
    spec = tiny_spec(model, data, train={"max_steps": 2, "epochs": 1})
    job = job_folder(tmp_path / "job", spec)
    began = time.monotonic()
    run_job(JobDir(job), lambda: False, alone=True, parts=True)
    seconds = time.monotonic() - began
    parts = StepParts.model_validate(json.loads((job / "parts.json").read_text()))
    assert parts.steps == 2
    assert min(parts.forward_s, parts.backward_s, parts.update_s, parts.clipping_s) > 0
    whole = sum(v for k, v in parts.dump().items() if k.endswith("_s"))
    assert whole < seconds
    assert parts.forward_no_grad_s == pytest.approx(0, abs=1e-3)
