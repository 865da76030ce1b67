"""What the benchmark of real jobs of open end tells of each, and of all."""

from typing import Any

import pytest

from benchmarks.open_end_jobs import CASES, figures, summary


def told(*rates: float) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = [{"event": "step", "lr": rate} for rate in rates]
    done = {"event": "segment_done", "steps": len(rates), "setting": {"method": "tokens"}}
    seen = [{"event": "evaluated", "loss": loss} for loss in (3.0, 2.5)]
    return [seen[0], *steps, done, seen[1]]


@pytest.mark.parametrize(
    ("state", "rates", "spent_g", "annealed", "passed"),
    [
        ("finished", (0.1, 1.0, 1.0, 0.1), 1.9, True, False),
        ("finished", (0.1, 1.0, 1.0, 0.9), 1.9, False, False),
        ("stopped", (0.1, 1.0, 1.0, 0.1), 1.9, False, False),
        ("finished", (0.1, 1.0, 1.0, 0.1), 2.01, True, True),
    ],
    ids=["ends as it should", "at its full rate", "stopped in its cooldown", "passes its budget"],
)
def test_a_job_is_told_annealed_only_where_it_ended_so(
    state: str, rates: tuple[float, ...], spent_g: float, annealed: bool, passed: bool
) -> None:
    view = {"state": state, "reason": "…", "spent_g": spent_g, "budget_g": 2.0}
    found = figures(view, iter(told(*rates)), before_g=1.0)
    assert (found["annealed"], found["passed"]) == (annealed, passed)
    assert found["used"] == pytest.approx(spent_g - 1.0), "of what was set with its first step"
    assert (found["steps"], found["methods"]) == (4, ["tokens"])
    assert (found["loss_before"], found["loss"]) == (3.0, 2.5)


def test_all_together() -> None:
    view = {"state": "finished", "reason": "done", "budget_g": 2.0}
    each = {
        str(spent): figures(view | {"spent_g": spent}, iter(told(1.0, 0.1)), before_g=1.0)
        for spent in (1.9, 1.95, 2.02)
    }
    found = summary(each)
    assert (found["jobs"], found["annealed"], found["passed"]) == (3, 3, 1)
    assert (found["used_least"], found["used_mean"], found["used_most"]) == (0.9, 0.9567, 1.02)
    assert len({case.name for case in CASES}) == len(CASES) == 10, "each has a folder of its own"
