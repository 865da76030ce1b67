"""Makes a report of a ledger that is only read, without a daemon: for users who have the file, or a copy of it."""

from collections.abc import Iterator
from datetime import datetime

from carbonsched.errors import InputError
from carbonsched.ledger.ledger import Ledger
from carbonsched.model.accounting import Stated
from carbonsched.model.labels import fits
from carbonsched.model.views import ReportQuery
from carbonsched.report.document import build
from carbonsched.report.job_savings import job_savings
from carbonsched.report.parts import Selection
from carbonsched.report.render import find, shows_effects


def pieces(
    ledger: Ledger, asked: ReportQuery, form: str, now: datetime, stated: Stated | None = None
) -> Iterator[str]:
    """The report in a format, piece by piece. stated: statements of a config for reports; None: none.

    A user who can read the file may read all of it: the report contains the labels of all jobs. Raises InputError and NotFoundError.
    """
    found, given = find(form), stated or Stated()
    if asked.site is not None and asked.site != given.accounting.site:
        raise InputError(
            "--site",
            f"{asked.site!r} is not what the config names (accounting.site)",
            "leave it out, or give the box's config: --config FILE",
        )
    selection = None
    if asked.selects:
        jobs = tuple(
            job.id
            for job in ledger.jobs()
            if (asked.user is None or job.owner.user == asked.user)
            and all(fits(job.spec.labels, wanted) for wanted in asked.labels)
        )
        selection = Selection(user=asked.user, labels=asked.labels, jobs=jobs)
    effects = job_savings if shows_effects(form) else None
    report = build(
        ledger,
        asked.job,
        asked.start,
        asked.end,
        now=now,
        stated=given,
        selection=selection,
        savings_of=effects,
    )
    return found.pieces(report, ledger)
