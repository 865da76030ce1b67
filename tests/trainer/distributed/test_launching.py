"""One command starts all processes of a training: it stops them with a checkpoint, says which of them died, and leaves none."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.models import job_folder, tiny_llama, tiny_spec, word_data
from support.steer import of

from carbonsched.model.job import TrainPart
from trainer.distributed.launching import children, environment, takes_several

TWO = TrainPart(parallel="ddp", processes=2)


def until(holds: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.1)


def test_only_a_process_that_torchrun_has_not_started_starts_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert takes_several(TWO)
    assert not takes_several(TrainPart())
    assert not takes_several(TrainPart(parallel="ddp"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not takes_several(TWO)


def test_ranks_share_the_cores_unless_somebody_said_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("OMP_NUM_THREADS", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert environment(TWO, 2) == {
        "OMP_NUM_THREADS": "4",
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
    }
    assert environment(TWO.model_copy(update={"threads": 3}), 2)["OMP_NUM_THREADS"] == "3"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "eth0")
    assert environment(TWO, 2) == {"GLOO_SOCKET_IFNAME": "lo"}


def test_children_are_those_that_live() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    assert child.pid in children(os.getpid())
    child.kill()
    until(lambda: child.pid not in children(os.getpid()), 60)  # a zombie is none
    child.wait()


def processes(job: Path) -> dict[int, str]:
    """pid → command line of whatever names the job's folder."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(job) in line:
                found[int(entry.name)] = line
    return found


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_two_ranks_stop_resume_and_die_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    train = {"parallel": "ddp", "processes": 2, "segment": 20, "epochs": 1000, "max_steps": 4000}
    spec = tiny_spec(tiny_llama(tmp_path / "model"), word_data(tmp_path / "data"), train=train)
    job = job_folder(tmp_path / "job", spec)

    def start() -> subprocess.Popen[bytes]:
        with (tmp_path / "log.txt").open("ab") as log:
            command = [sys.executable, "-m", "trainer", "run", str(job), "--alone"]
            env = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
            return subprocess.Popen(command, stderr=log, env=env)

    def trains(times: int) -> bool:
        assert training.poll() is None, (tmp_path / "log.txt").read_text()[-4000:]
        return len(of(job, "started")) == times and bool(of(job, "segment_done"))

    training = start()
    until(lambda: trains(1))
    ranks = [line for line in processes(job).values() if "torch.distributed.run" not in line]
    assert len(ranks) == 3, "two ranks, and the process that started them"
    training.send_signal(signal.SIGTERM)
    assert training.wait(timeout=300) == 0, (tmp_path / "log.txt").read_text()[-4000:]
    assert [event["reason"] for event in of(job, "finished")] == ["stopped"]
    assert processes(job) == {}

    training = start()
    until(lambda: trains(2))
    assert of(job, "started")[1]["first_step"] == of(job, "finished")[0]["step"] > 0
    until(lambda: len(of(job, "segment_done")) > of(job, "finished")[0]["step"] // 20 + 1)
    second = max(pid for pid in processes(job) if pid != training.pid)
    os.kill(second, signal.SIGKILL)
    assert training.wait(timeout=300) == 1
    assert "another process of this training died" in of(job, "failed")[0]["error"]
    assert processes(job) == {}

    training = start()
    until(lambda: trains(3))
    training.kill()  # nobody is left to pass it on
    training.wait()
    until(lambda: processes(job) == {})
