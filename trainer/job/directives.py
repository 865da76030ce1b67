"""Asks the daemon for a directive at each segment, waits where it says so, and keeps training inside a lease.

A directive comes in control.json (docs/protocol.md) and carries a lease: until when, and for how many steps, it holds.
Nothing runs that no lease covers. The daemon leaves a first lease where it starts a job, in a directive for segment -1;
where it goes away before the first answer, training begins at that directive's ρ and ends with its lease. Without a job
directory the answer is a constant ρ.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from carbonsched.model.protocol import Directive, Resumed, Waiting, Warned
from carbonsched.model.setting import Setting
from trainer.job.job_dir import JobDir, now

log = logging.getLogger("trainer")

POLL_S = 0.05
PATIENCE_S = 30.0
"""Seconds without an answer to the first segment after which training begins at `rho_start`."""
GRACE_S = 5.0
"""Seconds without an answer to a later segment, and without a lease, after which a `waiting` event is sent."""


class Stopped(Exception):  # noqa: N818  (not an error: a directive or a signal ended the run)
    """Raised out of `Trainer.train()` where training must end before its next step: no callback can skip a step.

    What was trained is in the newest checkpoint.

    Example:
        >>> try:
        ...     raise Stopped("budget below floor")
        ... except Stopped as e:
        ...     print(e)
        budget below floor
    """


@dataclass(frozen=True, slots=True)
class Granted:
    """The answer to a segment: train at this ρ, in this setting and phase.

    Example:
        >>> DirectiveSource(rho=0.6).ask(k=0, step=0)
        Granted(rho=0.6, seq=None, setting=None, phase=None, cooldown_steps=None, cooldown_from=None)
    """

    rho: float
    seq: int | None
    """Number of the directive that granted it; None: no directive came."""
    setting: Setting | None = None
    """None: as the job's own method trains at ρ."""
    phase: Literal["stable", "cooldown"] | None = None
    cooldown_steps: int | None = None
    cooldown_from: int | None = None
    """These three as in the directive: where the learning rate stands, for `train.scheduler = "budget"`."""

    @classmethod
    def by(cls, directive: Directive, rho: float) -> "Granted":
        """What a directive grants; `rho` where it names none."""
        return cls(
            rho if directive.rho is None else directive.rho,
            directive.seq,
            directive.setting,
            directive.phase,
            directive.cooldown_steps,
            directive.cooldown_from,
        )


