"""Asks what may hang, a board's driver, and waits a moment for it: who holds the supervisor's lock does not wait with it."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

PATIENCE_S: Final = 0.02
"""A driver that works answers within a few milliseconds."""
FRESH_S: Final = 10.0
"""An answer that came late is one to the next question about the same, if that is put so soon."""

T = TypeVar("T")


class CallTimeoutError(Exception):
    """It has not answered yet.

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
    """One question at a time about each thing; while one is open no other is put about it.

    Example:
        >>> BoundedCalls(patience_s=10.0).ask("GPU-1", lambda: 4711)
        4711
    """

    patience_s: float = PATIENCE_S
    _open: dict[str, _Question] = field(default_factory=dict)

    def ask(self, about: str, question: Callable[[], T]) -> T:
        """The answer, or what the question raises. Raises LateError where it is not there in time; it is kept for the next."""
        put = self._open.pop(about, None)
        if put is None or (not put.thread.is_alive() and time.monotonic() - put.put_s > FRESH_S):
            try:
                put = _Question(about, question)
            except RuntimeError as e:  # no thread is left on this box to ask it with
                raise CallTimeoutError(about) from e
            put.thread.join(self.patience_s)
        if put.thread.is_alive():
            self._open[about] = put
            raise CallTimeoutError(about)
        if put.error is not None:
            raise put.error
        answer: T = put.answer
        return answer
