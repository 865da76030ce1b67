"""Runs the real `carbonsched` command in the test's own process."""

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carbonsched.cli import main


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def doc(self) -> Any:
        """stdout as the one JSON document it must be."""
        return json.loads(self.out)


def cli(*argv: object, socket: Path | None = None) -> Ran:
    """`carbonsched ARGV…` in this process, as from a pipe."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8", newline=""), io.StringIO()
    words = [str(word) for word in argv]
    if socket is not None:
        words += ["--socket", str(socket)]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    out.flush()
    raw = out.buffer
    assert isinstance(raw, io.BytesIO)
    return Ran(code, raw.getvalue().decode(), err.getvalue())
