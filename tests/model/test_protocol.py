"""The edges of what a trainer may say: what lies beyond is refused where it is read, not met later in a sum."""

from typing import Any

import pytest
from pydantic import ValidationError
from support.said import DONE, READY

from carbonsched.model.protocol import EVENTS

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
