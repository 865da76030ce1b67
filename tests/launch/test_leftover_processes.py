"""What a command left running is found by its mark, told, and waited for by a process that holds the lock meanwhile."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from support.processes import until

from carbonsched.launch import leftover_processes, liveness_lock


def test_marked_processes_are_found_told_and_waited_for(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert leftover_processes.processes(folder) == []
    env = os.environ | {leftover_processes.MARK: folder}
    left = [subprocess.Popen(["sleep", "60"], env=env, start_new_session=True) for _ in range(2)]
    other = subprocess.Popen(["sleep", "60"], env=os.environ | {leftover_processes.MARK: f"{folder}/other"})
    try:
        until(lambda: sorted(leftover_processes.processes(folder)) == sorted(each.pid for each in left))
        liveness_lock.make(tmp_path)
        lock = liveness_lock.hold(str(tmp_path / liveness_lock.NAME))
        argv = [sys.executable, "-I", "-S", leftover_processes.__file__, str(lock), folder]
        keeper = subprocess.Popen(argv, pass_fds=(lock,))
        os.close(lock)
        assert liveness_lock.held(tmp_path)
        leftover_processes.send_signal(folder, signal.SIGTERM)
        assert [each.wait(60) for each in left] == [-signal.SIGTERM] * 2
        assert keeper.wait(60) == 0
        assert not liveness_lock.held(tmp_path)
        assert other.poll() is None
    finally:
        for process in (*left, other):
            process.kill()
            process.wait()


def test_a_process_amid_an_exec_is_still_seen(tmp_path: Path) -> None:
    """The kernel shows no environment from the old program's end to the new one's begin."""
    again = tmp_path / "again.py"
    again.write_text(
        "import os, sys\nleft = int(sys.argv[1])\n"
        "left and os.execv(sys.executable, [sys.executable, '-I', '-S', __file__, str(left - 1)])\n"
    )
    env = os.environ | {leftover_processes.MARK: str(tmp_path)}
    mark = f"{leftover_processes.MARK}={tmp_path}".encode()
    process = subprocess.Popen([sys.executable, "-I", "-S", again, "100"], env=env)
    asked = missed = 0
    while process.poll() is None:
        with contextlib.suppress(OSError):
            seen = mark in leftover_processes.environment(process.pid)
            over = process.poll() is not None
            asked, missed = asked + 1, missed + (not seen and not over)
    assert process.wait() == 0
    assert asked > 100
    assert missed == 0


def test_a_process_without_an_environment_is_not_waited_for_as_one_amid_an_exec() -> None:
    process = subprocess.Popen(["sleep", "60"], env={})
    try:
        until(lambda: Path(f"/proc/{process.pid}/cmdline").read_bytes().startswith(b"sleep"))
        begun = time.monotonic()
        assert leftover_processes.environment(process.pid) == []
        assert time.monotonic() - begun < leftover_processes._AMID_EXEC_S
    finally:
        process.kill()
        process.wait()
