"""Runs the start of each trainer in a thread of its own: a launcher may take half a minute, and no tick waits that long."""

import errno
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

TICK_WAIT_S = 0.05
"""Seconds that a tick waits for the starts it begins; most are done by then."""
END_S = 5.0
"""Seconds that an ending daemon waits for each start. The next daemon finds what is not done by then."""


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
    """The starts that have not been handled yet. One tick waits for the starts that it begins for `tick_wait_s` in all.

    Example:
        >>> starts = PendingStarts(tick_wait_s=10.0)
        >>> starts.begin_tick()
        >>> starts.begin("a-1", lambda: None)
        >>> [start.job_id for start in starts.ended()]
        ['a-1']
        >>> starts.forget("a-1")
    """

    tick_wait_s: float = TICK_WAIT_S
    _left_s: float = TICK_WAIT_S
    _starts: dict[str, Start] = field(default_factory=dict)

    def begin_tick(self) -> None:
        """A tick begins: allow it the full wait."""
        self._left_s = self.tick_wait_s

    def begin(self, job_id: str, work: Callable[[], object]) -> None:
        """Run the work in a thread, and wait a moment for it. The work must not take the supervisor's lock."""
        start = self._starts[job_id] = Start(job_id, work)
        try:
            start.thread.start()
        except RuntimeError as e:  # the box has no thread left: that passes
            start.error = OSError(errno.EAGAIN, str(e))
            return
        began = time.monotonic()
        start.thread.join(self._left_s)
        self._left_s = max(self._left_s - (time.monotonic() - began), 0.0)

    def ended(self) -> list[Start]:
        """Starts that have ended, until they are forgotten: if one cannot be recorded, that is retried."""
        return [start for start in self._starts.values() if not start.thread.is_alive()]

    def forget(self, job_id: str) -> None:
        self._starts.pop(job_id, None)

    def wait(self, seconds: float = END_S) -> None:
        """Wait for those that are running, so many seconds each at most."""
        for start in tuple(self._starts.values()):
            start.thread.join(seconds)
