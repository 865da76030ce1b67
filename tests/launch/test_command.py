"""Real processes that somebody else started: known again, followed to their last child, and ended."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes import ended, gone, until

from carbonsched.errors import InputError
from carbonsched.launch.leftover_processes import MARK
from carbonsched.launch.local import LocalLauncher
from carbonsched.model.job import Owner
from carbonsched.model.protocol import ExitRecord

ME = Owner(uid=os.getuid(), gid=os.getgid(), user="me", pid=os.getpid())


def start(job_dir: Path, script: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sh", "-c", script], env=os.environ | {MARK: str(job_dir)})


def test_it_runs_until_the_last_of_its_processes_has_ended(launcher: LocalLauncher, job_dir: Path) -> None:
    pid_file = job_dir / "pid"
    child = start(
        job_dir,
        f"setsid sleep 60 & echo $! >{pid_file}; until [ -e {job_dir}/go ]; do sleep 0.02; done; exit 3",
    )
    run = launcher.adopt(job_dir, child.pid, ("sh",), ME)
    assert (run.pid, run.held) == (child.pid, False)
    (job_dir / "go").touch()
    assert child.wait() == 3
    launcher.note_exit(job_dir, ExitRecord(code=3, signal=None, at="2026-11-22T10:00:00Z"))
    launcher.note_exit(job_dir, ExitRecord(code=0, signal=None, at="2026-11-22T11:00:00Z"))
    left = int(pid_file.read_text())
    assert (launcher.poll(job_dir).state, launcher.remaining(job_dir)) == ("running", 1)
    again = LocalLauncher().poll(job_dir).run
    assert again is not None
    assert again.identity == run.identity, "and another daemon knows it again"
    os.kill(left, 9)
    until(lambda: ended(launcher, job_dir))
    polled = launcher.poll(job_dir)
    assert polled.exit is not None
    assert (polled.state, polled.exit.code) == ("exited", 3), "what was said first stands"


def test_all_of_it_is_told_to_end_and_what_does_not_is_killed(launcher: LocalLauncher, job_dir: Path) -> None:
    child = start(job_dir, f"trap '' TERM; sleep 60 & echo $! >{job_dir}/pid; wait; wait; sleep 60")
    launcher.adopt(job_dir, child.pid, ("sh",), ME)
    until(lambda: (job_dir / "pid").exists() and (job_dir / "pid").read_text().strip() != "")
    launcher.terminate(job_dir)
    assert child.poll() is None
    launcher.kill(job_dir)
    assert child.wait(10) == -9
    assert gone(int((job_dir / "pid").read_text()))
    assert (launcher.poll(job_dir).state, launcher.remaining(job_dir)) == ("lost", 0), "nobody said how"


@pytest.mark.parametrize("pid", [1, os.getppid(), 2**22 - 1])
def test_a_process_that_the_asker_did_not_start_is_refused(
    launcher: LocalLauncher, job_dir: Path, pid: int
) -> None:
    with pytest.raises(InputError, match=f"pid: {pid} is no process of yours here"):
        launcher.adopt(job_dir, pid, ("x",), ME)
    assert not (job_dir / "run.json").exists()


def test_another_users_process_is_refused(launcher: LocalLauncher, job_dir: Path) -> None:
    stranger = Owner(uid=os.getuid() + 4711, gid=1, user="eve")
    with pytest.raises(InputError, match="no process of yours"):
        launcher.adopt(job_dir, os.getpid(), (sys.executable,), stranger)
