"""Reads a job and a finished segment from their rows in the ledger."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from weakref import WeakValueDictionary

from pydantic import ValidationError

from carbonsched.ledger.rows import maybe_moment, moment
from carbonsched.model.base import input_error
from carbonsched.model.interning import with_shared_parts
from carbonsched.model.job import ACCEPTED, JobSpec, Owner, SubmittedJob
from carbonsched.model.job_state import JobState
from carbonsched.model.protocol import Directive, SegmentDone

_read: "WeakValueDictionary[bytes, SubmittedJob]" = WeakValueDictionary()
"""Digest of a row's text → the document read from it, as long as somebody holds it: the daemon holds those of unfinished jobs."""
_STATES: Final = {str(state): state for state in JobState}
_MOST_BAD_KEYS: Final = 20
"""Unreadable keys that are dropped one by one before the whole spec counts as unreadable."""


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
    damage: str = ""
    """What of its row cannot be read and is replaced by a default; empty: nothing."""

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
    """From 0; above 0 if an earlier attempt's work was lost and repeated."""
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


def job_record(row: Mapping[Any, Any], *, held: bool = True) -> JobRecord:
    """From a row of the jobs table. Never fails: one unreadable row must not hide the others.

    held: the record may be kept for long and shares its parts with equal ones; False: it is read once and let go.
    """
    submitted, damage = _submitted(row, held=held)
    state = state_of(row["state"])
    if state != row["state"]:
        damage = f"its state in the ledger is {row['state']!r}, which this version does not know"
    return JobRecord(
        submitted=submitted,
        state=state,
        reason=f"set aside: {damage}" if damage else row["reason"],
        budget_g=row["budget_g"],
        started_at=maybe_moment(row["started_us"]),
        ended_at=maybe_moment(row["ended_us"]),
        damage=damage,
    )


def state_of(text: str) -> JobState:
    """A state from the ledger; a state that this version does not know counts as failed, which can be resumed."""
    return _STATES.get(text, JobState.FAILED)


def _submitted(row: Mapping[Any, Any], *, held: bool) -> tuple[SubmittedJob, str]:
    """The job, and what of it could not be read; unreadable keys get their defaults."""
    text = row["submitted"]
    key = hashlib.blake2b(text.encode(errors="replace"), digest_size=16).digest()
    if (known := _read.get(key)) is not None and known.id == row["id"]:
        return known, ""
    try:
        submitted = SubmittedJob.model_validate_json(text, context=ACCEPTED)
        if submitted.id == row["id"]:
            if held:
                with_shared_parts(submitted.spec)
                _read[key] = with_shared_parts(submitted)
            return submitted, ""
        return _unreadable(row), f"the ledger's copy of its spec is that of {submitted.id!r}"
    except ValidationError as e:
        error = e
    damage = f"the ledger's copy of its spec cannot be read: {input_error(error, SubmittedJob)}"
    for _ in range(_MOST_BAD_KEYS):
        data = _without(text, error)
        if data is None:
            break
        text = json.dumps(data)
        try:
            submitted = SubmittedJob.model_validate_json(text, context=ACCEPTED)
            return (submitted if submitted.id == row["id"] else _unreadable(row)), damage
        except ValidationError as e:
            error = e
    return _unreadable(row), damage


def _without(text: str, error: ValidationError) -> dict[str, Any] | None:
    """The document without the key that was refused; None if no key can be dropped."""
    first = error.errors(include_url=False, include_input=False)[0]
    path = [part for part in first["loc"] if isinstance(part, str)]
    if first["type"] in ("missing", "json_invalid") or not path:
        return None
    here = document = json.loads(text)
    for part in path[:-1]:
        here = here.get(part, {}) if isinstance(here, dict) else {}
    if not isinstance(here, dict) or path[-1] not in here:
        return None
    del here[path[-1]]
    return document  # type: ignore[no-any-return]


def _unreadable(row: Mapping[Any, Any]) -> SubmittedJob:
    """Stands for a job of which only its row's own columns are known; only root may read it."""
    budget = {"budget_g": row["budget_g"] or 1.0}
    unknown = {"name_or_path": "unknown"}
    spec = JobSpec.model_validate({"name": "unreadable", "model": unknown, "data": unknown, "carbon": budget})
    return SubmittedJob(
        id=row["id"],
        spec=spec,
        owner=Owner(uid=0, gid=0, user="unknown"),
        submitted_at=moment(row["submitted_us"]),
        sha256="",
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
