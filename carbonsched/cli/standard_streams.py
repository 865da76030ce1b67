"""Handles standard streams that cannot be written: a closed pipe, as with `| head`, a full disk, and a stream that was closed before the
command began.

A closed pipe is no error and has no message: a command that only shows something then ends with exit code 0, and one whose exit code is that of
a job goes on silently (it prints with `say`). What a full disk does not take is an error of one line.
"""

import contextlib
import os
import select
import sys
from typing import TextIO


def open_missing() -> None:
    """Open /dev/null for each of the three streams that the caller has closed (`>&-`): a file opened later would otherwise take its
    number, and be written to."""
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(fd, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def say(text: str, *, stderr: bool = False) -> None:
    """Print a line; once the pipe is closed, this and all later output is dropped."""
    stream = sys.stderr if stderr else sys.stdout
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        silence(stream)


def gone(stream: TextIO) -> bool:
    """Whether the stream is a pipe whose reader has closed it."""
    try:
        fd = stream.fileno()
        poll = select.poll()
        poll.register(fd, 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):  # no file, or closed already
        return False


def silence(stream: TextIO) -> None:
    """Drop the stream's buffer and all later output."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def flush(stream: TextIO) -> OSError | None:
    """Flush before the command ends: the interpreter would report its failure on stderr. Returns why the output is lost; None: it is not,
    or nobody reads it."""
    try:
        stream.flush()
    except (BrokenPipeError, ValueError):
        silence(stream)
    except OSError as e:
        silence(stream)
        return e
    return None