@dataclass(slots=True)
class DirectiveSource:
    """What a training asks before it goes on.

    Example::

        directives = DirectiveSource(rho=0.6, job=JobDir(Path("jobs/7")))
        granted = directives.ask(k=0, step=0)  # waits for control.json
        directives.count_step()
        if directives.lapse_reason() is not None:
            granted = directives.wait(k=0, step=1, why="the lease is over")
    """

    rho: float
    """Without a daemon: always granted. With one: granted where it does not answer the first segment in time."""
    job: JobDir | None = None
    stopping: Callable[[], bool] = lambda: False
    alone: bool = False
    """Events are written for whoever reads them, but no daemon is listened to."""
    patience_s: float = PATIENCE_S
    grace_s: float = GRACE_S
    _latest: Directive | None = None
    _lease: Directive | None = None
    """The train directive that is being followed."""
    _steps: int = 0
    """Steps started under that lease."""
    _trained: bool = False
    """Whether this process has begun a step: before that nothing but loading was done, which no lease covers."""
    _k: int = 0
    _step: int = 0

    def __post_init__(self) -> None:
        # a `wait` or `stop` that is there already was for the process before: read once, it is not news any more
        found = self.job.read_directive() if self.job is not None and not self.alone else None
        if found is not None and found.action == "train":
            self._latest = found
            self._follow(found)

    @property
    def constant(self) -> float | None:
        """The ρ of every segment where nobody is asked; None where a daemon answers."""
        return self.rho if self.job is None or self.alone else None

    def ask(self, k: int, step: int) -> Granted:
        """Wait for the directive of segment k, whose `segment_ready` was sent. step: steps done. Raises Stopped."""
        if self.job is None or self.alone:
            return Granted(self.rho, None)
        return self._await(self.job, k, step, why=None)

    def wait(self, k: int, step: int, why: str) -> Granted:
        """Wait until training may go on; in mid-segment, when a checkpoint is written. Raises Stopped."""
        if self.job is None or self.alone:
            return Granted(self.rho, None)
        return self._await(self.job, k, step, why=why)

    def check_lease(self) -> None:
        """Wait where the lease's time is over; amid work that is no step (importance, held-out rows). Raises Stopped."""
        if self._lease is None or not self._trained:
            return
        fresh = self.poll(self._lease.k)
        if fresh is not None and fresh.action == "stop":
            raise Stopped(fresh.reason)
        why = fresh.reason if fresh is not None and fresh.action == "wait" else self._expiry_reason()
        if why is not None:
            self.wait(self._k, self._step, why)

    def poll(self, k: int) -> Directive | None:
        """A directive that came since the last call and concerns segment k: `stop` always does."""
        fresh = self._read_new()
        if fresh is None or (fresh.k != k and fresh.action != "stop"):
            return None
        if fresh.action == "train":
            self._follow(fresh)
        return fresh

    def count_step(self) -> None:
        """One more step is started under the lease."""
        self._steps += 1
        self._step += 1
        self._trained = True

    def lapse_reason(self) -> str | None:
        """Why the lease no longer covers another step; None while it does, or where there never was one."""
        lease = self._lease
        if lease is not None and self._steps >= lease.lease.max_steps:
            return (
                self._expiry_reason()
                or f"the lease of directive {lease.seq} covers {lease.lease.max_steps} step{'' if lease.lease.max_steps == 1 else 's'}"
            )
        return self._expiry_reason()

    def _expiry_reason(self) -> str | None:
        """Why the lease's time is over; None while it is not, or where there never was one."""
        lease = self._lease
        if lease is None or now() < lease.lease.valid_until:
            return None
        return f"the lease of directive {lease.seq} ended at {lease.lease.valid_until:%H:%M:%S} UTC"

    def _await(self, job: JobDir, k: int, step: int, why: str | None) -> Granted:
        self._k, self._step, began = k, step, time.monotonic()
        told_to_wait = False  # then a daemon is there: no falling back to its lease
        reported: tuple[str, int | None] | None = None

        def report_waiting(reason: str, directive: Directive | None = None) -> None:
            nonlocal reported
            mark = (reason, directive.seq if directive else None)
            if reported != mark:
                reported = mark
                until = directive.until if directive else None
                job.send(Waiting(at=now(), k=k, step=step, until=until, reason=reason))
                log.info("%s (%s)", reason, job.path / "control.json")

        while True:
            if self.stopping():
                raise Stopped("signal")
            directive = self._current(k, renewed=why is not None)
            if directive is not None:
                if directive.action == "stop":
                    raise Stopped(directive.reason)
                if directive.action == "wait":
                    told_to_wait = True
                    report_waiting(directive.reason, directive)
                elif self._allows(directive):
                    self._follow(directive)
                    if reported is not None:
                        job.send(Resumed(at=now(), k=k, step=step))
                    return Granted.by(directive, self.rho)
            if why is not None and reported is None:
                report_waiting(why)  # where no directive says it better
            if why is None and not told_to_wait:
                silent_s = time.monotonic() - began
                answer = self._fall_back(job, k, step) if silent_s >= self.patience_s else None
                if answer is not None:
                    return answer
                if silent_s >= (self.grace_s if step > 0 else self.patience_s) and not self._lease_holds():
                    report_waiting(f"no directive for segment {k + 1}: waiting for the daemon")
            time.sleep(POLL_S)

    def _fall_back(self, job: JobDir, k: int, step: int) -> Granted | None:
        if self._lease is None and step == 0 and not job.launched:
            return Granted(self.rho, None)  # run by hand: there is nobody to grant a lease
        if self._lease is None or self.lapse_reason() is not None:
            return None
        rho = self.rho if self._lease.rho is None else self._lease.rho
        job.send(
            Warned(
                at=now(),
                message=f"no directive for segment {k + 1} within {self.patience_s:g} s: going on at rho {rho:g} "
                f"under the lease of directive {self._lease.seq}",
            )
        )
        return Granted.by(self._lease, rho)

    def _lease_holds(self) -> bool:
        return self._lease is not None and self.lapse_reason() is None

    def _allows(self, directive: Directive) -> bool:
        used = self._steps if _same(directive, self._lease) else 0
        return now() < directive.lease.valid_until and used < directive.lease.max_steps

    def _current(self, k: int, *, renewed: bool) -> Directive | None:
        """The latest directive for segment k; renewed: or for the segment of the lease that is followed."""
        self._read_new()
        latest = self._latest
        if latest is None:
            return None
        ours = latest.k == k or (renewed and self._lease is not None and latest.k == self._lease.k)
        return latest if ours or latest.action == "stop" else None

    def _read_new(self) -> Directive | None:
        """A directive not seen before; one that renews the lease is followed."""
        if self.job is None or self.alone:
            return None
        fresh = self.job.read_directive()
        if fresh is None or _same(fresh, self._latest):
            return None
        self._latest = fresh
        if fresh.action == "train" and self._lease is not None and fresh.k == self._lease.k:
            self._follow(fresh)
        return fresh

    def _follow(self, directive: Directive) -> None:
        if not _same(directive, self._lease):
            self._lease, self._steps = directive, 0


def _same(one: Directive, other: Directive | None) -> bool:
    # a daemon that lost its memory may count from 1 again, but not for the same segment
    return other is not None and (one.seq, one.k) == (other.seq, other.k)
