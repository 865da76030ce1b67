"""What becomes of output that nobody reads any more, as behind `| head`: no error, and no word of it.

A command that only shows something ends then, with exit code 0. One whose exit code tells how a job ended goes on in silence: it
prints by `say`.
"""

import contextlib
import os
import select
import sys
from typing import TextIO


def say(text: str, *, stderr: bool = False) -> None:
    """Print a line; where nobody reads it any more, this and all that follows goes nowhere."""
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
    """What is still in its buffer, and all that is written from now on, goes nowhere."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def flush(stream: TextIO) -> None:
    """Before the command ends: what the interpreter would fail at, it tells on stderr."""
    try:
        stream.flush()
    except (BrokenPipeError, ValueError):
        silence(stream)
