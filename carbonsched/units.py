"""Converts units and reads durations: the only place where 3.6e6 or a duration's spelling stands.

Names carry their unit everywhere else (`_g`, `_j`, `_mj`, `_s`, `_w`, `_kwh`, `_g_per_kwh`).
"""

import math
import re
from typing import Final

J_PER_KWH: Final = 3_600_000.0
MJ_PER_J: Final = 1_000
G_PER_KG: Final = 1_000.0

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|min|s|m|h|d|w)", re.ASCII)


def grams(energy_j: float, g_per_kwh: float, pue: float = 1.0) -> float:
    """Emissions in gCO2e = energy × PUE × intensity (SCI, ISO/IEC 21031:2024: O = E·I)."""
    return energy_j / J_PER_KWH * pue * g_per_kwh


def seconds(text: object) -> float:
    """Seconds in a duration such as `36h`, `1h30m`, `90s` or a bare number of seconds.

    Raises ValueError with the accepted spellings.
    """
    if isinstance(text, int | float) and not isinstance(text, bool):
        try:
            return float(text)
        except OverflowError as e:
            raise ValueError("is too large a number; write a duration like 36h") from e
    if not isinstance(text, str):  # TOML has dates; pydantic wants a ValueError
        raise ValueError(  # noqa: TRY004
            f"{text} is not a duration; write it like 90s, 20m, 36h, 1h30m or 7d"
        )
    compact = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", compact, re.ASCII):
        return _held(float(compact))
    parts = _DURATION.findall(compact)
    if not parts or _DURATION.sub("", compact).strip():
        raise ValueError(f"{text!r} is not a duration; write it like 90s, 20m, 36h, 1h30m or 7d")
    return _held(sum(float(number) * _SECONDS[unit] for number, unit in parts))


def _held(value: float) -> float:
    if math.isinf(value):
        raise ValueError("is too large a number; write a duration like 36h")
    return value


def plain_number(text: str) -> float:
    """What another program's file or answer spells as a number. Raises ValueError.

    Python's own `float` also takes `0_1.4` and the digits of other scripts, which no format means: a slip would become a value.

    Example:
        >>> plain_number(" 1.4e2 ")
        140.0
    """
    if "_" in text or not text.isascii():
        raise ValueError(f"{text[:40]!r} is not a number")
    return float(text)


def split_mj(total_mj: int, shares: list[float]) -> list[int]:
    """Split integer millijoules by `shares` (any non-negative scale) without losing one: largest remainder.

    All zero shares split evenly. Raises ValueError where there is nobody to give to.
    """
    if not shares:
        raise ValueError("cannot split energy among no accounts")
    weight = sum(shares)
    if weight <= 0:
        shares, weight = [1.0] * len(shares), float(len(shares))
    exact = [total_mj * share / weight for share in shares]
    parts = [int(part // 1) for part in exact]
    order = sorted(range(len(parts)), key=lambda i: (parts[i] - exact[i], i))
    rest = total_mj - sum(parts)
    for n in range(abs(rest)):
        parts[order[n % len(order)]] += 1 if rest > 0 else -1
    return parts
