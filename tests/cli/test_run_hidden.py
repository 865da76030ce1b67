"""`carbonsched run` where the daemon may not see the command's processes, as under its packaged unit: all processes real."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.hidden_box import HiddenBox, hidden_box
from support.metered import CONFIG
from support.processes import gone, until

from carbonsched.cli.client import RemoteError
from carbonsched.launch import command
from carbonsched.model.command import RunRequest
from carbonsched.model.job_state import JobState
from carbonsched.model.views import JobDetail

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can hide processes from another user")


@pytest.fixture(scope="module")
def box() -> Iterator[HiddenBox]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "UNLOCKED_S", 4.0)
        with hidden_box(CONFIG) as found:
            yield found


def start(box: HiddenBox, *words: str, pipe: int = subprocess.PIPE) -> "subprocess.Popen[str]":
    socket = ("--socket", str(box.root / "api.sock"))
    argv = [sys.executable, "-m", "carbonsched", "run", "--share", *socket, *words]
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True)


def total_of(process: "subprocess.Popen[str]") -> dict[str, object]:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return json.loads(out)  # type: ignore[no-any-return]


def named(box: HiddenBox, name: str) -> Callable[[], JobDetail]:
    return lambda: box.client.show(
        next(job.id for job in box.client.jobs(every=True).jobs if job.name == name)
    )


def pid_in(path: Path) -> int:
    until(lambda: path.exists() and path.read_text().strip() != "", 60)
    return int(path.read_text())


def sleeping(
    box: HiddenBox, name: str, seconds: int
) -> "tuple[subprocess.Popen[str], int, Callable[[], JobDetail]]":
    """The CLI, its command's process, and what the daemon says of it."""
    pid_file = box.root / f"{name}.pid"
    sleep = f"echo $$ >{pid_file}; exec sleep {seconds}"
    cli = start(box, "--name", name, "--", "sh", "-c", sleep, pipe=subprocess.DEVNULL)
    return cli, pid_in(pid_file), named(box, name)


def test_a_command_is_metered_from_its_start_to_its_end(box: HiddenBox) -> None:
    began = time.monotonic()
    total = total_of(start(box, "--json", "--", "sleep", "1"))
    assert (total["state"], total["exit_code"], total["remaining"]) == ("finished", 0, 0)
    assert 0.9 <= float(str(total["seconds"])) <= time.monotonic() - began
    assert total["energy_j"] == pytest.approx(100 * float(str(total["seconds"])), rel=0.1)


def test_what_it_leaves_behind_is_metered_to_its_end_whatever_it_closed(box: HiddenBox) -> None:
    pid_file = box.root / "left.pid"
    close_all = "import os; os.closerange(3, 4096); os.setsid(); os.execvp('sleep', ['sleep', '60'])"
    script = f'"{sys.executable}" -c "{close_all}" >/dev/null 2>&1 & echo $! >{pid_file}'
    total = total_of(start(box, "--json", "--name", "left", "--", "sh", "-c", script))
    pid, look = pid_in(pid_file), named(box, "left")
    assert (total["state"], total["remaining"]) == ("running", 1)
    time.sleep(command.UNLOCKED_S + 0.5)
    assert look().state is JobState.RUNNING
    os.kill(pid, signal.SIGKILL)
    until(lambda: look().state is JobState.FINISHED, 60)


def test_a_killed_cli_leaves_the_command_metered_through_restarts_of_the_daemon(box: HiddenBox) -> None:
    killed, pid, look = sleeping(box, "killed", 600)
    killed.kill()
    killed.wait(60)
    box.kill()
    box.start()
    time.sleep(command.UNLOCKED_S + 0.5)
    assert (gone(pid), look().state) == (False, JobState.RUNNING)
    spent_g = look().spent_g
    until(lambda: look().spent_g > spent_g, 60)
    os.kill(pid, signal.SIGKILL)
    until(lambda: look().state is JobState.FAILED, 60)
    assert "not there to see how" in look().reason


def test_the_cli_and_all_of_the_command_killed_end_the_metering(box: HiddenBox) -> None:
    both, pid, look = sleeping(box, "both", 60)
    both.kill()
    os.kill(pid, signal.SIGKILL)
    both.wait(60)
    until(lambda: look().state is JobState.FAILED, command.UNLOCKED_S + 60)
    assert look().energy_j < 100 * 60


def test_a_run_goes_on_while_the_daemon_is_started_again(box: HiddenBox) -> None:
    go = box.root / "go"
    running = start(
        box, "--json", "--name", "amid", "--", "sh", "-c", f"until [ -e {go} ]; do sleep 0.05; done"
    )
    until(lambda: any(job.name == "amid" for job in box.client.jobs().jobs), 60)
    box.kill()
    box.start()
    go.touch()
    assert total_of(running)["state"] == "finished"


def test_stop_ends_all_of_it_though_the_daemon_may_not(box: HiddenBox) -> None:
    pid_file = box.root / "stop.pid"
    script = f"setsid sleep 60 >/dev/null 2>&1 & echo $! >{pid_file}; wait"
    bounded = start(box, "--budget-g", "0.01", "--stop", "--name", "stop", "--", "sh", "-c", script)
    pid = pid_in(pid_file)
    _, err = bounded.communicate(timeout=120)
    assert (bounded.returncode, "its budget of 0.01 g is spent" in err) == (143, True)
    until(lambda: gone(pid), 60)
    assert named(box, "stop")().state is JobState.STOPPED


def test_another_session_s_process_is_refused(box: HiddenBox) -> None:
    other = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        for pid in (1, other.pid, 2**22 - 1):
            asked = RunRequest.parse({"name": "theirs", "command": {"argv": ["x"]}, "pid": pid})
            with pytest.raises(RemoteError, match=f"pid: {pid} is no process of yours here"):
                box.client.begin_run(asked)
    finally:
        other.kill()
        other.wait()


def test_a_lock_that_cannot_be_had_starts_nothing(box: HiddenBox) -> None:
    """As in a container that has the socket and not the state folder."""
    script = (
        "import sys; from carbonsched.launch import liveness_lock\n"
        "def refuse(path): raise FileNotFoundError(2, 'No such file or directory')\n"
        "liveness_lock.hold = refuse; from carbonsched.cli import main; sys.exit(main())"
    )
    socket, ran = ("--socket", str(box.root / "api.sock")), box.root / "ran"
    words = ["run", "--share", "--name", "apart", *socket, "--", "touch", str(ran)]
    argv = [sys.executable, "-c", script, *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "alive.lock cannot be opened: No such file or directory; by it the daemon tells" in done.stderr
    assert not ran.exists()
    assert named(box, "apart")().state is JobState.FAILED
