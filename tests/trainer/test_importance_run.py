"""`train.importance` and `train.optimizer` from the spec to the selections of a real run, without a daemon."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.models import job_folder, tiny_spec
from support.steer import of

from carbonsched.errors import InputError
from carbonsched.model.job import JobSpec
from trainer.check import check_job
from trainer.job.job_dir import JobDir
from trainer.run import run_job

torch.set_num_threads(1)

KINDS = ["random", "fisher", "concave", "noise", "curvature"]
"""One of each way that a value is come by."""


def trained(folder: Path, spec: dict[str, Any], stopping: Any = lambda: False) -> Path:
    job = folder if folder.exists() else job_folder(folder, spec)
    run_job(JobDir(job), stopping, alone=True)
    return job


def test_each_kind_of_importance_trains_within_its_rho(llama: Path, data: Path, tmp_path: Path) -> None:
    selections = {}
    for importance in KINDS:
        train = {"max_steps": 4, "importance": importance}
        job = trained(tmp_path / importance, tiny_spec(llama, data, train=train, carbon={"rho_start": 0.9}))
        ready, done = of(job, "segment_ready"), of(job, "segment_done")
        paid = 0 if importance == "random" else 1
        assert [r["importance_batches"] for r in ready] == [paid]
        assert all((d["importance_seconds"] > 0) == bool(paid) for d in done)
        assert [r["importance_error"] is None for r in ready] == [importance != "noise"]
        for d, r in zip(done, ready, strict=True):
            assert d["rho_realised"] == pytest.approx(d["rho_planned"], abs=0.01)
            assert d["rho_planned"] <= 0.9
            curve = [p["importance"] for p in r["frontier"]]
            assert curve == sorted(curve)
        assert done[0]["selected"]
        selections[importance] = done[0]["selected"]
    # they are not one and the same thing under different names
    assert len({tuple(s) for s in selections.values()}) > 3


def test_a_spread_that_cannot_be_had_is_refused_at_once(llama: Path, data: Path) -> None:
    few = {"importance": "noise", "batch_size": 1, "importance_batches": 2}
    with pytest.raises(InputError, match=r"takes a spread from 3 rows; set importance_batches = 3"):
        JobSpec.parse(tiny_spec(llama, data, train=few))
    JobSpec.parse(tiny_spec(llama, data, train=few | {"importance_batches": 3}))


def test_batches_that_agree_or_not_are_told(llama: Path, data: Path, tmp_path: Path) -> None:
    train = {"max_steps": 6, "segment": 6, "importance_batches": 3}
    job = trained(tmp_path / "job", tiny_spec(llama, data, train=train))
    assert 0 < of(job, "segment_ready")[0]["importance_error"] < 10


def test_what_a_tensor_has_been_through_survives_a_restart(llama: Path, data: Path, tmp_path: Path) -> None:
    """`coverage` goes by the segments a tensor has waited: resumed, the same ones come to their turn."""
    train = {"max_steps": 12, "segment": 4, "importance": "coverage", "optimizer": "sgd", "lr": 0.05}
    spec = tiny_spec(llama, data, train=train, carbon={"rho_start": 0.85})
    straight = trained(tmp_path / "straight", spec)
    job = job_folder(tmp_path / "job", spec)

    trained(job, spec, lambda: len(of(job, "segment_done")) >= 2)
    assert of(job, "finished")[-1]["reason"] == "stopped"
    trained(job, spec)
    ours, theirs = of(job, "segment_done"), of(straight, "segment_done")
    assert [d["selected"] for d in ours] == [d["selected"] for d in theirs]
    assert len({tuple(d["selected"]) for d in ours}) > 1
    a, b = (load_file(j / "output" / "model.safetensors") for j in (job, straight))
    assert all(torch.equal(a[name], b[name]) for name in b)


@pytest.mark.parametrize("optimizer", ["sgd", "adafactor"])
def test_other_optimizers_train_and_are_foreseen(
    llama: Path, data: Path, tmp_path: Path, optimizer: str
) -> None:
    train = {"max_steps": 8, "segment": 4, "optimizer": optimizer, "lr": 0.1 if optimizer == "sgd" else 3e-3}
    job = trained(tmp_path / "job", tiny_spec(llama, data, train=train, carbon={"rho_start": 1.0}))
    state = torch.load(job / "checkpoints" / "checkpoint-8" / "optimizer.pt")
    kept = set(next(iter(state["state"].values())))
    assert kept == {"momentum_buffer"} if optimizer == "sgd" else "exp_avg_sq_row" in kept
    assert state["param_groups"][0].get("momentum", 0.9) == 0.9
    losses = [e["loss"] for e in of(job, "evaluated")]
    assert losses[1] < losses[0]


def test_the_floor_that_the_check_foresees_is_that_of_every_segment(
    llama: Path, data: Path, tmp_path: Path
) -> None:
    """Importance is measured at one share of the tokens, whatever share the segment before trained."""
    train = {"method": "greentrainer+tokens", "segment": 2, "max_steps": 6}
    spec = tiny_spec(llama, data, train=train, carbon={"rho_start": 0.75})
    foreseen = check_job(JobSpec.parse(spec)).rho_floor
    job = trained(tmp_path / "job", spec)
    assert [r["rho_floor"] for r in of(job, "segment_ready")] == [pytest.approx(foreseen, abs=1e-3)] * 3
    assert any(d["gradient_share"] < 1 for d in of(job, "segment_done")), "the share was less than all"
