"""Resets what a helper had locked when that is killed: a process that waits for the helper's end of a pipe to close.

It holds no lock, talks to nobody and opens the driver only when it has something to do. Where a successor has already
taken the helper's place, that has reset everything itself.
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
"""How often a driver that refuses, or a lock that is still held, is tried again."""


def start_guard(file: Path) -> subprocess.Popen[bytes]:
    """A guard of this process; it is told that all is well by the pipe that stays open."""
    return subprocess.Popen(
        [sys.executable, "-m", "carbonsched.clocks", "guard", "--locked", str(file)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )


def guard(file: Path) -> int:
    """Wait for the helper's end, then reset what it has left. Returns the exit code."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(
            number, signal.SIG_IGN
        )  # whoever ends us ends the helper, too: then there is work to do
    while os.read(0, 1024):
        pass
    return reset_all(file)


def reset_all(file: Path) -> int:
    """Reset what the file names, unless a helper is there, which does so itself."""
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
    """The lock that says who minds the file, until it is closed or its process ends; None: somebody else does."""
    lock = file.with_name(f"{file.name}.lock").open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock
