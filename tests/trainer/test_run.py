"""A job directory run end to end on a tiny model, with a fake daemon answering through control.json."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.models import job_folder, tiny_spec, tiny_t5, word_data, word_rows, write_jsonl
from support.steer import FakeDaemon, always, directive, of, read_events, train

from carbonsched.errors import InputError
from carbonsched.model.protocol import EVENTS
from trainer.commands.run import run
from trainer.job.job_dir import JobDir
from trainer.run import run_job
from trainer.training.callback import GreenTrainerCallback

torch.set_num_threads(1)


def weights(job: Path) -> dict[str, torch.Tensor]:
    return load_file(job / "output" / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_three_segments_from_spec_to_model(llama: Path, data: Path, tmp_path: Path) -> None:
    job = job_folder(tmp_path / "job", tiny_spec(llama, data))
    assert train(job) == "done"

    kinds = [event["event"] for event in read_events(job) if event["event"] != "step"]
    segment = ["segment_ready", "segment_done", "checkpoint"]
    assert kinds == ["started", "evaluated", *segment * 3, "evaluated", "finished"]
    for line in (job / "events.jsonl").read_text().splitlines():
        EVENTS.validate_json(line)
    done = of(job, "segment_done")
    assert [(d["k"], d["first_step"], d["steps"]) for d in done] == [(0, 0, 8), (1, 8, 8), (2, 16, 8)]
    for d in done:
        assert abs(d["rho_realised"] - d["rho_planned"]) <= 0.01
        assert d["rho_planned"] <= d["rho_directed"] == 0.8
        assert d["rho_realised"] == pytest.approx(d["flops"] / d["flops_full"])
    before, after = of(job, "evaluated")
    assert after["loss"] < before["loss"]
    metrics = json.loads((job / "output" / "metrics.json").read_text())
    assert [s["k"] for s in metrics["segments"]] == [0, 1, 2]
    assert metrics["loss_after"]["loss"] == after["loss"]

    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoModelForCausalLM.from_pretrained(job / "output")
    AutoTokenizer.from_pretrained(job / "output")
    assert [f.name for f in sorted((job / "checkpoints").glob("check*"))] == [
        "checkpoint-16",
        "checkpoint-24",
    ]


def test_the_frontier_offered_is_in_planned_rho(llama: Path, data: Path, tmp_path: Path) -> None:
    job = job_folder(tmp_path / "job", tiny_spec(llama, data, train={"max_steps": 8}))
    train(job)
    ready = of(job, "segment_ready")[0]
    rhos = [point["rho"] for point in ready["frontier"]]
    assert ready["importance_batches"] == 1
    assert min(rhos) >= ready["rho_floor"] - 1e-12
    assert ready["rho_floor"] > 1 / 3 + 1 / 8, "the importance batch is in it: one of eight steps"
    assert ready["flops_full"] == pytest.approx(of(job, "segment_done")[0]["flops_full"])
    assert ready["seconds_per_step"] > 0


def test_a_broken_toggle_shows_in_realised_rho(
    llama: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.training.trainable_model.train_only", lambda *args: None)
    job = job_folder(tmp_path / "job", tiny_spec(llama, data, train={"epochs": 1}))
    train(job)
    done = of(job, "segment_done")[0]
    assert abs(done["rho_realised"] - done["rho_planned"]) > 0.01
    assert done["rho_realised"] == pytest.approx(1 + 1 / 8)


@pytest.mark.parametrize("pad", ["longest", "max_length"])
def test_encoder_decoder_with_dropout(data: Path, tmp_path: Path, pad: str) -> None:
    model = tiny_t5(tmp_path / "t5")
    spec = tiny_spec(
        model,
        data,
        data={"pad": pad, "target_length": 8},
        train={"epochs": 2, "importance_batches": 2, "gradient_accumulation": 2},
    )
    job = job_folder(tmp_path / "job", spec)
    assert train(job, always(0.9)) == "done"
    for d in of(job, "segment_done"):
        assert d["rho_planned"] <= 0.9
        assert abs(d["rho_realised"] - d["rho_planned"]) <= 0.01


@pytest.mark.parametrize("choice", [{"attn": "sdpa"}, {"dtype": "bf16"}])
def test_attention_and_dtype_do_not_blur_the_count(
    llama: Path, data: Path, tmp_path: Path, choice: dict[str, str]
) -> None:
    spec = tiny_spec(llama, data, model=choice, train={"max_steps": 8, "importance_batches": 2})
    job = job_folder(tmp_path / "job", spec)
    assert train(job) == "done"
    (done,) = of(job, "segment_done")
    assert abs(done["rho_realised"] - done["rho_planned"]) <= 0.01


def test_gradient_checkpointing_is_reported_apart(llama: Path, data: Path, tmp_path: Path) -> None:
    spec = tiny_spec(llama, data, train={"epochs": 1, "gradient_checkpointing": True})
    job = job_folder(tmp_path / "job", spec)
    train(job)
    done = of(job, "segment_done")[0]
    assert abs(done["rho_realised"] - done["rho_planned"]) <= 0.01
    assert 0 < done["flops_recomputed"] < done["flops_full"] / 2


def test_no_daemon_at_all_starts_at_rho_start(llama: Path, data: Path, tmp_path: Path) -> None:
    job = job_folder(tmp_path / "job", tiny_spec(llama, data, train={"epochs": 1}))
    assert run_job(JobDir(job), lambda: False, patience_s=0.2) == "done"
    done = of(job, "segment_done")[0]
    assert done["rho_directed"] == 0.7
    assert done["directive_seq"] is None


def test_stopped_in_mid_segment_and_resumed_is_exact(llama: Path, tmp_path: Path) -> None:
    """Stopped after step 11 of 24 and resumed, the job ends with the very weights it would have had; rows grouped by length."""
    lengths = [6, 20, 9, 14] * 8
    rows = [word_rows(1, seed=k, length=length)[0] for k, length in enumerate(lengths)]
    data = tmp_path / "data"
    write_jsonl(data / "train.jsonl", rows)
    write_jsonl(data / "validation.jsonl", word_rows(8, seed=99))
    spec = tiny_spec(llama, data, data={"pad": "longest"}, train={"importance_batches": 2})
    straight = job_folder(tmp_path / "straight", spec)
    train(straight)

    job = job_folder(tmp_path / "job", spec)

    def stop_at_11(event: dict[str, Any]) -> dict[str, Any] | None:
        if event["event"] == "segment_ready":
            return directive(event["k"], 0.8, max_steps=3 if event["k"] == 1 else 100)
        if event["event"] == "waiting":
            return directive(1, action="stop", reason="budget below floor")
        return None

    assert train(job, stop_at_11) == "stopped"
    end = of(job, "finished")[-1]
    assert (end["reason"], end["step"]) == ("stopped", 11)
    assert of(job, "checkpoint")[-1]["step"] == 11

    assert train(job) == "done"
    assert of(job, "started")[-1]["first_step"] == 11
    assert [r["k"] for r in of(job, "segment_ready")] == [0, 1, 1, 2], (
        "the rest of segment 1 is asked for anew"
    )
    assert len(of(job, "evaluated")) == 2, "the loss before training is not measured again"
    assert same(weights(straight), weights(job))
    ours, theirs = of(job, "segment_done"), of(straight, "segment_done")
    for field in ("selected", "flops", "flops_full", "rho_planned", "steps"):
        assert [d[field] for d in ours] == [d[field] for d in theirs]
    assert [d["loss"] for d in ours] == pytest.approx([d["loss"] for d in theirs])
    # rows of 6, 9, 14 and 20 words, 8 a length: every batch is of one, so no epoch costs more than another
    assert {d["departure"] for d in ours} == {None}
    assert max(d["flops_full"] for d in ours) == pytest.approx(min(d["flops_full"] for d in ours))


def test_resume_at_a_segments_end_is_exact(llama: Path, data: Path, tmp_path: Path) -> None:
    spec = tiny_spec(llama, data)
    straight = job_folder(tmp_path / "straight", spec)
    train(straight)
    job = job_folder(tmp_path / "job", spec)

    def stop_second(event: dict[str, Any]) -> dict[str, Any] | None:
        if event["event"] != "segment_ready":
            return None
        return directive(1, action="stop", reason="budget") if event["k"] == 1 else directive(event["k"], 0.8)

    assert train(job, stop_second) == "stopped"
    assert of(job, "finished")[-1]["step"] == 8

    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("segment 1 was measured already")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.training.importance_pass.measure", never)
        assert train(job, stop_second) == "stopped"
    assert train(job) == "done"
    assert same(weights(straight), weights(job))
    assert [d["flops"] for d in of(job, "segment_done")] == [d["flops"] for d in of(straight, "segment_done")]


@pytest.mark.parametrize("length", [3, 8])
def test_a_signal_in_the_last_evaluation_leaves_only_that(
    llama: Path, data: Path, tmp_path: Path, length: int
) -> None:
    """All steps done and checkpointed, then a signal: the next process evaluates and saves, and trains no step more."""
    spec = tiny_spec(llama, data, train={"epochs": 2, "max_steps": 11, "segment": length})
    straight = job_folder(tmp_path / "straight", spec)
    train(straight)
    job = job_folder(tmp_path / "job", spec)
    assert train(job, stopping=lambda: any(c["step"] == 11 for c in of(job, "checkpoint"))) == "stopped"
    assert of(job, "evaluated")[-1]["when"] == "before"
    assert train(job) == "done"
    assert of(job, "started")[-1]["first_step"] == 11
    assert of(job, "evaluated")[-1]["loss"] == of(straight, "evaluated")[-1]["loss"]
    assert same(weights(straight), weights(job))


@pytest.mark.parametrize("event", ["started", "evaluated"])
def test_a_signal_before_the_first_step_is_heard(llama: Path, data: Path, tmp_path: Path, event: str) -> None:
    """In warm-up and in the first importance pass: nothing was trained, nothing is kept, the next process begins anew."""
    job = job_folder(tmp_path / "job", tiny_spec(llama, data, train={"epochs": 1}))
    assert train(job, stopping=lambda: bool(of(job, event))) == "stopped"
    assert of(job, "finished")[-1]["step"] == 0
    assert of(job, "segment_ready") == []
    assert train(job) == "done"


def test_fixed_remembers_its_measurement_across_processes(llama: Path, data: Path, tmp_path: Path) -> None:
    spec = tiny_spec(llama, data, train={"epochs": 2, "method": "fixed"})
    straight = job_folder(tmp_path / "straight", spec)
    train(straight)
    job = job_folder(tmp_path / "job", spec)
    assert train(job, stopping=lambda: bool(of(job, "checkpoint"))) == "stopped"
    assert train(job) == "done"
    assert [r["importance_batches"] for r in of(job, "segment_ready")] == [1, 0, 0], (
        "asked twice, measured once"
    )
    assert same(weights(straight), weights(job))


def test_fewer_rows_than_a_batch(llama: Path, tmp_path: Path) -> None:
    few = word_data(tmp_path / "few", train=3, validation=1)
    job = job_folder(tmp_path / "job", tiny_spec(llama, few, train={"segment": 2}))
    assert train(job, always(1.4)) == "done"
    assert [d["steps"] for d in of(job, "segment_done")] == [2, 1]
    assert all(abs(d["rho_realised"] - d["rho_planned"]) <= 0.01 for d in of(job, "segment_done"))


def test_unsealed_checkpoints_are_never_resumed(llama: Path, data: Path, tmp_path: Path) -> None:
    spec = tiny_spec(llama, data)
    job = job_folder(tmp_path / "job", spec)
    train(job)
    (job / "checkpoints" / "checkpoint-24" / "segment.json").unlink()
    assert train(job) == "done"
    assert of(job, "started")[-1]["first_step"] == 16


def test_failures_are_one_line_and_an_exit_code(
    llama: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tiny_spec(llama, tmp_path / "nowhere.jsonl")
    job = job_folder(tmp_path / "job", spec)
    assert run(job) == 2
    (failed,) = of(job, "failed")
    assert "data.name_or_path" in failed["error"]
    assert "\n" not in failed["error"]
    assert run(tmp_path / "no-job") == 2


def test_a_method_that_does_not_go_with_a_setting_is_refused(llama: Path, data: Path, tmp_path: Path) -> None:
    train = {"method": "prefix", "gradient_checkpointing": True}
    job = job_folder(tmp_path / "job", tiny_spec(llama, data, train=train))
    with pytest.raises(InputError, match=r"train.gradient_checkpointing"):
        run_job(JobDir(job), lambda: False)


def test_diverging_training_fails_in_one_line_instead_of_burning_grams(
    llama: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tiny_spec(llama, data, train={"lr": 1e30, "max_grad_norm": 0})
    job = job_folder(tmp_path / "job", spec)
    with FakeDaemon(job, always(0.8)):
        assert run(job) == 1
    assert "train.lr" in of(job, "failed")[0]["error"]
    assert "Traceback" not in capsys.readouterr().err


# ---- real processes


@contextmanager
def process_of(job: Path) -> Iterator[subprocess.Popen[bytes]]:
    code = "import sys; from pathlib import Path; from trainer.commands.run import run; sys.exit(run(Path(sys.argv[1])))"
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    with (
        (job / "log.txt").open("ab") as out,
        subprocess.Popen([sys.executable, "-c", code, str(job)], stdout=out, stderr=out, env=env) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def until(condition: Any, process: subprocess.Popen[bytes], limit_s: float = 60.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert process.poll() is None, "the trainer ended early"
        assert time.monotonic() < deadline, "the trainer took too long"
        time.sleep(0.02)


@pytest.mark.slow
def test_killed_in_mid_segment_it_resumes_and_ends_the_same(llama: Path, data: Path, tmp_path: Path) -> None:
    spec = tiny_spec(llama, data, train={"epochs": 4})
    straight = job_folder(tmp_path / "straight", spec)
    train(straight)

    job = job_folder(tmp_path / "job", spec)
    slow_down = always(0.8)

    def held(event: dict[str, Any]) -> dict[str, Any] | None:
        # the second segment gets a lease of three steps, so that the kill finds it in its midst
        if event["event"] == "segment_ready" and event["k"] == 1:
            return directive(1, 0.8, max_steps=3)
        return slow_down(event)

    with FakeDaemon(job, held), process_of(job) as process:
        until(lambda: any(w["step"] == 11 for w in of(job, "waiting")), process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(60)
    with (job / "events.jsonl").open("ab") as file:
        file.write(b'{"event": "step", "torn')
    (job / "control.json").unlink()
    with FakeDaemon(job, always(0.8)), process_of(job) as process:
        assert process.wait(240) == 0
    assert "torn" in (job / "events.jsonl").read_text()
    assert same(weights(straight), weights(job))


@pytest.mark.slow
def test_sigterm_checkpoints_and_exits_cleanly(llama: Path, data: Path, tmp_path: Path) -> None:
    job = job_folder(tmp_path / "job", tiny_spec(llama, data, train={"epochs": 4000}))
    with FakeDaemon(job, always(0.8)), process_of(job) as process:
        until(lambda: len(of(job, "segment_done")) >= 2, process)
        process.terminate()
        assert process.wait(120) == 0
    end = of(job, "finished")[-1]
    assert end["reason"] == "stopped"
    assert of(job, "checkpoint")[-1]["step"] == end["step"] > 0


def annealing(begin: int, steps: int, at: int | None = None) -> Any:
    """Every segment at 0.8; from the event of step `at`, else from segment 0 on, a cooldown of so many steps from `begin`."""
    cools = {"phase": "cooldown", "cooldown_steps": steps, "cooldown_from": begin}

    def answer(event: dict[str, Any]) -> dict[str, Any] | None:
        if event["event"] == "segment_ready":
            told = cools if at is None or event["first_step"] >= at else {"phase": "stable"}
            return directive(event["k"], 0.8, **told)
        return None

    return answer


def rates(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """Optimizer step → the learning rate it is taken at, as the optimizer itself has it."""
    found: dict[int, float] = {}

    def note(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
        found[state.global_step] = more["optimizer"].param_groups[0]["lr"]
        return begin(self, args, state, control, **more)

    begin = GreenTrainerCallback.on_step_begin
    monkeypatch.setattr(GreenTrainerCallback, "on_step_begin", note)
    return found


def test_a_budget_job_runs_on_past_its_rows_and_ends_where_its_cooldown_does(
    llama: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No number of steps is given: 8 steps are an epoch, the 27th is the last."""
    train_part = {"scheduler": "budget", "epochs": None, "warmup_steps": 4, "lr": 1e-3, "method": "full"}
    found = rates(monkeypatch)
    job = job_folder(tmp_path / "job", tiny_spec(llama, data, train=train_part))
    (job / "control.json").write_text("{}")  # a daemon is there: else the job would have no end
    with FakeDaemon(job, annealing(begin=19, steps=8, at=16)):
        assert run_job(JobDir(job), lambda: False) == "done"
    assert [found[step] / 1e-3 for step in range(4)] == pytest.approx([0, 0.25, 0.5, 0.75])
    assert {found[step] for step in range(4, 19)} == {1e-3}
    falls = [found[step] / 1e-3 for step in range(19, 27)]
    assert falls == pytest.approx([1 - (done / 9) ** 0.5 for done in range(1, 9)])
    assert max(found) == 26
    started, readies, done = of(job, "started")[0], of(job, "segment_ready"), of(job, "segment_done")
    assert started["steps"] is started["segments"] is started["most_steps"] is None
    assert [(r["segments"], r["steps_left"], r["segment_steps"]) for r in readies] == [
        (None, None, 8)
    ] * 3 + [(4, 3, None)]
    assert [(d["first_step"], d["steps"], d["phase"], d["last"]) for d in done] == [
        (0, 8, "stable", False),
        (8, 8, "stable", False),
        (16, 8, "cooldown", False),
        (24, 3, "cooldown", True),
    ]
    assert of(job, "finished")[0] | {"at": 0, "peak_memory_bytes": 0} == {
        "at": 0, "event": "finished", "step": 27, "reason": "done", "early": None, "output": "output", "peak_memory_bytes": 0,
    }  # fmt: skip
    assert [e["step"] for e in of(job, "evaluated")] == [0, 27]


