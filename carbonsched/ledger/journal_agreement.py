"""Compares jobs and segments with the journal: their rows are rewritten as jobs go on, and are in no chain themselves."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select

from carbonsched.ledger.records import state_of
from carbonsched.ledger.rows import canonical, stamp
from carbonsched.ledger.tables import JOBS, SEGMENTS
from carbonsched.model.job_state import JobState

Told = Mapping[str, Sequence[tuple[str, int, dict[str, Any]]]]
"""Job → (kind, time, detail) of its journal entries, oldest first."""


def sha256(row: Mapping[Any, Any]) -> str:
    """The hash of a row of the jobs or segments table, as its journal entry contains it."""
    return hashlib.sha256(canonical(row).encode()).hexdigest()


def jobs_problem(connection: Connection, told: Told) -> str | None:
    """What differs from the journal, which determines every column of a job: what was submitted when, its states with reasons, its budgets."""
    left = dict(told)
    for job in connection.execute(select(JOBS).order_by(JOBS.c.id)).mappings():
        entries = left.pop(job["id"], None)
        if entries is None:
            return f"job {job['id']} is not in the journal"
        try:
            facts = {**job, "sha256": sha256({"submitted": job["submitted"]})}
            wanted = _replayed(entries)
        except (ArithmeticError, KeyError, TypeError, ValueError) as e:
            return f"job {job['id']} cannot be compared with the journal: {type(e).__name__} {e}"
        for name, said in wanted.items():
            if facts[name] != said:
                return (
                    f"job {job['id']}: {name.removesuffix('_us')} is {_shown(name, facts[name])}, the journal said "
                    f"{_shown(name, said)}"
                )
    for job_id in left:
        return f"job {job_id} is missing: the journal tells of it"
    return None


def _replayed(entries: Sequence[tuple[str, int, dict[str, Any]]]) -> dict[str, Any]:
    """A job's columns by its journal; `Ledger.add_job`, `set_state` and `set_budget` write both."""
    job: dict[str, Any] = {}
    for kind, at_us, detail in entries:
        if kind == "submitted":
            job = {
                "sha256": detail["sha256"],
                "submitted_us": at_us,
                "state": str(JobState.QUEUED),
                "reason": "submitted",
                "budget_g": detail["budget_g"],
                "started_us": None,
                "ended_us": None,
            }
        elif kind == "budget":
            job["budget_g"] = detail["budget_g"]
        else:
            ended, was_ended = state_of(detail["state"]).ended, state_of(detail["from"]).ended
            job |= {"state": detail["state"], "reason": detail["reason"]}
            if detail["state"] == JobState.RUNNING and job["started_us"] is None:
                job["started_us"] = at_us
            if ended != was_ended:
                job["ended_us"] = at_us if ended else None
    return job


def _shown(name: str, value: Any) -> Any:
    if not (name.endswith("_us") and isinstance(value, int)):
        return value
    try:
        return stamp(value)
    except OverflowError:
        return f"{value} µs, a time that no calendar has"


def segments_problem(connection: Connection, told: Sequence[tuple[str, Mapping[str, Any]]]) -> str | None:
    """Which attempt at a segment differs from the journal's, or is in only one of the two."""
    t = SEGMENTS.c
    found: dict[tuple[str, int, int], str] = {}
    for row in connection.execute(select(SEGMENTS).order_by(t.job_id, t.k, t.attempt)).mappings():
        key = (row["job_id"], row["k"], row["attempt"])
        try:
            found[key] = sha256(row)
        except (ArithmeticError, TypeError, ValueError) as e:
            found[key] = str(e)
    for job_id, said in told:
        k, attempt = said.get("k"), said.get("attempt")
        if not isinstance(k, int) or not isinstance(attempt, int):
            return f"job {job_id}: an entry of a segment in the journal does not say which"
        if found.pop((job_id, k, attempt), None) != said.get("sha256"):
            return f"job {job_id}: segment {k}, attempt {attempt}, is not as the journal saw it"
    for job_id, k, attempt in found:
        return f"job {job_id}: segment {k}, attempt {attempt}, is not in the journal"
    return None
