"""Labels are a job's words for whom it runs and why: project, cost_centre, and any key its owner likes; reports group by them."""

import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator

from carbonsched.model.base import refusal
from carbonsched.text import one_line

MOST_LABELS: Final = 32
LONGEST_VALUE: Final = 200
KEY: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?")
"""As docker and Kubernetes have them; a key with a dot is quoted in TOML."""


def _labels(given: Any) -> Any:
    """Whole numbers become text: `cost_centre = 4711` is what people write."""
    if not isinstance(given, dict):
        raise refusal("", "is no table", 'write [labels] with lines such as project = "thesis"')
    if len(given) > MOST_LABELS:
        raise refusal("", f"has {len(given)} keys", f"keep to {MOST_LABELS}")
    return {key: _value(key, value) for key, value in given.items()}


def _value(key: Any, value: Any) -> str:
    if not isinstance(key, str) or not KEY.fullmatch(key):
        shown = one_line(str(key))[:80]
        hint = "use letters, digits, '.', '_', '-' and '/', 63 at most, a letter or digit first and last"
        raise refusal(shown, "is no key of a label", hint)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        hint = 'quote the key that has a dot: "a.b" = "…"' if isinstance(value, dict) else "quote the value"
        raise refusal(key, "is no text", hint)
    if value != value.strip() or one_line(value) != value:
        raise refusal(key, "has blanks around it or is more than one line", "write one plain line")
    if not value or len(value) > LONGEST_VALUE:
        raise refusal(key, "is empty or too long", f"give 1 to {LONGEST_VALUE} characters, or leave it out")
    return value


Labels = Annotated[dict[str, str], BeforeValidator(_labels)]
"""`[labels]`: key to value, both text."""


def fits(labels: dict[str, str], wanted: str) -> bool:
    """Whether a job of these labels is meant by `key=value`, or by `key` alone: whatever its value.

    Example:
        >>> fits({"project": "thesis"}, "project"), fits({"project": "thesis"}, "project=demo")
        (True, False)
    """
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)
