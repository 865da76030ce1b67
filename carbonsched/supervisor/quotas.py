"""Enforces quotas: how many jobs a user may have at a time, and how much they may emit per day and month.

Checked before a job is submitted, resumed or its budget raised. A job counts in full from its submission on: the grams it spent in the
period, plus what is left of its budget. So no job has to be stopped for a quota, and grams that it leaves unspent are free again when it
ends.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from carbonsched.clock import Clock
from carbonsched.config import EVERYBODY, QuotaConfig
from carbonsched.errors import DeniedError, InputError
from carbonsched.ledger.ledger import Ledger
from carbonsched.ledger.totals import total
from carbonsched.model.job import JobSpec, Owner
from carbonsched.supervisor.access import is_one
from carbonsched.supervisor.jobs.job_run import JobRun
from carbonsched.text import grams as show_grams
from carbonsched.text import several


@dataclass(slots=True)
class Quotas:
    """The quotas of all users.

    Example::

        with quotas.taking(owner, spec):
            ledger.add_job(job)
    """

    ledger: Ledger
    clock: Clock
    config: Callable[[], Sequence[QuotaConfig]]
    """The current config: SIGHUP may change it."""
    runs: Mapping[str, JobRun]
    """Jobs that are not over."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    """Serialises two checks, so that the second counts the first. It is not the supervisor's lock."""

    def of(self, user: Owner) -> QuotaConfig | None:
        """The quota of a user: the first that names the user, else the first that names a group of theirs, else everybody's; None: no limit."""
        quotas = self.config()
        for names in (
            lambda who: who[0] not in "@*",
            lambda who: who[0] == "@",
            lambda who: who == EVERYBODY,
        ):
            for quota in quotas:
                if names(quota.who) and (quota.who == EVERYBODY or is_one(user, (quota.who,))):
                    return quota
        return None

    @contextmanager
    def taking(
        self, user: Owner, spec: JobSpec, grams: float | None = None, *, again: str | None = None
    ) -> Iterator[None]:
        """Reserve a job's place while it is submitted. Raises DeniedError if there is none, InputError if its grams cannot be determined.
        grams: what it may emit in all; None: the spec's. again: the id of an existing job."""
        quota = self.of(user)
        if quota is None:
            yield
            return
        with self._lock:
            self._check(user, quota, spec, spec.carbon.budget_g if grams is None else grams, again)
            yield

    def _check(
        self, user: Owner, quota: QuotaConfig, spec: JobSpec, grams: float | None, again: str | None
    ) -> None:
        others = [
            run for run in list(self.runs.values()) if run.job.owner.uid == user.uid and run.id != again
        ]
        if quota.jobs is not None and len(others) >= quota.jobs:
            raise DeniedError(
                f"quota: {user.user} may have {several(quota.jobs, 'job')} at a time and has {len(others)}; wait until one has ended"
            )
        now = self.clock.now()
        day = now.replace(hour=0, minute=0, second=0, microsecond=0)
        for key, most, since in (
            ("day", quota.grams_per_day, day),
            ("month", quota.grams_per_month, day.replace(day=1)),
        ):
            if most is None:
                continue
            if grams is None and spec.carbon.pool is None and spec.command is None:
                raise InputError(
                    "carbon.budget_g",
                    f"is missing: {user.user} has a quota of grams a {key}",
                    "give the grams",
                )
            spent, promised = self._used(user, since, others, again)
            own = self._left_of(again, grams)
            left = most - spent - promised
            if own > left or (spec.command is not None and left <= 0):
                raise DeniedError(
                    f"quota: {user.user} may emit {show_grams(most)} a {key} (UTC), of which {show_grams(spent)} are spent and "
                    f"{show_grams(promised)} promised to jobs that are not over; "
                    + (f"{show_grams(own)} more do not fit" if own else "nothing is left")
                )

    def _left_of(self, job_id: str | None, grams: float | None) -> float:
        if grams is None:
            return 0.0  # for a job in a pool, or a command without a budget, what it spends is counted
        return grams if job_id is None else max(grams - self.ledger.totals(job_id).grams, 0.0)

    def _used(
        self, user: Owner, since: datetime, others: Sequence[JobRun], again: str | None
    ) -> tuple[float, float]:
        """(grams spent since then, grams that unfinished jobs may still spend)."""
        spent = 0.0
        for row in self.ledger.jobs_since(since):
            if row.owner.uid == user.uid:
                whole = row.started_at is None or row.started_at >= since
                spent += total(self.ledger.groups(row.id, None if whole else since)).grams
        promised = sum(
            max(run.budget_g - run.charged_g, 0.0)
            for run in others
            if run.budget_g is not None and run.spec.carbon.pool is None
        )
        return spent, promised
