"""Handles output to a closed pipe, as with `| head`: it is no error and has no message.

A command that only shows something then ends with exit code 0. One whose exit code is that of a job goes on silently: it
prints with `say`.
"""

import contextlib
import os
import select
import sys
from typing import TextIO


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


def flush(stream: TextIO) -> None:
    """Flush before the command ends: the interpreter would report its failure on stderr."""
    try:
        stream.flush()
    except (BrokenPipeError, ValueError):
        silence(stream)
