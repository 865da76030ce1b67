"""The scripts for others' own Trainers: few lines are added, and what is realised is what was planned."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.steer import FakeDaemon, always, of

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = ["trainer_script", "seq2seq_script", "sft_script"]
LINE = re.compile(r"segment (\d+): \d+ steps, (\d+) tensors, rho planned ([\d.]+), realised ([\d.]+), loss")


def run(script: str, out: Path, **environment: str) -> list[tuple[int, int, float, float]]:
    """(segment, tensors, planned, realised) of every segment that the script tells of."""
    if script == "sft_script":
        pytest.importorskip("trl", reason="TRL is not installed")
    command = [sys.executable, str(EXAMPLES / f"{script}.py"), "--out", str(out), "--rows", "16"]
    root = str(EXAMPLES.parent)
    quiet = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "PYTHONPATH": root}
    ran = subprocess.run(
        command, env={**os.environ, **quiet, **environment}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return [(int(k), int(n), float(p), float(r)) for k, n, p, r in LINE.findall(ran.stdout)]


@pytest.mark.parametrize("script", SCRIPTS)
def test_under_five_lines_are_added(script: str) -> None:
    text = (EXAMPLES / f"{script}.py").read_text(encoding="utf-8")
    added = [line for line in text.splitlines() if line.endswith("# added")]
    assert len(added) < 5
    assert all("Green" in line or "green" in line for line in added)
    rest = "\n".join(line for line in text.splitlines() if line not in added and "show(" not in line)
    assert "green" not in rest.split('"""')[2].lower().replace("greentrainercallback", "")


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_alone_it_trains_at_a_constant_rho(script: str, tmp_path: Path) -> None:
    ran = run(script, tmp_path / "out")
    assert [k for k, *_ in ran] == [0, 1]
    for _, tensors, planned, realised in ran:
        # four steps an epoch: of ρ 0.7 the importance batch leaves less than the floor, which is said and used
        assert tensors >= 1
        assert realised == pytest.approx(planned, abs=0.01)
    assert (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_under_a_daemon_it_obeys(script: str, tmp_path: Path) -> None:
    """The environment alone tells it of the job directory, as it does for whatever the daemon starts."""
    job = tmp_path / "job"
    job.mkdir()
    with FakeDaemon(job, always(0.95)):
        ran = run(script, tmp_path / "out", CARBONSCHED_JOB_DIR=str(job))
    assert len(ran) == 2
    done = of(job, "segment_done")
    assert [d["rho_directed"] for d in done] == [0.95, 0.95]
    assert [d["directive_seq"] for d in done] == [1, 2]
    for (_, _, planned, realised), event in zip(ran, done, strict=True):
        assert realised == pytest.approx(planned, abs=0.01)
        assert realised == pytest.approx(event["rho_realised"], abs=1e-4)
