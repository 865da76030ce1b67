"""Resets the clocks of a helper that was killed: a process that waits until the helper's end of a pipe closes.

It holds no lock, communicates with nobody and opens the driver only when necessary. If a successor has already
taken the helper's place, the successor has reset everything itself.
"""

import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from carbonsched.clocks.leases import Leases, recorded

log = logging.getLogger(__name__)

_TRIES, _PAUSE_S = 100, 0.05
"""Number of tries, and the pause between them, if the driver refuses or a lock is still held."""


def start_guard(file: Path) -> subprocess.Popen[bytes]:
    """Start a guard of this process; as long as the pipe is open, the process lives."""
    return subprocess.Popen(
        [sys.executable, "-m", "carbonsched.clocks", "guard", "--locked", str(file)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )


def guard(file: Path) -> int:
    """Wait for the helper's end, then reset the boards that it left locked. Returns the exit code."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(
            number, signal.SIG_IGN
        )  # whoever ends this process also ends the helper: then the guard has work to do
    while os.read(0, 1024):
        pass
    return reset_all(file)


def reset_all(file: Path) -> int:
    """Reset the boards in the file, unless a helper is running, which does so itself."""
    from carbonsched.clocks.boards import NvmlBoards

    left: list[str] = []
    for _ in range(_TRIES):
        lock = take_place(file)
        if lock is not None:
            with lock:
                Leases(NvmlBoards(), file, time.monotonic).restore()
                if not (left := recorded(file)):
                    return 0
        time.sleep(_PAUSE_S)
    if left:
        log.error("still locked, the next helper tries again: %s", ", ".join(left))
    return 1 if left else 0


def take_place(file: Path) -> IO[bytes] | None:
    """The lock of the process in charge of the file, held until it is closed or its process ends; None: another process has it."""
    lock = file.with_name(f"{file.name}.lock").open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock
