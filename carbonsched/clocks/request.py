"""Defines the requests to the helper, one JSON object per line, and reads them strictly: their sender is not trusted."""

import json
import re
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from carbonsched.errors import InputError

MOST_BYTES: Final = 512
"""Of a request's line."""
LEAST_LEASE_S: Final = 1.0
MOST_LEASE_S: Final = 60.0
_BOARD: Final = re.compile(r"GPU-[0-9A-Za-z-]{8,72}")
_KEYS: Final = {
    "levels": {"op", "board"},
    "lock": {"op", "board", "mhz", "pid", "lease_s"},
    "reset": {"op", "board"},
}


@dataclass(frozen=True, slots=True)
class Request:
    """`levels`: the clocks of a board. `lock`: at most this clock, for a process and a duration. `reset`: the board's own again.

    Example:
        >>> Request.read(b'{"op": "reset", "board": "GPU-1f2e3d4c"}').op
        'reset'
    """

    op: Literal["levels", "lock", "reset"]
    board: str
    """UUID."""
    mhz: int = 0
    pid: int = 0
    """The process that computes on the board; only it and its descendants may."""
    lease_s: float = 0.0
    """Without another `lock` the clocks are reset after this many seconds."""

    @classmethod
    def read(cls, line: bytes) -> "Request":
        """Raises InputError."""
        if len(line) > MOST_BYTES:
            raise InputError("request", f"is longer than {MOST_BYTES} bytes")
        try:
            given = json.loads(line)
        except (ValueError, RecursionError) as e:
            raise InputError("request", "is no JSON") from e
        if not isinstance(given, dict):
            raise InputError("request", "is no object")
        op = given.get("op")
        if not isinstance(op, str) or op not in _KEYS:
            raise InputError("op", "must be one of levels, lock, reset")
        keys = _KEYS[op]
        if set(given) != keys:
            raise InputError(op, f"takes the keys {', '.join(sorted(keys))}")
        board = given["board"]
        if not isinstance(board, str) or not _BOARD.fullmatch(board):
            raise InputError("board", "must be a board's UUID")
        if op == "lock":
            _whole("mhz", given["mhz"], 1, 100_000)
            _whole("pid", given["pid"], 2, 2**31 - 1)
            _number("lease_s", given["lease_s"])
        return cls(**given)

    def write(self) -> bytes:
        """The line, with its newline."""
        keys = _KEYS[self.op]
        return json.dumps({k: v for k, v in asdict(self).items() if k in keys}).encode() + b"\n"


def _whole(key: str, value: Any, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise InputError(key, f"must be a whole number from {least} to {most}")


def _number(key: str, value: Any) -> None:
    if type(value) not in (int, float) or not LEAST_LEASE_S <= value <= MOST_LEASE_S:
        raise InputError(key, f"must be a number of seconds from {LEAST_LEASE_S:g} to {MOST_LEASE_S:g}")
