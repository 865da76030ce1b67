"""SIGTERM at whatever moment: a real process ends behind a checkpoint, and the next one makes the same run of it."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.models import job_folder, tiny_llama, tiny_spec, word_data
from support.processes import until
from support.steer import FakeDaemon, directive, of

CODE = "import sys; from pathlib import Path; from trainer.commands.run import run; sys.exit(run(Path(sys.argv[1])))"


def go_on(job: Path, until: str | None = None) -> int:
    """One process of the job, SIGTERM as soon as it says `until`; returns the optimizer step it ended at."""
    (job / "control.json").unlink(missing_ok=True)
    running: list[int] = []

    def answer(event: dict[str, Any]) -> dict[str, Any] | None:
        if running and event["event"] == until:
            os.kill(running.pop(), signal.SIGTERM)
        return directive(event["k"], 0.8) if event["event"] == "segment_ready" else None

    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "CUDA_VISIBLE_DEVICES": ""}
    with (
        FakeDaemon(job, answer),
        (job / "log.txt").open("ab") as out,
        subprocess.Popen([sys.executable, "-c", CODE, str(job)], stdout=out, stderr=out, env=env) as process,
    ):
        running.append(process.pid)
        try:
            assert process.wait(120) == 0, (job / "log.txt").read_text()[-3000:]
        finally:
            process.kill()
    end = of(job, "finished")[-1]
    assert end["reason"] == ("done" if until is None else "stopped")
    return int(end["step"])


@pytest.mark.parametrize("when", ["it began", "it imports torch"])
def test_sigterm_before_it_has_begun_ends_it_at_once(tmp_path: Path, when: str) -> None:
    spec = tiny_spec(tiny_llama(tmp_path / "llama"), word_data(tmp_path / "data"))
    job = job_folder(tmp_path / "job", spec)
    argv = [sys.executable, "-m", "trainer", "run", str(job)]
    with (job / "log.txt").open("ab") as out, subprocess.Popen(argv, stdout=out, stderr=out) as process:
        proc = Path(f"/proc/{process.pid}")

        def handles() -> bool:
            caught = next(line for line in (proc / "status").read_text().splitlines() if "SigCgt" in line)
            return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)

        try:
            until(handles if when == "it began" else lambda: "libtorch" in (proc / "maps").read_text(), 120)
            process.send_signal(signal.SIGTERM)
            assert process.wait(120) == 0, (job / "log.txt").read_text()[-3000:]
        finally:
            process.kill()
    assert of(job, "started") == [], "nobody waited for what it would have loaded"
    assert [(end["reason"], end["step"]) for end in of(job, "finished")] == [("stopped", 0)]
    assert "Traceback" not in (job / "log.txt").read_text()


@pytest.mark.slow
def test_sigterm_in_evaluation_importance_warm_up_and_mid_segment(tmp_path: Path) -> None:
    model, data = tiny_llama(tmp_path / "llama"), word_data(tmp_path / "data", train=64)
    train = {"epochs": 2, "importance_batches": 8, "warmup_steps": 8, "stale_state": "drop"}
    spec = tiny_spec(model, data, train=train)
    straight, job = job_folder(tmp_path / "straight", spec), job_folder(tmp_path / "job", spec)
    assert go_on(straight) == 32
    assert go_on(job, "started") == 0, "in the evaluation before"
    assert of(job, "evaluated") == []
    assert go_on(job, "evaluated") == 0, "in the first importance pass"
    assert of(job, "segment_ready") == []
    assert 0 < go_on(job, "step") < 16, "in mid-segment, the learning rate still rising"
    assert go_on(job, "segment_done") == 16, "in the second importance pass"
    assert 16 < go_on(job, "step") < 32
    assert go_on(job) == 32

    ours, theirs = (load_file(j / "output" / "model.safetensors") for j in (job, straight))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    for one, other in zip(of(job, "segment_done"), of(straight, "segment_done"), strict=True):
        for field in ("selected", "flops", "flops_full", "rho_planned", "steps"):
            assert one[field] == other[field]
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-12)
    # the loss before was measured by two processes: no checkpoint remembered it
    ours, theirs = ({e["when"]: e["loss"] for e in of(j, "evaluated")} for j in (job, straight))
    assert ours == theirs
