"""How answers reach a person or a script: JSON on stdout, tables and figures that fit a terminal."""

import json
import os
import sys
from datetime import datetime
from typing import TYPE_CHECKING

from carbonsched.model.base import Doc

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PIPE_COLUMNS = 160
"""Where nobody watches nothing needs to be folded to a screen."""
NONE = "-"
LEGEND = "~ estimated, not metered   - not known"


def emit(doc: Doc) -> None:
    """The one JSON document of `--json`."""
    print(json.dumps(doc.dump(), indent=2))


def console(*, stderr: bool = False) -> "Console":
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPE_COLUMNS
    return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


def table(*columns: str, right: tuple[str, ...] = (), wrap: tuple[str, ...] = ()) -> "Table":
    """A borderless table; only the columns in `wrap` may be folded, `right` holds numbers."""
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


def figure(value: float | None, unit: str = "", digits: int = 3) -> str:
    """`digits` significant digits without an exponent; `-` where not known: 0.0123, 4.57, 1234."""
    if value is None:
        return NONE
    text = f"{value:.{digits}g}"
    if "e" in text and abs(value) < 1e15:
        text = f"{float(text):.0f}" if abs(value) >= 1 else f"{float(text):.10f}".rstrip("0").rstrip(".")
        text = "0" if text == "-0" else text
    return f"{text} {unit}" if unit else text


def about(value: float | None, estimated: bool, unit: str = "") -> str:
    """A figure marked `~` where it rests on estimated energy."""
    return f"~{figure(value, unit)}" if estimated and value is not None else figure(value, unit)


def energy(joules: float | None, estimated: bool = False) -> str:
    """In the unit a person reads: J, kJ, MJ or kWh from 3.6 MJ on."""
    if joules is None:
        return NONE
    for scale, unit in ((3.6e6, "kWh"), (1e6, "MJ"), (1e3, "kJ")):
        if joules >= scale:
            return about(joules / scale, estimated, unit)
    return about(joules, estimated, "J")


def rho(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"


def duration(seconds: float | None) -> str:
    """`42s`, `3m 20s`, `2h 05m`, `3d 04h`."""
    if seconds is None:
        return NONE
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86_400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86_400}d {whole % 86_400 // 3600:02d}h"


def moment(at: datetime | None) -> str:
    """UTC to the second, as the documents write it."""
    return NONE if at is None else at.strftime("%Y-%m-%d %H:%M:%SZ")


def nth(k: int | None, n: int | None) -> str:
    """Segment k of n, counted from 1 for people."""
    if k is None:
        return NONE if n is None else f"0/{n}"
    return f"{k + 1}/{n if n is not None else '?'}"
