"""Errors name the flag that a user gave instead of the key that it sets."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import typer

from carbonsched.errors import CarbonschedError, InputError

INTENSITY_G_PER_KWH = 2000.0
"""Largest value of `--intensity`: the largest that a feed may answer (`carbonsched.feeds.plausibility`)."""

MOST_DAYS = 36_500.0
"""A century: longer than any retention."""
YEARS_10_H = 87_600.0
"""The longest duration that a job may name, in hours."""


@contextmanager
def naming_flags(flags: Mapping[str, str]) -> Iterator[None]:
    """An error about one of these keys, or a part of it, names the flag that set the value. flags: key → flag.

    Example:
        >>> with naming_flags({"carbon.budget_g": "--budget-g"}):
        ...     raise InputError("job.toml: carbon.budget_g", "must be above 0, is -3")
        Traceback (most recent call last):
        carbonsched.errors.InputError: --budget-g: must be above 0, is -3
    """
    try:
        yield
    except CarbonschedError as e:
        # the longest first: `labels` must not hide `labels.project`
        for field in sorted(flags, key=len, reverse=True):
            found = re.match(rf"(?:\S+: )?{re.escape(field)}(?:\.([^:]*)|\[\d+\])?: ", str(e))
            if found:
                part = f" {found[1]}" if found[1] else ""
                e.args = (f"{flags[field]}{part}: {str(e)[found.end() :]}",)
                break
        raise


def between(
    low: float, high: float, unit: str = "", *, above: bool = False
) -> Callable[[typer.CallbackParam, Any], Any]:
    """A callback of a flag with a number, or with several, that refuses one out of its range, in the flag's name. above: `low` itself is
    refused, too."""

    def check(param: typer.CallbackParam, value: Any) -> Any:
        for each in value if isinstance(value, list | tuple) else [value]:
            if each is not None and not ((low < each if above else low <= each) and each <= high):
                raise InputError(param.opts[0], _problem(each, low, high, unit, above), "")
        return value

    return check


def _problem(given: float, low: float, high: float, unit: str, above: bool) -> str:
    from carbonsched.model.error_words import shown  # not for --help: pydantic takes a quarter of a second
    from carbonsched.model.limits import Limits

    least = Limits(low, above, None if math.isinf(high) else high).words
    found = f"{given:.15g}" if isinstance(given, float) else shown(given)
    return f"must be {least}{f' {unit}' if unit else ''}, is {found}"
