"""A job's segments under control.json: what a directive, a lease and a lapse of it change between steps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import job_folder, tiny_spec, word_data
from support.steer import FakeDaemon, directive, of, read_events

from trainer.job.job_dir import JobDir
from trainer.run import run_job

torch.set_num_threads(1)


def steered(job: Path, answer: Callable[[dict[str, Any]], dict[str, Any] | None]) -> str:
    with FakeDaemon(job, answer):
        return run_job(JobDir(job), lambda: False)


@pytest.fixture
def job(llama: Path, data: Path, tmp_path: Path) -> Path:
    return job_folder(tmp_path / "job", tiny_spec(llama, data, train={"epochs": 1}))


def test_a_lapsed_lease_checkpoints_waits_and_goes_on(job: Path) -> None:
    def answer(event: dict[str, Any]) -> dict[str, Any] | None:
        if event["event"] == "segment_ready":
            return directive(0, 0.8, max_steps=3)
        return directive(0, 0.8) if event["event"] == "waiting" else None

    assert steered(job, answer) == "done"
    (waiting,), (resumed,) = of(job, "waiting"), of(job, "resumed")
    assert waiting["step"] == resumed["step"] == 3
    assert "covers 3 steps" in waiting["reason"]
    assert of(job, "checkpoint")[0]["step"] == 3
    assert of(job, "segment_done")[0]["steps"] == 8


@pytest.mark.parametrize("evaluated", [False, True])
def test_what_is_done_between_two_segments_is_under_a_lease_too(
    llama: Path, data: Path, tmp_path: Path, evaluated: bool
) -> None:
    """A lease that ends with the first segment: neither held-out rows nor importance are looked at before it is renewed."""
    train = {"epochs": 2, "evaluate_each_segment": evaluated}
    job = job_folder(tmp_path / "job", tiny_spec(llama, data, train=train))

    def answer(event: dict[str, Any]) -> dict[str, Any] | None:
        if event["event"] == "segment_done" and event["k"] == 0:
            return directive(0, 0.8, lease_s=0)
        return directive(event["k"], 0.8) if event["event"] in ("segment_ready", "waiting") else None

    assert steered(job, answer) == "done"
    kinds = [e["event"] for e in read_events(job) if e["event"] != "step"]
    ended = kinds.index("segment_done")
    look = ["evaluated"] if evaluated else []
    assert kinds[ended : ended + 5 + evaluated] == [
        "segment_done",
        "checkpoint",
        "waiting",
        "resumed",
        *look,
        "segment_ready",
    ]
    assert of(job, "waiting")[0]["step"] == 8


def test_rho_falls_in_mid_segment(job: Path) -> None:
    """The same importances, a smaller selection; planned and realised ρ follow the steps of each."""

    def answer(event: dict[str, Any]) -> dict[str, Any] | None:
        if event["event"] == "segment_ready":
            return directive(0, 0.9, max_steps=4)
        return directive(0, 0.6) if event["event"] == "waiting" else None

    assert steered(job, answer) == "done"
    (done,) = of(job, "segment_done")
    assert done["rho_directed"] == 0.6
    assert 0.6 < done["rho_planned"] < 0.9
    assert done["rho_realised"] == pytest.approx(done["rho_planned"], abs=0.01)
    assert done["directive_seq"] == 2


def test_checkpoint_wait_and_train_between_steps(llama: Path, tmp_path: Path) -> None:
    """One directive after the other reaches a segment of 150 running steps."""
    data = word_data(tmp_path / "long", train=600)
    job = job_folder(tmp_path / "job", tiny_spec(llama, data, train={"epochs": 1}))
    script = {
        "segment_ready": directive(0, 0.8),
        "step": directive(0, 0.8, checkpoint=True),
        "checkpoint": directive(0, action="wait", reason="dirty hour"),
        "waiting": directive(0, 0.7),
    }
    assert steered(job, lambda event: script.pop(event["event"], None)) == "done"
    asked, waited, *_ = of(job, "checkpoint")
    (waiting,), (done,) = of(job, "waiting"), of(job, "segment_done")
    assert 0 < asked["step"] < waited["step"] == waiting["step"] < 150
    assert waiting["reason"] == "dirty hour"
    assert (done["steps"], done["rho_directed"], done["directive_seq"]) == (150, 0.7, 4)
    assert 0.7 < done["rho_planned"] < 0.8
    assert done["rho_realised"] == pytest.approx(done["rho_planned"], abs=0.01)


def test_below_the_floor_the_floor_is_used_and_said(job: Path) -> None:
    assert steered(job, lambda e: directive(0, 0.1) if e["event"] == "segment_ready" else None) == "done"
    (done,), (ready,) = of(job, "segment_done"), of(job, "segment_ready")
    assert done["rho_planned"] == pytest.approx(ready["rho_floor"])
    assert len(done["selected"]) == 1
    assert "below the floor" in of(job, "warning")[0]["message"]


def test_above_all_there_is_full_fine_tuning(job: Path) -> None:
    assert steered(job, lambda e: directive(0, 1.5) if e["event"] == "segment_ready" else None) == "done"
    (done,) = of(job, "segment_done")
    assert done["rho_realised"] == pytest.approx(1 + 1 / 8), "everything, and the importance batch"


def test_auto_trains_adapters_from_its_first_step_on_where_the_first_directive_says_so_and_never_else(
    llama: Path, data: Path, tmp_path: Path
) -> None:
    """As a job of method lora would, to the last bit; a resumed one goes on with them; none may come later."""
    train = {"epochs": 3, "method": "auto", "lr": 1e-3, "segment": 10}
    job = job_folder(tmp_path / "auto", tiny_spec(llama, data, train=train))
    stops = [True]

    def take(event: dict[str, Any]) -> dict[str, Any] | None:
        if event["event"] == "segment_ready":
            (lora,) = (p for p in event["points"] if p["setting"]["method"] == "lora")
            return directive(event["k"], lora["rho"], setting=lora["setting"])
        if event["event"] == "segment_done" and event["k"] == 1 and stops:
            stops.clear()
            return directive(event["k"] + 1, action="stop")
        return None

    assert steered(job, take) == "stopped"
    assert steered(job, take) == "done"
    ready, done = of(job, "segment_ready"), of(job, "segment_done")
    assert "full" in {p["setting"]["method"] for p in ready[0]["points"]}
    assert all([p["setting"]["method"] for p in r["points"]] == ["lora"] for r in ready[1:])
    assert {d["setting"]["method"] for d in done} == {"lora"}
    assert [d["flops_own"] for d in done] == [d["flops_full"] for d in done], "else it were full fine-tuning"
    (offered,) = (p["rho"] for p in ready[0]["points"] if p["setting"]["method"] == "lora")
    assert all(d["rho_realised"] == pytest.approx(offered, abs=0.03) for d in done)
    assert not of(job, "warning")
    assert (job / "output" / "adapter").is_dir()
    assert "method `auto`, which trained `lora`." in (job / "output" / "README.md").read_text(
        encoding="utf-8"
    )
    alike = train | {"method": "lora", "lr_scaling": "full"}
    other = job_folder(tmp_path / "lora", tiny_spec(llama, data, train=alike))
    assert (
        steered(other, lambda e: directive(e["k"], 1.0) if e["event"] == "segment_ready" else None) == "done"
    )
    assert [d["loss"] for d in done] == [d["loss"] for d in of(other, "segment_done")]

    late = job_folder(tmp_path / "late", tiny_spec(llama, data, train=train))

    def too_late(event: dict[str, Any]) -> dict[str, Any] | None:
        if event["event"] != "segment_ready":
            return None
        setting = {"method": "lora"} if event["k"] else {"method": "full"}
        return directive(event["k"], 0.7 if event["k"] else 1.0, setting=setting)

    assert steered(late, too_late) == "done"
    assert [p["setting"]["method"] for p in of(late, "segment_ready")[1]["points"]].count("lora") == 0
    assert [d["setting"] is None for d in of(late, "segment_done")][1:] == [True] * (
        len(of(late, "segment_done")) - 1
    )


def test_auto_offers_full_and_tensors_and_changes_between_them_as_it_is_told(
    llama: Path, data: Path, tmp_path: Path
) -> None:
    train = {"epochs": 3, "method": "auto"}
    job = job_folder(tmp_path / "job", tiny_spec(llama, data, train=train))
    methods, told = ["full", "greentrainer", "tokens"], []

    def answer(event: dict[str, Any]) -> dict[str, Any] | None:
        if event["event"] != "segment_ready":
            return None
        offered = [p for p in event["points"] if p["setting"]["method"] == methods[event["k"]]]
        told.append((offered[-1]["setting"]["method"], offered[-1]["rho"]))
        return directive(event["k"], offered[-1]["rho"], setting=offered[-1]["setting"])

    assert steered(job, answer) == "done"
    for ready in of(job, "segment_ready"):
        offered = [(p["setting"]["method"], p["rho"]) for p in ready["points"]]
        assert offered[0] == ("full", pytest.approx(1.0))
        assert ("greentrainer", 0.6) in offered
        assert ready["importance_batches"] == 0, "nothing is measured where nothing may come of it"
        gains = {p["rho"]: (p["low"], p["gain"], p["high"]) for p in ready["points"]}
        assert all(low < gain < high for low, gain, high in gains.values())
        assert gains[0.6][1] < gains[max(gains)][1]
    done = of(job, "segment_done")
    assert [(d["setting"]["method"], d["rho_directed"]) for d in done] == told
    assert all(
        d["rho_realised"] == pytest.approx(rho, abs=0.03) for d, (_, rho) in zip(done, told, strict=True)
    )
    full, tensors, tokens = done
    assert len(full["selected"]) == len(tokens["selected"]) > len(tensors["selected"])
    assert tokens["rho_realised"] < 1
    assert tokens["gradient_share"] == pytest.approx(tokens["setting"]["gradient_share"], abs=0.05)
