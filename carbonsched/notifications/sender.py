"""Sends notifications from threads of their own: whoever has one to tell leaves it here and goes on.

A target that does not answer is tried again, later and later, `TRIES` times; what it then still refuses is lost with a line in
the log. What waits is in memory alone, `MOST` for each target: the ledger, not a mail, is where a job's end is kept.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from carbonsched.model.notification import Happening, Notification
from carbonsched.notifications.settings import OWNER, NotifyConfig
from carbonsched.notifications.targets import DeliveryError, Target, target_of

log = logging.getLogger(__name__)

PAUSES_S: Final = (5.0, 30.0, 120.0, 600.0)
"""After each try but the last."""
TRIES: Final = len(PAUSES_S) + 1
MOST: Final = 1000


@dataclass(slots=True)
class Sender:
    """One target's queue and thread.

    Example::

        sender = Sender(target, frozenset(Happening))
        sender.put(notification)  # at once
    """

    target: Target
    on: frozenset[Happening]
    to_owner: bool = False
    """Whether it is the mail to submitters, which jobs may ask for."""
    pauses_s: tuple[float, ...] = PAUSES_S
    waiting: queue.Queue[Notification] = field(default_factory=lambda: queue.Queue(MOST))
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def put(self, told: Notification) -> None:
        """Never waits, never raises."""
        if told.event not in self.on and not (told.asked and self.to_owner):
            return
        try:
            self.waiting.put_nowait(told)
        except queue.Full:
            full = self.waiting.maxsize
            log.warning(
                "job %s: %s is not told that it %s: %d wait", told.job, self.target.name, told.event, full
            )
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="notify", daemon=True)
            self._thread.start()

    def stop(self, wait_s: float) -> None:
        """What is not delivered by then is lost, and said to be."""
        deadline = time.monotonic() + wait_s
        while self.waiting.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.02)
        self._stop.set()
        if left := self.waiting.unfinished_tasks:
            log.warning("%d notifications are lost: %s did not take them", left, self.target.name)

    def _run(self) -> None:
        while not self._stop.is_set():
            told = self.waiting.get()
            try:
                self._deliver(told)
            except Exception:
                log.exception("job %s: %s is not told that it %s", told.job, self.target.name, told.event)
            self.waiting.task_done()

    def _deliver(self, told: Notification) -> None:
        problem = ""
        for n, pause_s in enumerate((*self.pauses_s, 0.0), start=1):
            try:
                self.target.deliver(told)
            except DeliveryError as e:
                problem = f"{e}, tried {n} times" if n > 1 else str(e)
                if not e.again or self._stop.wait(pause_s):
                    break
            else:
                log.info("job %s: told %s that it %s", told.job, self.target.name, told.event)
                return
        log.warning("job %s: %s is not told that it %s: %s", told.job, self.target.name, told.event, problem)


@dataclass(frozen=True, slots=True)
class Senders:
    """All targets of the site.

    Example:
        >>> Senders.of([]).senders
        ()
    """

    senders: tuple[Sender, ...]

    @classmethod
    def of(
        cls, settings: Iterable[NotifyConfig], make: Callable[[NotifyConfig], Target] = target_of
    ) -> "Senders":
        return cls(
            tuple(Sender(make(each), frozenset(each.on), to_owner=each.mail == OWNER) for each in settings)
        )

    def put(self, told: Notification) -> None:
        for sender in self.senders:
            sender.put(told)

    def stop(self, wait_s: float) -> None:
        for sender in self.senders:
            sender.stop(wait_s / max(len(self.senders), 1))
