"""Prints results: one JSON document on stdout for a script, tables that fit a terminal for a person."""

import codecs
import io
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from carbonsched.text import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from carbonsched.model.base import Doc

PIPE_COLUMNS = 160
"""Output that is not on a terminal need not be wrapped."""
LEGEND = "~ estimated, not metered   - not known"


_IN_ASCII = {"ρ": "rho", "τ": "tau", "−": "-", "…": "...", "µ": "u", "→": "->", "·": "-", "█": "#", "░": "."}
"""Replacements of characters that the terminal's encoding lacks; `?` for all others."""


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(_IN_ASCII.get(letter, "?") for letter in missing), error.end


def suit(stream: object) -> None:
    """Let a stream with another encoding than UTF-8 (LC_ALL=C, latin-1) replace characters that it lacks, instead of failing."""
    if isinstance(stream, io.TextIOWrapper) and codecs.lookup(stream.encoding).name != "utf-8":
        codecs.register_error("carbonsched", _spell)
        stream.reconfigure(errors="carbonsched")


def emit(doc: "Doc") -> None:
    """The one JSON document of `--json`."""
    print(as_json(doc))


def as_json(doc: "Doc") -> str:
    return json.dumps(doc.dump(), indent=2)


def complain(error: Exception) -> None:
    """An error that does not end the command, as one line on stderr."""
    print("carbonsched:", visible(" ".join(str(error).split())), file=sys.stderr)


def console(*, stderr: bool = False) -> "Console":
    from rich.console import Console
    from rich.text import Text

    class Visible(Console):
        """Text of jobs, feeds and other users reaches the terminal without control characters."""

        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(visible(text), **options)

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPE_COLUMNS
    return Visible(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


def table(*columns: str, right: tuple[str, ...] = (), wrap: tuple[str, ...] = ()) -> "Table":
    """A borderless table; only the columns in `wrap` may be wrapped, `right` holds numbers."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in columns:
        made.add_column(
            name,
            justify="right" if name in right else "left",
            no_wrap=name not in wrap,
            overflow="fold" if name in wrap else "ellipsis",
        )
    return made
