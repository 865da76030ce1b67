"""Held-out rows in a whole job: what is measured, when, what is written of it; early stop and the best model."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.models import job_folder, tiny_llama, tiny_spec, tiny_t5, word_data, word_rows, write_jsonl
from support.steer import FakeDaemon, always, of, read_events

from carbonsched.errors import InputError
from trainer.check import check_job
from trainer.job.job_dir import JobDir
from trainer.run import run_job

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"), layers=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = word_data(tmp_path_factory.mktemp("data"))
    rows: list[dict[str, Any]] = [dict(row) for row in word_rows(6, seed=2)]
    for row in rows:
        row["target"] = [row["target"], "w1 w2"]
    write_jsonl(folder / "test.jsonl", rows)
    return folder


def train(job: Path, **options: Any) -> str:
    (job / "control.json").unlink(missing_ok=True)
    with FakeDaemon(job, always(0.8)):
        return run_job(JobDir(job), options.pop("stopping", lambda: False), **options)


def metrics(job: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((job / "output" / "metrics.json").read_text())
    return found


@pytest.mark.parametrize("make", [tiny_llama, tiny_t5])
def test_text_metrics_test_rows_and_predictions(make: Any, data: Path, tmp_path: Path) -> None:
    spec = tiny_spec(make(tmp_path / "model"), data, train={"epochs": 1}, data={"target_length": 8})
    spec["evaluate"] = {
        "metrics": ["rouge", "exact_match", "f1"],
        "test": "test",
        "limit": 5,
        "num_beams": 2,
        "predictions": True,
    }
    job = job_folder(tmp_path / "job", spec)
    assert train(job) == "done"
    before, after, test = of(job, "evaluated")
    assert [e["when"] for e in (before, after, test)] == ["before", "after", "test"]
    for event, rows in ((before, 8), (after, 8), (test, 5)):
        names = {"perplexity", "rouge1", "rouge2", "rougeL", "rougeLsum", "exact_match", "f1"}
        assert set(event["metrics"]) == names | {"generated_rows"}
        assert event["metrics"]["generated_rows"] == 5
        assert event["samples"] == rows
        assert all(0 <= event["metrics"][name] <= 100 for name in names - {"perplexity"})

    found = metrics(job)
    assert found["generation"]["num_beams"] == 2
    assert found["generation"]["max_new_tokens"] == 8
    held = found["loss_test"]
    assert sum(held["row_nll"]) / sum(held["row_tokens"]) == pytest.approx(held["loss"])
    assert len(found["loss_after"]["row_nll"]) == 8
    lines = [json.loads(x) for x in (job / "output" / "predictions.jsonl").read_text().splitlines()]
    assert [x["set"] for x in lines] == ["validation"] * 8 + ["test"] * 5
    assert [x["prediction"] is None for x in lines[:8]] == [False] * 5 + [True] * 3
    assert [x["nll"] for x in lines[8:]] == held["row_nll"]
    assert [x["tokens"] for x in lines[8:]] == held["row_tokens"]
    assert all(x["references"][1] == "w1 w2" for x in lines[8:])
    assert lines[8]["source"] == word_rows(1, seed=2)[0]["source"]


def test_by_default_only_the_loss(llama: Path, data: Path, tmp_path: Path) -> None:
    job = job_folder(tmp_path / "job", tiny_spec(llama, data, train={"max_steps": 2}))
    train(job)
    assert [(e["when"], set(e["metrics"])) for e in of(job, "evaluated")] == [
        ("before", {"perplexity"}),
        ("after", {"perplexity"}),
    ]
    assert metrics(job)["generation"] is None
    assert not (job / "output" / "predictions.jsonl").exists()


def test_a_signal_while_text_is_generated(llama: Path, data: Path, tmp_path: Path) -> None:
    spec = tiny_spec(llama, data, train={"epochs": 1}) | {"evaluate": {"metrics": ["rouge"]}}
    job = job_folder(tmp_path / "job", spec)
    ended = False

    def stopping() -> bool:
        return ended or any(e["event"] == "checkpoint" for e in read_events(job))

    assert train(job, stopping=stopping) == "stopped"
    assert of(job, "finished")[-1]["step"] == 8
    assert train(job) == "done"
    assert [e["when"] for e in of(job, "evaluated")] == ["before", "after"]


def test_a_test_set_that_is_not_there(llama: Path, data: Path, tmp_path: Path) -> None:
    from carbonsched.model.job import JobSpec

    spec = tiny_spec(llama, data) | {"evaluate": {"test": "tset.jsonl"}}
    with pytest.raises(InputError, match=r"evaluate\.test: there is no .*tset\.jsonl"):
        check_job(JobSpec.parse(spec))


def test_packed_text_is_trained_in_blocks(llama: Path, tmp_path: Path) -> None:
    words = " ".join(row["source"] for row in word_rows(40))
    (tmp_path / "train.txt").write_text("\n".join(words[i : i + 70] for i in range(0, len(words), 70)))
    (tmp_path / "dev.txt").write_text(words[:600])
    spec = tiny_spec(
        llama,
        tmp_path,
        data={"task": "causal", "pack": True, "validation_limit": 3, "train_limit": 9},
        train={"epochs": 1, "batch_size": 4},
    )
    job = job_folder(tmp_path / "job", spec)
    train(job)
    (started,) = of(job, "started")
    assert started["steps"] == 3, "nine blocks"
    assert of(job, "evaluated")[0]["samples"] == 3
    from carbonsched.model.job import JobSpec

    checked = check_job(JobSpec.parse(spec | {"evaluate": {"test": "dev.txt", "limit": 2}}))
    assert (checked.steps, checked.validation_rows, checked.test_rows) == (3, 3, 2), "blocks, not files"


# ---- early stop


def overfit(llama: Path, tmp_path: Path, **more: Any) -> dict[str, Any]:
    """Targets that nothing can foresee: held-out loss falls while the words' frequencies are learnt, then rises."""
    rows = word_rows(12)
    for row, other in zip(rows, word_rows(12, seed=9), strict=True):
        row["target"] = other["target"]
    held = word_rows(8, seed=1)
    for row, other in zip(held, word_rows(8, seed=8), strict=True):
        row["target"] = other["target"]
    write_jsonl(tmp_path / "data" / "train.jsonl", rows)
    write_jsonl(tmp_path / "data" / "validation.jsonl", held)
    settings = {"epochs": 12, "segment": 4, "lr": 1e-2, "scheduler": "constant", "early_stop_patience": 2}
    return tiny_spec(llama, tmp_path / "data", train=settings | more)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_early_stop_keeps_the_best_model(llama: Path, tmp_path: Path) -> None:
    job = job_folder(tmp_path / "job", overfit(llama, tmp_path))
    assert train(job) == "done"
    losses = {e["step"]: e["loss"] for e in of(job, "evaluated") if e["when"] == "segment"}
    best = min(losses, key=losses.__getitem__)
    assert list(losses) == list(range(4, best + 9, 4)), "two segments without a lower loss, no third"
    assert max(losses) < 36
    finished = of(job, "finished")[-1]
    assert (finished["reason"], finished["step"]) == ("done", best + 8)
    assert f"step {best} in 2 segments" in finished["early"]
    found = metrics(job)
    assert (found["best_step"], found["steps"]) == (best, best + 8)
    assert found["loss_after"]["loss"] == losses[best] < losses[best + 8]
    assert not (job / "checkpoints" / "best.safetensors").exists()
    last = weights(job / "checkpoints" / f"checkpoint-{best + 8}")
    kept = weights(job / "output")
    assert any(not torch.equal(kept[name], last[name]) for name in kept)


