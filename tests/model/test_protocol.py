"""The edges of what a trainer may say: what lies beyond is refused where it is read, not met later in a sum."""

from typing import Any

import pytest
from pydantic import ValidationError

from carbonsched.model.protocol import EVENTS

AT = "2026-11-22T10:00:00.000Z"
READY = {
    "at": AT,
    "event": "segment_ready",
    "k": 0,
    "segments": 4,
    "first_step": 0,
    "steps": 10,
    "steps_left": 40,
    "importance_batches": 1,
    "frontier": [{"rho": 0.4, "importance": 0.1}, {"rho": 1.0, "importance": 1.0}],
    "flops_full": 1e12,
    "rho_floor": 0.4,
}
DONE = {
    "at": AT,
    "event": "segment_done",
    "k": 0,
    "first_step": 0,
    "steps": 10,
    "rho_directed": 0.5,
    "rho_planned": 0.5,
    "rho_realised": 0.5,
    "flops": 1e12,
    "flops_full": 2e12,
    "loss": None,
    "seconds": 1.0,
    "importance_seconds": 0.1,
    "selection_seconds": 0.1,
    "selected": [],
    "directive_seq": None,
}
FALLING = [{"rho": 1.0, "importance": 1.0}, {"rho": 0.4, "importance": 0.1}]


@pytest.mark.parametrize("event", [READY, DONE])
def test_what_a_trainer_says_is_understood(event: dict[str, Any]) -> None:
    assert EVENTS.validate_python(event).at.year == 2026


@pytest.mark.parametrize(
    ("event", "field", "value"),
    [
        (READY, "frontier", []),
        (READY, "frontier", FALLING),
        (READY, "steps", 0),
        (READY, "steps_left", 0),
        (READY, "segments", 0),
        (READY, "segments", 10**9),
        (READY, "k", -1),
        (READY, "first_step", 2**60),
        (READY, "flops_full", -1.0),
        (READY, "seconds_per_step", -1.0),
        (DONE, "k", 10**30),
        (DONE, "steps", 0),
        (DONE, "first_step", -5),
        (DONE, "seconds", -0.1),
        (DONE, "directive_seq", 10**30),
    ],
)
def test_a_figure_that_cannot_be_is_refused(event: dict[str, Any], field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        EVENTS.validate_python(event | {field: value})
