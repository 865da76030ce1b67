"""Starts of trainers that are under way, each in a thread of its own: a launcher may take half a minute, and no tick waits for it."""

import errno
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

GLANCE_S = 0.05
"""A tick waits so long for a start: most are through by then."""
END_S = 5.0
"""The end of the daemon waits so long for one. What is not through by then is found by the next daemon."""


@dataclass(slots=True)
class Start:
    """One start. `error` may be read once the thread has ended.

    Example:
        >>> start = Start("a-1", print)
        >>> start.thread.is_alive()
        False
    """

    job_id: str
    work: Callable[[], object]
    error: Exception | None = None
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run, name=f"start {self.job_id}", daemon=True)

    def _run(self) -> None:
        try:
            self.work()
        except Exception as e:
            self.error = e


@dataclass(slots=True)
class PendingStarts:
    """Those that nobody has dealt with yet. One tick glances at the starts that it begins for `glance_s` in all.

    Example:
        >>> starts = PendingStarts(glance_s=10.0)
        >>> starts.allow_glance()
        >>> starts.begin("a-1", lambda: None)
        >>> [start.job_id for start in starts.through()]
        ['a-1']
        >>> starts.forget("a-1")
    """

    glance_s: float = GLANCE_S
    _left_s: float = GLANCE_S
    _starts: dict[str, Start] = field(default_factory=dict)

    def allow_glance(self) -> None:
        """A tick begins."""
        self._left_s = self.glance_s

    def begin(self, job_id: str, work: Callable[[], object]) -> None:
        """Do the work in its thread, and give it a moment. It must not take the supervisor's lock."""
        start = self._starts[job_id] = Start(job_id, work)
        try:
            start.thread.start()
        except RuntimeError as e:  # the box has no more threads: that passes
            start.error = OSError(errno.EAGAIN, str(e))
            return
        began = time.monotonic()
        start.thread.join(self._left_s)
        self._left_s = max(self._left_s - (time.monotonic() - began), 0.0)

    def through(self) -> list[Start]:
        """Those that came to an end, until they are forgotten: what could not be recorded of one is tried again."""
        return [start for start in self._starts.values() if not start.thread.is_alive()]

    def forget(self, job_id: str) -> None:
        self._starts.pop(job_id, None)

    def wait(self, seconds: float = END_S) -> None:
        """For those that are under way, so long for each at most."""
        for start in tuple(self._starts.values()):
            start.thread.join(seconds)