@pytest.mark.slow
def test_killed_in_its_cooldown_a_budget_job_ends_along_the_same_curve(
    llama: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cooldown begins in mid-segment, with whatever step comes next; its end moves, and then kill -9 finds it."""
    spec = tiny_spec(llama, data, train={"scheduler": "budget", "epochs": 9, "method": "full"})

    def told(killed: bool) -> Any:
        def answer(event: dict[str, Any]) -> dict[str, Any] | None:
            kind, step = event["event"], event.get("step")
            if kind == "segment_ready":
                cools = {"phase": "cooldown", "cooldown_steps": 7, "cooldown_from": 3}
                return directive(event["k"], 1.0, **(cools if event["first_step"] else {"max_steps": 3}))
            if kind == "waiting" and step == 3:
                return directive(0, 1.0, max_steps=2, phase="cooldown", cooldown_steps=9)
            if kind == "waiting" and step == 5:  # earlier by two steps
                more = 2 if killed else 100
                return directive(0, 1.0, max_steps=more, phase="cooldown", cooldown_steps=7)
            return None

        return answer

    straight, job = job_folder(tmp_path / "straight", spec), job_folder(tmp_path / "job", spec)
    found = rates(monkeypatch)
    assert train(straight, told(False)) == "done"
    assert max(found) == 9
    assert found[3] == found[0], "that one was under way"
    assert found[4] / found[0] == pytest.approx(1 - (2 / 10) ** 0.5)
    assert found[9] / found[0] == pytest.approx(1 - (2 / 10 + 8 / 10 * 5 / 6) ** 0.5)
    with FakeDaemon(job, told(True)), process_of(job) as process:
        until(lambda: any(w["step"] == 7 for w in of(job, "waiting")), process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(60)
    again: dict[int, float] = dict(found)
    found.clear()
    assert train(job, told(False)) == "done"
    assert found == {step: again[step] for step in range(7, 10)}
    assert same(weights(straight), weights(job))


def test_a_budget_job_without_a_daemon_needs_a_bound(llama: Path, data: Path, tmp_path: Path) -> None:
    part = {"scheduler": "budget", "epochs": None}
    job = job_folder(tmp_path / "job", tiny_spec(llama, data, train=part))
    with pytest.raises(InputError, match="has no end without a daemon"):
        run_job(JobDir(job), lambda: False, alone=True)
    bounded = job_folder(tmp_path / "bounded", tiny_spec(llama, data, train=part | {"max_steps": 5}))
    assert run_job(JobDir(bounded), lambda: False, alone=True) == "done"
    assert [d["phase"] for d in of(bounded, "segment_done")] == ["cooldown"]


def test_a_constant_rate_is_warmed_up_to(
    llama: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The libraries' scheduler of that name passes the warm-up over."""
    part = {"scheduler": "constant", "warmup_steps": 2, "max_steps": 4, "lr": 1e-3, "method": "full"}
    found = rates(monkeypatch)
    job = job_folder(tmp_path / "job", tiny_spec(llama, data, train=part))
    assert run_job(JobDir(job), lambda: False, alone=True) == "done"
    assert [found[step] / 1e-3 for step in range(4)] == pytest.approx([0, 0.5, 1, 1])
    never = job_folder(tmp_path / "never", tiny_spec(llama, data, train=part | {"warmup_steps": 4}))
    with pytest.raises(InputError, match=r"train\.warmup_steps: 4 steps of warm-up, and the job has 4 steps"):
        run_job(JobDir(never), lambda: False, alone=True)
