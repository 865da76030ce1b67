"""The edges of what a caller may say a trainer's check foresaw: the daemon plans by it before anything has run."""

import pytest
from support.rig import checked

from carbonsched.errors import InputError
from carbonsched.model.profile import CheckResult
from carbonsched.model.protocol import MOST_SEGMENTS


def test_a_check_is_understood() -> None:
    assert checked(steps=MOST_SEGMENTS, segments=MOST_SEGMENTS).segments == MOST_SEGMENTS


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("segments", 0),
        ("segments", MOST_SEGMENTS + 1),
        ("steps", 0),
        ("steps", 10**30),
        ("params", -1),
        ("rho_floor", -0.1),
        ("step_flops_full", 0.0),
        ("batch", 0),
        ("test_rows", -1),
    ],
)
def test_a_figure_that_cannot_be_is_refused_by_name(field: str, value: float) -> None:
    said = checked().dump() | {field: value}
    with pytest.raises(InputError, match=f"^{field}: "):
        CheckResult.parse(said)
