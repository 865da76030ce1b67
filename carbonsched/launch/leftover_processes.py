"""Finds what a command of `carbonsched run` left running, and holds its `liveness_lock` until that has ended.

    python -I -S leftover_processes.py DESCRIPTOR FOLDER

A process that closed its inherited files holds no lock, but still has FOLDER in its environment. So this program, running as the command's
user, holds the lock for such processes where the daemon may not look. It uses only the standard library, as the shim does (about 10 MB),
and runs only if something is left.
"""

import contextlib
import os
import signal
import sys
import time

MARK = "CARBONSCHED_RUN_DIR"
"""Environment variable of the command and all processes it starts."""
_EVERY_S = 1.0
_AMID_EXEC_S = 1.0
"""How long an exec is waited for: a busy machine may leave a process amid it for many milliseconds."""
_EMPTY_READS, _ASK_AGAIN_S = 4, 0.001


def processes(folder: str) -> list[int]:
    """Processes of a run, as far as this process may see them."""
    return [
        int(name)
        for name in os.listdir("/proc")  # noqa: PTH208 - without pathlib, as all here
        if name.isdigit() and _marked(int(name), folder)
    ]


def send_signal(folder: str, number: signal.Signals) -> None:
    """Send a signal to all of them."""
    for pid in processes(folder):
        with contextlib.suppress(OSError):
            handle = os.pidfd_open(pid)
            try:
                # checked after opening the pidfd: the pid cannot be reused any more
                if _marked(pid, folder):
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)


def _marked(pid: int, folder: str) -> bool:
    if pid == os.getpid():
        return False
    try:
        return f"{MARK}={folder}".encode() in environment(pid)
    except OSError:
        return False


def environment(pid: int) -> list[bytes]:
    """The environment of a process. During an exec the kernel shows none for a moment, so it is read again. Raises OSError."""
    until = time.monotonic() + _AMID_EXEC_S
    empty = 0
    while time.monotonic() < until and empty < _EMPTY_READS:
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123
            found = file.read()
        if found:
            return found.split(b"\0")
        os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115 - a kernel's thread has none, nor has a process that is over
        empty += not _amid_exec(pid)
        time.sleep(_ASK_AGAIN_S)
    return []


def _amid_exec(pid: int) -> bool:
    """Whether its new program has no environment yet: field 51 of its stat, env_end (proc_pid_stat(5)), is still 0."""
    with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
        after_name = file.read().rpartition(b")")[2].split()
    return int(after_name[51 - 3]) == 0


if __name__ == "__main__":
    while processes(sys.argv[2]):
        time.sleep(_EVERY_S)
