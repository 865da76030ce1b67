"""A lock that a command of `carbonsched run` and its kin hold while any of them lives, for a daemon that may not look into their /proc.

The daemon makes the file in the job's folder, which lets its submitter in and nobody else. Who runs the command takes a shared lock
of it and hands it on as an open file; the kernel lets go of it with the last of them, killed or not. So a daemon that was restarted
asks the kernel again, and nobody can keep another's run alive.
"""

import errno
import fcntl
import os
from pathlib import Path

NAME = "alive.lock"
_FROM_FD = 100
"""Low numbers are what shell scripts use for files of their own."""


def make(job_dir: Path) -> None:
    """A file that nobody holds yet. Raises OSError."""
    (job_dir / NAME).touch(mode=0o644)


def held(job_dir: Path) -> bool:
    """Whether somebody holds it; False where it is gone. Raises OSError where that cannot be told."""
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
    """Hold it until the descriptor that comes back is closed, here and wherever it is inherited. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)  # waits where the daemon is just looking
        try:
            return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FROM_FD)
        except OSError:  # few descriptors are allowed
            kept, fd = fd, -1
            return kept
    finally:
        if fd >= 0:
            os.close(fd)
