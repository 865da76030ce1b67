"""Calls into drivers that may hang, with a short timeout, so that the caller (which holds the supervisor's lock) never waits long."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

PATIENCE_S: Final = 0.02
"""Timeout in seconds. A working driver answers within a few milliseconds."""
FRESH_S: Final = 10.0
"""A late result is used for the next call with the same key if that comes within so many seconds."""

T = TypeVar("T")


class CallTimeoutError(Exception):
    """The call has not returned within the timeout.

    Example:
        >>> str(CallTimeoutError("GPU-1"))
        'GPU-1'
    """


class _Question:
    def __init__(self, about: str, question: Callable[[], Any]) -> None:
        self.answer: Any = None
        self.error: Exception | None = None
        self.put_s = time.monotonic()
        self._question = question
        self.thread = threading.Thread(target=self._put, name=f"ask {about}", daemon=True)
        self.thread.start()

    def _put(self) -> None:
        try:
            self.answer = self._question()
        except Exception as e:
            self.error = e


@dataclass(slots=True)
class BoundedCalls:
    """Runs at most one call per key at a time; while one is pending, no second call with that key starts.

    Example:
        >>> BoundedCalls(patience_s=10.0).ask("GPU-1", lambda: 4711)
        4711
    """

    patience_s: float = PATIENCE_S
    _open: dict[str, _Question] = field(default_factory=dict)

    def ask(self, about: str, question: Callable[[], T]) -> T:
        """Return the result of `question`, or raise what it raises. Raises CallTimeoutError if it is late; the result is then kept for the
        next call."""
        put = self._open.pop(about, None)
        if put is None or (not put.thread.is_alive() and time.monotonic() - put.put_s > FRESH_S):
            try:
                put = _Question(about, question)
            except RuntimeError as e:  # the box has no thread left to run it in
                raise CallTimeoutError(about) from e
            put.thread.join(self.patience_s)
        if put.thread.is_alive():
            self._open[about] = put
            raise CallTimeoutError(about)
        if put.error is not None:
            raise put.error
        answer: T = put.answer
        return answer
