"""Pings systemd's watchdog from a timer of its own, as long as every part of the daemon gets on with its work.

A part that comes round once a minute is not late after a minute: each has its own pause, and half of the watchdog's time on top.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from carbonsched.periodic import Periodic
from carbonsched.systemd_notify import Notifier

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Part:
    """One piece of work that must go on: a count that grows with every round, and the pause between two rounds.

    Example:
        >>> rounds = [0]
        >>> part = Part("scheduler", lambda: rounds[0], every_s=60.0)
        >>> part.stands_still_s(now_s=100.0), part.stands_still_s(now_s=175.0)
        (0.0, 15.0)
        >>> rounds[0] += 1
        >>> part.stands_still_s(now_s=176.0)
        0.0
    """

    name: str
    count: Callable[[], int]
    every_s: float
    _seen: int | None = None
    _at_s: float = 0.0

    def stands_still_s(self, now_s: float) -> float:
        """How long its next round is overdue; 0: it is not."""
        count = self.count()
        if count != self._seen:
            self._seen, self._at_s = count, now_s
        return max(now_s - self._at_s - self.every_s, 0.0)


@dataclass(slots=True)
class Watchdog:
    """Looks at the parts four times in the watchdog's time; nothing is started where systemd set no watchdog.

    Example:
        >>> watchdog = Watchdog(Notifier.from_env({}), [Part("scheduler", lambda: 0, every_s=1.0)])
        >>> watchdog.start()
        >>> watchdog.stop()
    """

    notifier: Notifier
    parts: Sequence[Part]
    _timer: Periodic | None = None
    _late: set[str] = field(default_factory=set)

    def start(self) -> None:
        if (watchdog_s := self.notifier.watchdog_s) is not None:
            self._timer = Periodic("watchdog", self.poll, watchdog_s / 4)
            self._timer.start()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.stop(wait_s=1.0)

    def poll(self) -> None:
        """Ping, or say in the log which part stands still."""
        now_s = time.monotonic()
        allowed_s = (self.notifier.watchdog_s or 0.0) / 2
        late = {
            part.name: late_s for part in self.parts if (late_s := part.stands_still_s(now_s)) > allowed_s
        }
        for name in late.keys() - self._late:
            log.error(
                "the %s has stood still for %.0f s: systemd is not pinged until it goes on", name, late[name]
            )
        for name in self._late - late.keys():
            log.warning("the %s goes on", name)
        self._late = set(late)
        if not late:
            self.notifier.watchdog()
