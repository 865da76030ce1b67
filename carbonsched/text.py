"""Shows figures to people: grams, energy, durations, times, shares. The only place that decides how they read.

Three readers need three widths. A terminal gets short figures (`figure`, `energy`, `duration`), a sentence such as a planner's
reason gets `grams` and `long_duration`, and a report gets four digits in the unit that suits the size (`emissions`,
`electricity`, `flops`). Documents for programs never go through here: they hold plain numbers with the unit in the name.
"""

import math
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

NOT_KNOWN: Final = "-"
"""In a terminal and in sentences."""
UNKNOWN: Final = "unknown"
"""In a report, where a dash could be read as a minus."""

_CONTROL: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""What moves a terminal's cursor, colours or direction, or ends a line there; newline and tab apart."""
_GRAMS: Final = ((1e6, "t"), (1e3, "kg"), (1.0, "g"), (1e-3, "mg"))
_WH: Final = ((1e6, "MWh"), (1e3, "kWh"), (1.0, "Wh"), (1e-3, "mWh"))
_FLOPS: Final = ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1.0, "FLOP"))


def figure(value: float | None, unit: str = "", digits: int = 3) -> str:
    """`digits` significant digits without an exponent; `-` where not known: 0.0123, 4.57, 1230."""
    if value is None:
        return NOT_KNOWN
    text = f"{value:.{digits}g}"
    if "e" in text and abs(value) < 1e15:
        text = f"{float(text):.0f}" if abs(value) >= 1 else f"{float(text):.10f}".rstrip("0").rstrip(".")
        text = "0" if text == "-0" else text
    return f"{text} {unit}" if unit else text


def about(value: float | None, estimated: bool, unit: str = "") -> str:
    """A figure marked `~` where it rests on estimated energy."""
    return f"~{figure(value, unit)}" if estimated and value is not None else figure(value, unit)


def grams(value: float | None, estimated: bool = False) -> str:
    """Grams of CO2e in a sentence: `0.0473 g`, `9.8 g`, `182.5 g`, `12345 g`; `~` where they rest on estimated energy.

    Three digits, four from 100 g on, and no whole gram is ever rounded away, so that what a job needs and what it has
    can be told apart.
    """
    if value is None or not math.isfinite(value):
        return NOT_KNOWN
    digits = 3 if abs(value) < 100 else max(4, math.floor(math.log10(abs(value))) + 1)
    return ("~" if estimated else "") + figure(value, "g", digits)


def energy(joules: float | None, estimated: bool = False) -> str:
    """In a terminal: J, kJ, MJ, or kWh from 3.6 MJ on."""
    if joules is None:
        return NOT_KNOWN
    for scale, unit in ((3.6e6, "kWh"), (1e6, "MJ"), (1e3, "kJ")):
        if joules >= scale:
            return about(joules / scale, estimated, unit)
    return about(joules, estimated, "J")


def several(n: int | None, one: str, many: str | None = None) -> str:
    """So many of a thing: `1 feed`, `2 feeds`, `- feeds` where not known. `many`: where an s does not make it."""
    return f"{NOT_KNOWN if n is None else n} {one if n == 1 else many or one + 's'}"


def source(provider: str | None, kind: str, *notes: str | None) -> str:
    """Who says a figure and of what kind it is: `neso, forecast`. A constant's provider is its kind, and is said once."""
    named = () if provider is None or kind.split(",")[0] == provider else (provider,)
    return ", ".join(part for part in (*named, kind, *notes) if part)


def rho(value: float | None) -> str:
    """A FLOPs ratio: three decimals."""
    return NOT_KNOWN if value is None else f"{value:.3f}"


def nth(k: int | None, n: int | None, over: int | None = None) -> str:
    """Segment k of n, counted from 1 for people, `3/5`; where none runs how many are `over`."""
    if k is None and (over is None or (n is None and not over)):
        return NOT_KNOWN if n is None else f"0/{n}"
    return f"{k + 1 if k is not None else over}/{n if n is not None else '?'}"


def duration(seconds: float | None) -> str:
    """In a terminal, of even width: `42s`, `3m 20s`, `2h 05m`, `3d 04h`."""
    if seconds is None:
        return NOT_KNOWN
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86_400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86_400}d {whole % 86_400 // 3600:02d}h"


def long_duration(seconds: float | None) -> str:
    """In a sentence or a report: `12.3 s`, `4 min 10 s`, `1 h 20 min`, `2 d 3 h`."""
    if seconds is None:
        return UNKNOWN
    if round(seconds, 1) < 60:
        return f"{seconds:.3g} s"
    for big, small, size, below in (("min", "s", 60, 1), ("h", "min", 3600, 60), ("d", "h", 86_400, 3600)):
        whole, rest = divmod(round(seconds / below), size // below)
        if whole * size < (3600 if big == "min" else 86_400) or big == "d":
            return f"{whole} {big} {rest} {small}" if rest else f"{whole} {big}"
    raise AssertionError("days have no end")


def moment(at: datetime | None) -> str:
    """UTC to the second: `2026-11-22 10:00:00Z`."""
    return NOT_KNOWN if at is None else at.strftime("%Y-%m-%d %H:%M:%SZ")


def number(value: float | None, digits: int = 4) -> str:
    """In a report: significant digits with thousands set apart, `1,234,567`."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(decimals, 9)}f}"


def percent(share: float | None) -> str:
    """In a report: a share of 1 as `12.3%`."""
    return UNKNOWN if share is None else f"{share * 100:.1f}%"


def emissions(grams: float | None) -> str:
    """In a report: grams of CO2e as mg, g, kg or t, `1.234 kg`."""
    return "0 g" if grams == 0 else _scaled(grams, _GRAMS)


def electricity(joules: float | None) -> str:
    """In a report: joules as Wh and its multiples, which is what a meter on the wall shows."""
    wh = None if joules is None else joules / 3600
    return "0 Wh" if wh == 0 else _scaled(wh, _WH)


def flops(value: float | None) -> str:
    """In a report: `12.35 PFLOP`."""
    return _scaled(value, _FLOPS)


def _scaled(value: float | None, scales: Sequence[tuple[float, str]]) -> str:
    if value is None:
        return UNKNOWN
    factor, unit = next(((f, u) for f, u in scales if abs(value) >= f), scales[-1])
    return f"{number(value / factor)} {unit}"


def visible(text: str) -> str:
    """Other people's text, of any number of lines, with control characters written out: it can forge nothing.

    Example:
        >>> visible("a\\x1b[2J\\nb")
        'a\\\\x1b[2J\\nb'
    """
    return _CONTROL.sub(_written, text)


def one_line(text: str) -> str:
    """The same as one line: line ends and tabs become blanks."""
    return visible(" ".join(re.split(r"[\r\n\t]+", text)))


def _written(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
