"""Says in our own words what pydantic found wrong with a value: what it must be, what it is, and how that is written.

The table is the one place of these words. What it does not name (types that none of our documents has) is told in pydantic's, with
"must" in the place of "Input should".
"""

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import ErrorDetails

from carbonsched.model.limits import Limits

_SHOWN: Final = 60
_DIGITS: Final = 100
_LONG: Final = 10**_DIGITS
_NUMBER: Final = re.compile(r"\s*[-+]?(\d[\d_]*\.?\d*|\.\d+)([eE][-+]?\d+)?\s*")
_WITH_UNIT: Final = re.compile(_NUMBER.pattern + r"[A-Za-z%/]+\s*")


@dataclass(frozen=True, slots=True)
class Kind:
    """What a value must be.

    Example:
        >>> Kind("text", "put it in quotes").noun
        'text'
    """

    noun: str
    hint: str
    """How it is written."""


_WHOLE = Kind("a whole number", "write it like 4")
_REAL = Kind("a number", "write it like 0.5")
_BOOL = Kind("true or false", "write true or false, without quotes")
_TEXT = Kind("text", "put it in quotes")
_LIST = Kind("a list, in [ ]", "put it in [ ]")
_TABLE = Kind("a table of keys", "write its keys below a heading in [ ], or as { key = value }")
_TIME = Kind("a time", "write it like 2026-11-22T10:00:00Z")
_DAY = Kind("a day", "write it like 2026-11-22")
_HOUR = Kind("a time of day", "write it like 06:30")
_SPAN = Kind("a duration", "write it like 36h")

KINDS: Final[Mapping[str, Kind]] = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), _WHOLE),
    **dict.fromkeys(("float_type", "float_parsing", "decimal_type", "decimal_parsing"), _REAL),
    "finite_number": Kind("a finite number", _REAL.hint),
    **dict.fromkeys(("bool_type", "bool_parsing"), _BOOL),
    **dict.fromkeys(("string_type", "string_sub_type", "string_unicode", "bytes_type"), _TEXT),
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "frozen_set_type", "iterable_type"), _LIST),
    **dict.fromkeys(("dict_type", "mapping_type", "model_type", "model_attributes_type"), _TABLE),
    **dict.fromkeys(
        ("datetime_type", "datetime_parsing", "datetime_from_date_parsing", "datetime_object_invalid"), _TIME
    ),
    **dict.fromkeys(("date_type", "date_parsing", "date_from_datetime_parsing"), _DAY),
    **dict.fromkeys(("time_type", "time_parsing"), _HOUR),
    **dict.fromkeys(("time_delta_type", "time_delta_parsing"), _SPAN),
}
"""Of an error that says that a value is of another type."""

NO_POINT: Final = "whole numbers are written without a point"
_BOUNDS: Final[Mapping[str, str]] = {
    "greater_than": "gt",
    "greater_than_equal": "ge",
    "less_than": "lt",
    "less_than_equal": "le",
}
_LIMITS: Final[Mapping[str, str]] = {
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be {le} or less",
    "multiple_of": "must be a multiple of {multiple_of}",
    "too_short": "must have {min_length} entries or more, has {actual_length}",
    "too_long": "must have {max_length} entries or fewer, has {actual_length}",
    "string_too_short": "must have {min_length} characters or more",
    "string_too_long": "must have {max_length} characters or fewer",
    "string_pattern_mismatch": "must match {pattern}",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
}
_PATTERNS: Final[Mapping[str, str]] = {
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$": "1 to 64 letters, digits, '.', '_' or '-', a letter or digit first",
    r"^[a-z0-9][a-z0-9-]{0,39}$": "1 to 40 small letters, digits or '-', a letter or digit first",
    r"^@?[A-Za-z_][A-Za-z0-9_.-]*\$?$": "a user's name, or a group's as '@group'",
    r"^[A-Za-z_][A-Za-z0-9_.-]*\$?$": "a user's name",
    r"^(\*|@?[A-Za-z_][A-Za-z0-9_.-]*\$?)$": "a user's name, a group's as '@group', or '*'",
    r"^(owner|[A-Za-z0-9][A-Za-z0-9._+-]*(@[A-Za-z0-9][A-Za-z0-9.-]*)?)$": "'owner', or a mail address",
    r"^[A-Z0-9]{2,5}$": "2 to 5 capital letters or digits",
    r"^[A-Za-z0-9-]{2,20}$": "2 to 20 letters, digits or '-'",
    r"^[A-Za-z0-9][A-Za-z0-9_-]{0,59}$": "1 to 60 letters, digits, '_' or '-', a letter or digit first",
    r"^[A-Za-z]{1,2}[0-9][0-9A-Za-z]?$": "the first half of a postcode, such as SW1A",
    r"^\s*[A-Za-z]{2,3}\s*$": "a country's code of 2 or 3 letters",
    r"^https?://[^\s@]+$": "an address that begins with http:// or https://, without a user in it",
}
"""What a pattern takes, in words."""
_KEYS: Final[Mapping[str, str]] = {"missing": "is missing", "extra_forbidden": "is an unknown key"}
_CHOICES: Final = ("literal_error", "enum")
_SHOULD: Final = re.compile(r"^(?:Input|Value|String|Data) should\b")


