"""What a list reads of a row is what reading the row as a whole gives, also where the row is damaged."""

import json
from typing import Any

import pytest
from support.job_history import T0, submitted

from carbonsched.ledger.listed import listed_job, listed_segment, of_record
from carbonsched.ledger.records import job_record, segment_record
from carbonsched.ledger.rows import micros
from carbonsched.model.job_state import JobState
from carbonsched.model.protocol import SegmentDone


def row(**changes: Any) -> dict[str, Any]:
    job = submitted()
    spec = job.spec.model_copy(update={"labels": {"project": "thesis"}})
    return {
        "id": job.id,
        "submitted": job.model_copy(update={"spec": spec}).model_dump_json(),
        "submitted_us": micros(job.submitted_at),
        "state": "finished",
        "reason": "done",
        "budget_g": 120.0,
        "started_us": micros(T0) + 1,
        "ended_us": None,
    } | changes


def test_a_row_that_is_well_is_read_alike() -> None:
    listed = listed_job(row())
    assert listed == of_record(job_record(row()))
    assert (listed.name, listed.labels, listed.state) == (
        "scitldr-smollm2",
        {"project": "thesis"},
        JobState.FINISHED,
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"submitted": "{"}, "cannot be read"),
        ({"submitted": json.dumps({"id": "scitldr-1"})}, "cannot be read"),
        ({"id": "another-1"}, "is that of 'scitldr-1'"),
        ({"state": "dreaming"}, "'dreaming'"),
    ],
)
def test_a_damaged_row_says_so_in_a_list_too(changes: dict[str, Any], said: str) -> None:
    listed = listed_job(row(**changes))
    assert listed == of_record(job_record(row(**changes)))
    assert said in listed.reason


def test_a_segment_is_read_alike() -> None:
    done = SegmentDone(
        at=T0, k=3, first_step=30, steps=10, rho_directed=0.5, rho_planned=0.5, rho_realised=0.5, flops=1.0, flops_full=2.0, loss=2.5,
        seconds=1.0, importance_seconds=0.0, selection_seconds=0.0, selected=("a", "b"), directive_seq=1,
    )  # fmt: skip
    kept = {"job_id": "a-1", "k": 3, "attempt": 0, "start_us": 0, "end_us": 1, "done": done.model_dump_json(), "directive": None}  # fmt: skip
    whole, listed = segment_record(kept), listed_segment(kept)
    assert (listed.k, listed.step, listed.loss) == (whole.k, 40, whole.done.loss)