def test_an_interrupted_job_stops_as_early_with_the_same_model(llama: Path, tmp_path: Path) -> None:
    spec = overfit(llama, tmp_path, early_stop_patience=1)
    whole, broken = job_folder(tmp_path / "whole", spec), job_folder(tmp_path / "broken", spec)
    assert train(whole) == "done"
    looks = len([e for e in of(whole, "evaluated") if e["when"] == "segment"])
    assert looks >= 2
    for ended in (1, looks):
        # a signal right behind each checkpoint: the segment's loss is not yet measured

        def stopping(ended: int = ended) -> bool:
            return len(of(broken, "checkpoint")) >= ended

        assert train(broken, stopping=stopping) == "stopped"
    assert train(broken) == "done"

    def held(job: Path) -> dict[int, float]:
        return {e["step"]: e["loss"] for e in of(job, "evaluated") if e["when"] == "segment"}

    assert held(broken) == held(whole)
    assert of(broken, "finished")[-1]["early"] == of(whole, "finished")[-1]["early"] is not None
    one, other = weights(whole / "output"), weights(broken / "output")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_patience_that_lasts_trains_to_the_end_and_looking_changes_nothing(
    llama: Path, data: Path, tmp_path: Path
) -> None:
    plain = job_folder(tmp_path / "plain", tiny_spec(llama, data, train={"max_steps": 6, "segment": 3}))
    spec = tiny_spec(llama, data, train={"max_steps": 6, "segment": 3, "early_stop_patience": 2})
    seen = job_folder(tmp_path / "seen", spec)
    train(plain)
    train(seen)
    assert [e["when"] for e in of(plain, "evaluated")] == ["before", "after"]
    assert [e["when"] for e in of(seen, "evaluated")] == ["before", "segment", "segment", "after"]
    finished = of(seen, "finished")[-1]
    assert (finished["step"], finished["early"]) == (6, None)
    one, other = weights(plain / "output"), weights(seen / "output")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_each_segment_is_looked_at_where_asked(llama: Path, data: Path, tmp_path: Path) -> None:
    spec = tiny_spec(llama, data, train={"max_steps": 2, "segment": 1, "evaluate_each_segment": True})
    job = job_folder(tmp_path / "job", spec)
    train(job)
    assert [(e["when"], e["step"]) for e in of(job, "evaluated")] == [
        ("before", 0),
        ("segment", 1),
        ("segment", 2),
        ("after", 2),
    ]
    assert metrics(job)["best_step"] is None


def test_early_stop_needs_held_out_rows(llama: Path, tmp_path: Path) -> None:
    from carbonsched.model.job import JobSpec

    write_jsonl(tmp_path / "train.jsonl", word_rows(8))
    spec = JobSpec.parse(tiny_spec(llama, tmp_path, train={"early_stop_patience": 1}))
    with pytest.raises(InputError, match=r"train\.early_stop_patience: there are no held-out rows"):
        check_job(spec)