def words(errors: Sequence[ErrorDetails], limits: Limits | None = None) -> tuple[str, str]:
    """(problem, hint) of the errors of one value: those of a union tell of each branch why it is not that one. limits: what a number may
    be there, if that is known.

    Example:
        >>> words([{"type": "int_type", "loc": ("boards", 0), "msg": "", "input": True}])
        ('must be a whole number, is true', 'write a number')
    """
    # a branch that finds more than another type, or another word, is the one that was meant
    meant = [each for each in errors if each["type"] not in KINDS and each["type"] not in _CHOICES]
    if meant:
        if meant[0]["type"] in _BOUNDS and isinstance(given := meant[0].get("input"), bool):
            return f"must be a number, is {shown(given)}", "write a number"
        return _problem(meant[0], limits), ""
    kinds = [KINDS[each["type"]] for each in errors if each["type"] in KINDS]
    choices = [each["ctx"]["expected"] for each in errors if each["type"] in _CHOICES]
    nouns = dict.fromkeys([*choices, *(kind.noun for kind in kinds)])
    given = errors[0].get("input")
    return f"must be {' or '.join(nouns)}{_is(errors[0])}", _close(given, choices) or _hint(given, kinds)


_LONG_NUMBER: Final = re.compile(r"\d[\d_]{4299,}")


def syntax_words(text: str, error: ValueError) -> tuple[str, str]:
    """(problem, hint) of a file that a parser of TOML or JSON does not take.

    Example:
        >>> syntax_words("a = 1\\nb = " + "9" * 5000, ValueError("Exceeds the limit (4300 digits) for integer …"))
        ('line 2 has a number of 5000 digits', 'write fewer: 1e40 is the most that any key takes')
    """
    found = _LONG_NUMBER.search(text) if "limit" in str(error) else None
    if found is None:
        return str(error), "fix that line"
    line, digits = text.count("\n", 0, found.start()) + 1, len(found[0].replace("_", ""))
    return f"line {line} has a number of {digits} digits", "write fewer: 1e40 is the most that any key takes"


_USAGE: Final = re.compile(r"Invalid value for '([^']+)'(?: / '[^']+')*: (.*)", re.DOTALL)
_ONE_OF: Final = re.compile(r"Value error, (.+) is not one of (.+)", re.DOTALL)
_USAGES: Final[tuple[tuple[str, str], ...]] = (
    ("exceeded maximum size", "must be a whole number of fewer digits"),
    ("valid integer", "must be a whole number; write it like 4"),
    ("valid number", "must be a number; write it like 0.5"),
    ("valid path", "must be a path"),
    ("UUID", "must be a UUID"),
)


def usage_words(message: str) -> str:
    """What the option parser says of a flag's value, in our words.

    Example:
        >>> usage_words("Invalid value for '--tail' / '-n': Input should be a valid integer, unable to parse string as an integer")
        '--tail: must be a whole number; write it like 4'
    """
    found = _USAGE.fullmatch(message)
    if not found:
        return message
    flag, said = found[1], found[2]
    if choices := _ONE_OF.fullmatch(said):
        given = choices[1] if len(choices[1]) <= _SHOWN else f"{choices[1][:_SHOWN]}…"
        return f"{flag}: must be one of {choices[2]}, is {given}"
    for sign, our in _USAGES:
        if sign in said:
            return f"{flag}: {our}"
    return f"{flag}: {_SHOULD.sub('must', said)}"


