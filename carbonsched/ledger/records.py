"""A job and a finished segment as the ledger keeps them, read from their rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from carbonsched.ledger.rows import maybe_moment, moment
from carbonsched.model.job import ACCEPTED, JobSpec, Owner, SubmittedJob
from carbonsched.model.job_state import JobState
from carbonsched.model.protocol import Directive, SegmentDone


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as the ledger has it.

    Example::

        record = ledger.job("scitldr-7f3a1c")
        print(record.state, record.reason, record.budget_g)
    """

    submitted: SubmittedJob
    state: JobState
    reason: str
    budget_g: float | None
    """None until `budget_share` is resolved."""
    started_at: datetime | None
    ended_at: datetime | None

    @property
    def id(self) -> str:
        return self.submitted.id

    @property
    def spec(self) -> JobSpec:
        return self.submitted.spec

    @property
    def owner(self) -> Owner:
        return self.submitted.owner

    @property
    def submitted_at(self) -> datetime:
        return self.submitted.submitted_at

    @property
    def sha256(self) -> str:
        return self.submitted.sha256


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """One attempt at a segment: what the trainer reported, and the directive it ran under.

    Example::

        for segment in ledger.segments("scitldr-7f3a1c"):
            print(segment.k, segment.done.rho_realised, segment.reason)
    """

    job_id: str
    k: int
    attempt: int
    """From 0; above 0 where an earlier attempt's work was lost and done again."""
    start: datetime
    end: datetime
    done: SegmentDone
    directive: Directive | None

    @property
    def price(self) -> float | None:
        return None if self.directive is None else self.directive.price

    @property
    def reason(self) -> str:
        return "" if self.directive is None else self.directive.reason


def job_record(row: Mapping[Any, Any]) -> JobRecord:
    """From a row of the jobs table."""
    return JobRecord(
        submitted=SubmittedJob.model_validate_json(row["submitted"], context=ACCEPTED),
        state=JobState(row["state"]),
        reason=row["reason"],
        budget_g=row["budget_g"],
        started_at=maybe_moment(row["started_us"]),
        ended_at=maybe_moment(row["ended_us"]),
    )


def segment_record(row: Mapping[Any, Any]) -> SegmentRecord:
    """From a row of the segments table."""
    directive = row["directive"]
    return SegmentRecord(
        job_id=row["job_id"],
        k=row["k"],
        attempt=row["attempt"],
        start=moment(row["start_us"]),
        end=moment(row["end_us"]),
        done=SegmentDone.model_validate_json(row["done"]),
        directive=None if directive is None else Directive.model_validate_json(directive),
    )
