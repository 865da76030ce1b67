"""Reads from their rows what a list shows of a job and of its last segment.

The rest of the two documents is not checked: for ten thousand jobs that takes a second. What even so cannot be read is read as a whole, and its
row then says what is wrong with it (`carbonsched.ledger.records`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from carbonsched.ledger.records import JobRecord, job_record, segment_record
from carbonsched.ledger.rows import maybe_moment, moment
from carbonsched.model.job import Owner
from carbonsched.model.job_state import JobState

_STATES: Final = {str(state): state for state in JobState}


class _Carbon(BaseModel):
    pool: str | None = None


class _Spec(BaseModel):
    name: str
    labels: dict[str, str] = {}
    carbon: _Carbon


class _Submitted(BaseModel):
    id: str
    owner: Owner
    spec: _Spec


class _Done(BaseModel):
    first_step: int
    steps: int
    loss: float | None = None
    segments: int | None = None


@dataclass(frozen=True, slots=True)
class ListedJob:
    """A job's row in a list.

    Example::

        for job in ledger.records(ids):
            print(job.name, job.state)
    """

    id: str
    name: str
    owner: Owner
    pool: str | None
    labels: Mapping[str, str]
    state: JobState
    reason: str
    budget_g: float | None
    """None until `budget_share` is resolved."""
    submitted_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class ListedSegment:
    """The last finished segment of a job in a list.

    Example:
        >>> ListedSegment(k=3, step=40, loss=2.5, segments=5).step
        40
    """

    k: int
    step: int
    """Of the job, at the segment's end."""
    loss: float | None
    segments: int | None
    """Of the whole job; None: unknown."""


def listed_job(row: Mapping[Any, Any]) -> ListedJob:
    """From a row of the jobs table. Never fails."""
    try:
        told = _Submitted.model_validate_json(row["submitted"])
    except ValidationError:
        return of_record(job_record(row, held=False))
    state = _STATES.get(row["state"])
    if told.id != row["id"] or state is None:
        return of_record(job_record(row, held=False))
    return ListedJob(
        id=told.id,
        name=told.spec.name,
        owner=told.owner,
        pool=told.spec.carbon.pool,
        labels=told.spec.labels,
        state=state,
        reason=row["reason"],
        budget_g=row["budget_g"],
        submitted_at=moment(row["submitted_us"]),
        started_at=maybe_moment(row["started_us"]),
        ended_at=maybe_moment(row["ended_us"]),
    )


def of_record(record: JobRecord) -> ListedJob:
    """The same of a job that was read as a whole."""
    return ListedJob(
        id=record.id,
        name=record.spec.name,
        owner=record.owner,
        pool=record.spec.carbon.pool,
        labels=record.spec.labels,
        state=record.state,
        reason=record.reason,
        budget_g=record.budget_g,
        submitted_at=record.submitted_at,
        started_at=record.started_at,
        ended_at=record.ended_at,
    )


def listed_segment(row: Mapping[Any, Any]) -> ListedSegment:
    """From a row of the segments table. Raises ValidationError as reading it whole does."""
    try:
        done: Any = _Done.model_validate_json(row["done"])
    except ValidationError:
        done = segment_record(row).done
    return ListedSegment(row["k"], done.first_step + done.steps, done.loss, done.segments)