def key_path(parts: Sequence[int | str]) -> str:
    """Keys and positions as documents and errors spell them.

    Example:
        >>> key_path(("feeds", 0, "country"))
        'feeds[0].country'
    """
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")


def first_words(errors: Sequence[ErrorDetails]) -> str:
    """The problem of the first value alone, for a line that names its place itself."""
    return words([each for each in errors if each["loc"] == errors[0]["loc"]])[0]


def shown(value: object) -> str | None:
    """A value as the user wrote it, or what it is; None: there is no word for it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    if isinstance(value, int) and abs(value) >= _LONG:
        return f"a number of more than {_DIGITS} digits"  # Python refuses to write thousands of them
    if isinstance(value, str | int | float):
        text = repr(value)
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    names: tuple[tuple[type | tuple[type, ...], str], ...] = ((Mapping, "a table"), ((list, tuple), "a list"))
    return next((name for kind, name in names if isinstance(value, kind)), None)


def _is(error: ErrorDetails) -> str:
    found = shown(error["input"]) if "input" in error else None
    return "" if found is None else f", is {found}"


def _problem(error: ErrorDetails, limits: Limits | None) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind in _BOUNDS and limits is not None and _fits(limits, kind, context):
        return f"must be {limits.words}{_is(error)}"
    if kind in _KEYS:
        return _KEYS[kind]
    if kind in ("too_short", "string_too_short") and context.get("min_length") == 1:
        return "must not be empty"
    if kind == "string_pattern_mismatch" and (spelt := _PATTERNS.get(context.get("pattern", ""))):
        return f"must be {spelt}{_is(error)}"
    if kind in _LIMITS:
        problem = _LIMITS[kind].format(**{name: _figure(value) for name, value in context.items()})
        return problem if "actual_length" in context else problem + _is(error)
    said = error["msg"].removeprefix("Value error, ")
    said = _SHOULD.sub("must", said).replace(" should ", " must ")
    given = shown(error["input"]) if isinstance(error.get("input"), str | int | float) else None
    found = f", is {given}" if given is not None and given.lower() not in said.lower() else ""
    return (said if said[1:2].isupper() else said[:1].lower() + said[1:]) + found


def _fits(limits: Limits, kind: str, context: Mapping[str, Any]) -> bool:
    """Whether the bound that was passed is one of these: in a union it may be that of another branch."""
    bound = context.get(_BOUNDS[kind])
    return bound == limits.low if kind.startswith("greater") else bound == limits.stated_high


def _figure(value: object) -> object:
    return f"{value:.15g}" if isinstance(value, float) else value


def _close(given: object, choices: Sequence[str]) -> str:
    """Which of the words that are taken was meant."""
    each = [word for said in choices for word in re.findall(r"'([^']*)'", said)]
    close = difflib.get_close_matches(str(given), each, n=1)
    return f"did you mean {close[0]!r}?" if close else ""


_Hint = Callable[[Any], bool]
_NUMBERS: Final[tuple[tuple[_Hint, str], ...]] = (
    (lambda given: isinstance(given, bool), "write a number"),
    (lambda given: isinstance(given, float) and math.isfinite(given), NO_POINT),
    (lambda given: isinstance(given, str) and bool(_NUMBER.fullmatch(given)), "write it without quotes"),
    (lambda given: isinstance(given, str) and bool(_WITH_UNIT.fullmatch(given)), "write it without a unit"),
)


def _hint(given: object, kinds: Sequence[Kind]) -> str:
    """How the first kind is written that the value comes near to."""
    if not kinds:
        return ""
    if kinds[0] is _LIST and isinstance(given, Mapping):
        return "write its heading in [[ ]]"
    number = next((kind for kind in kinds if kind in (_WHOLE, _REAL)), None)
    if number is not None and (near := next((hint for fits, hint in _NUMBERS if fits(given)), "")):
        return near
    return kinds[0].hint
