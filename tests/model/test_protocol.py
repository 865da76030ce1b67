"""The edges of what a trainer may say: what lies beyond is refused where it is read, not met later in a sum."""

from typing import Any

import pytest
from pydantic import ValidationError
from support.trainer_events import DONE, READY

from carbonsched.errors import InputError
from carbonsched.model.job import JobSpec
from carbonsched.model.protocol import EVENTS, Directive

FALLING = [{"rho": 1.0, "importance": 1.0}, {"rho": 0.4, "importance": 0.1}]


@pytest.mark.parametrize("event", [READY, DONE])
def test_what_a_trainer_says_is_understood(event: dict[str, Any]) -> None:
    assert EVENTS.validate_python(event).at.year == 2026


@pytest.mark.parametrize(
    ("event", "field", "value"),
    [
        (READY, "at", "0001-01-01T00:00:00+14:00"),
        (READY, "at", "9999-12-31T23:59:59-14:00"),
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
        (READY, "flops_full", 1e308),
        (READY, "rho_floor", 1e308),
        (READY, "frontier", [{"rho": 1.0, "importance": -1e308}]),
        (READY, "steps_left", 2**53),
        (DONE, "loss", -1e308),
        (DONE, "seconds", 1e308),
        (DONE, "rho_realised", 1e308),
        (DONE, "at", "0001-01-01T00:00:00+14:00"),
        (DONE, "at", "9999-12-31T23:59:59-12:00"),
    ],
)
def test_a_figure_that_cannot_be_is_refused(event: dict[str, Any], field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        EVENTS.validate_python(event | {field: value})


HOSTILE = "a\x1b[2J\r\nWARNING carbonsched: forged\x9b1m\u202e\x00"
CLEAN = "a\\x1b[2J WARNING carbonsched: forged\\x9b1m\\u202e\\x00"


@pytest.mark.parametrize(
    ("event", "field"),
    [
        ({"event": "warning"}, "message"),
        ({"event": "failed"}, "error"),
        ({"event": "waiting", "k": 0, "step": 0, "until": None}, "reason"),
        ({"event": "finished", "step": 1}, "early"),
        ({"event": "finished", "step": 1}, "output"),
        ({"event": "checkpoint", "k": 0, "step": 0, "seconds": 1, "bytes": 1}, "path"),
        ({"event": "started", "pid": 1, "segments": 1, "steps": 1, "params": 1}, "device"),
        ({"event": "started", "pid": 1, "segments": 1, "steps": 1, "params": 1, "device": "cpu"}, "gpu_uuid"),
    ],
)
def test_what_a_trainer_says_is_one_line_that_steers_no_terminal(event: dict[str, Any], field: str) -> None:
    said = {"at": "2026-11-01T12:00:00Z"} | event
    assert getattr(EVENTS.validate_python(said | {field: HOSTILE}), field) == CLEAN
    assert len(getattr(EVENTS.validate_python(said | {field: "x" * 10**6}), field)) == 4000


@pytest.mark.parametrize("where", ["event", "frontier", "directive", "lease", "setting"])
def test_a_key_of_a_newer_protocol_is_passed_over(where: str) -> None:
    lease = {"valid_until": READY["at"], "max_steps": 4}
    told = {"seq": 1, "k": 0, "action": "train", "lease": lease, "reason": "r", "setting": {"method": "full"}}
    more = {"of_protocol_9": [1]}
    if where in ("event", "frontier"):
        points = [{"rho": 1.0, "importance": 1.0} | (more if where == "frontier" else {})]
        event = READY | {"frontier": points} | (more if where == "event" else {})
        assert EVENTS.validate_python(event) == EVENTS.validate_python(
            READY | {"frontier": [{"rho": 1.0, "importance": 1.0}]}
        )
        return
    changed = told | more if where == "directive" else told | {where: told[where] | more}  # type: ignore[operator,dict-item]
    assert Directive.parse(changed) == Directive.parse(told)


@pytest.mark.parametrize("part", ["train", "carbon"])
def test_jobs_stay_strict(part: str) -> None:
    job = {
        "name": "a",
        "model": {"name_or_path": "m"},
        "data": {"name_or_path": "d"},
        "carbon": {"budget_g": 1.0},
    }
    with pytest.raises(InputError, match="unknown key"):
        JobSpec.parse(job | {part: {"of_protocol_9": 1, "budget_g": 1.0}})
