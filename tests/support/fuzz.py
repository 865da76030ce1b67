"""Inputs that nobody wrote, for the tests marked `fuzz`: documents of ours with some bytes or values changed.

The suite tries 200 inputs of each kind. `CARBONSCHED_FUZZ=N` makes it N, `make fuzz` about a million in all; how many were tried
is said at the end of such a run.
"""

import copy
import json
import math
import os
import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from carbonsched.errors import InputError

_T = TypeVar("_T")

INPUTS = int(os.environ.get("CARBONSCHED_FUZZ", "200"))
"""Of each kind."""
EACH = 10
"""Inputs made of one example: drawing takes longer than reading."""

FUZZ = settings(
    max_examples=-(-INPUTS // EACH),
    deadline=None,
    phases=[Phase.generate],  # what fails is small as it is, and shrinking takes minutes
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)

NASTY_TEXTS = (
    "",
    '"',
    "'''",
    "\\",
    "\\ud83d",
    "\ud83d",
    "\x00",
    "\x1b[2J",
    "\n",
    "\r",
    "\x0b",
    "\x85",
    "\u2028",
    "\ufeff",
    ",",
    ",,",
    "[",
    "[[",
    "{",
    "}",
    "=",
    "#",
    "nan",
    "-inf",
    "1e999",
    "-1",
    "9" * 400,
    "9" * 5000,
    "[" * 3000,
    '{"a":' * 3000,
    "a = " + "[" * 3000,
    "true",
    "null",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "2026-01-01T00:00:00",
    "10:00-09:00",
    "9" * 400 + "h",
    "~no-such-user/x",
    "x" * 300,
    "x/" * 3000,
    "../..",
    "\u0661\u0662",
    "\U0001f600",
)
NASTY_BYTES = (b"\xff", b"\xed\xa0\xbd", b"\xc3", b"\x80", b"\xef\xbb\xbf", b"PAR1")

_PUT = st.sampled_from([text.encode("utf-8", "surrogatepass") for text in NASTY_TEXTS] + list(NASTY_BYTES))
EDITS = st.lists(
    st.tuples(st.integers(0, 4000), st.sampled_from([0, 0, 1, 2, 8, 60]), _PUT | st.binary(max_size=2)),
    min_size=EACH,
    max_size=EACH,
)
"""(at, bytes taken out there, bytes put in)."""

VALUE = (
    st.sampled_from(
        [
            *NASTY_TEXTS,
            None,
            True,
            False,
            0,
            -1,
            2**31,
            2**53 + 1,
            10**30,
            10**400,
            -(10**400),
            0.5,
            5e-324,
            1.7e308,
            -1.7e308,
            math.inf,
            -math.inf,
            math.nan,
            [],
            {},
            [[]],
            {"": 0},
            {"\ud83d": "\ud83d"},
        ]
    )
    | st.integers(-3, 100)
    | st.floats()
    | st.text(max_size=4)
)
CHANGES = st.lists(
    st.tuples(st.integers(0, 200), VALUE, st.sampled_from(["put", "put", "put", "add", "drop"])),
    min_size=EACH,
    max_size=EACH,
)
"""(which value of the document, another, what to do with it)."""


def damaged(document: bytes, edits: Sequence[tuple[int, int, bytes]]) -> Iterator[bytes]:
    """`document` with one to three edits, as many variants as there are edits."""
    for last in range(len(edits)):
        data = document
        for at, out, put in edits[max(last - 2, 0) : last + 1]:
            here = at % (len(data) + 1)
            data = data[:here] + put + data[here + out :]
        yield data


def changed(document: dict[str, Any], changes: Sequence[tuple[int, Any, str]]) -> Iterator[dict[str, Any]]:
    """`document` with one or two values replaced, added or dropped, as many variants as there are changes."""
    for last in range(len(changes)):
        found = copy.deepcopy(document)
        for which, drawn, how in changes[max(last - 1, 0) : last + 1]:
            value = copy.deepcopy(drawn)  # a list or dict put in twice would hold itself
            places = list(_places(found))
            if not places:
                continue
            holder, key = places[which % len(places)]
            if how == "drop":
                del holder[key]
            elif how == "add" and isinstance(holder, dict):
                holder[value if isinstance(value, str) else "more"] = value
            else:
                holder[key] = value
        yield found


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every value inside."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in list(inside):
        yield value, key
        yield from _places(below)


def read_or_refuse(read: Callable[[], _T]) -> _T | None:
    """What `read` gives; None where it raises InputError, of one line that can be printed. No other exception may come."""
    try:
        return read()
    except InputError as e:
        message = str(e)
    assert message.isprintable()
    return None


_VALUES = (*NASTY_TEXTS, None, True, 0, -1, 0.5, 5e-324, 1.7e308, 10**30, 10**400, 2**63, [], {}, [[]])
_TIMES = (
    "0001-01-01T00:00:00",
    "1969-12-31T23:59:59Z",
    "2026-03-29T02:30:00",
    "2026-03-12T10:20:00+24:00",
    "9999-12-31T23:59:59.9Z",
)
_LARGE = 1e9


def mutated(data: bytes, seed: int) -> bytes:
    """`data`, of which two bytes are how it is served, with a value or a piece of its text put in another's place."""
    rng = random.Random(seed)
    head, body = data[:2], data[2:]
    if rng.random() < 0.1:
        head = rng.randbytes(2)
    for _ in range(rng.choice((1, 1, 2, 4))):
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            body = _text_changed(body, rng)
        else:
            body = _json_changed(document, rng)
    return head + body


def _json_changed(document: Any, rng: random.Random) -> bytes:
    places: list[tuple[Any, Any]] = []
    below = [document]
    while below:
        one = below.pop()
        if isinstance(one, dict | list):
            keys = list(one) if isinstance(one, dict) else range(len(one))
            places += [(one, key) for key in keys]
            below += [one[key] for key in keys]
    if not places:
        return json.dumps(rng.choice(_VALUES)).encode()
    holder, key = rng.choice(places)
    other, name = rng.choice(places)
    how = rng.random()
    if how < 0.15:
        del holder[key]
    elif how < 0.4:
        holder[key] = json.loads(json.dumps(other[name]))
    elif how < 0.5 and isinstance(holder, list):
        holder.insert(rng.randrange(len(holder) + 1), json.loads(json.dumps(other[name])))
    elif how < 0.7 and isinstance(holder[key], int | float) and abs(holder[key]) < _LARGE:
        holder[key] = holder[key] * rng.choice((-1, 0, 10, 1e6, 1e300))
    else:
        holder[key] = rng.choice(_TIMES if rng.random() < 0.3 else _VALUES)
    return json.dumps(document).encode()


def _text_changed(body: bytes, rng: random.Random) -> bytes:
    lines = body.splitlines(keepends=True) or [b""]
    words = re.split(rb"([^\w.+-]+)", body)
    how = rng.random()
    if how < 0.2:
        i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
        lines[i] = rng.choice((b"", lines[j], lines[i] + lines[j]))
        return b"".join(lines)
    digits = [at for at, byte in enumerate(body) if 48 <= byte <= 57]
    if how < 0.5 and digits:
        at = rng.choice(digits)
        return body[:at] + bytes([rng.randrange(48, 58)]) + body[at + rng.choice((0, 1, 1)) :]
    if how < 0.8:
        i, put = rng.randrange(len(words)), rng.choice((*NASTY_TEXTS, *_TIMES, "1e308", "-1", "0"))
        words[i] = rng.choice((words[rng.randrange(len(words))], put.encode("utf-8", "surrogatepass")))
        return b"".join(words)
    at = rng.randrange(len(body) + 1)
    return body[:at] + rng.choice(NASTY_BYTES) + body[at + rng.choice((0, 1, 8)) :]
