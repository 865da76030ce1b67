"""A lock that a command of `carbonsched run` and its descendants hold while any of them lives.

It is for a daemon that may not look into their /proc. The daemon creates the file in the job's folder, to which only the submitter has
access. The starter of the command takes a shared lock and passes it on as an open file; the kernel releases it with the last process,
killed or not. So a restarted daemon just checks the lock again, and nobody can keep another user's run alive.
"""

import errno
import fcntl
import os
from pathlib import Path

NAME = "alive.lock"
_FROM_FD = 100
"""Shell scripts use low descriptor numbers for their own files."""


def make(job_dir: Path) -> None:
    """Create the file, unlocked. Raises OSError."""
    (job_dir / NAME).touch(mode=0o644)


def held(job_dir: Path) -> bool:
    """Whether somebody holds it; False if it is missing. Raises OSError if that cannot be determined."""
    try:
        fd = os.open(job_dir / NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        if e.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return True
        raise
    finally:
        os.close(fd)
    return False


def hold(path: str) -> int:
    """Hold it until the returned descriptor is closed, here and wherever it is inherited. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)  # blocks while the daemon checks the lock
        try:
            return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FROM_FD)
        except OSError:  # the limit of descriptors is low
            kept, fd = fd, -1
            return kept
    finally:
        if fd >= 0:
            os.close(fd)
