from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from support.manual_clock import ManualClock

from carbonsched.supervisor.cpu_watch import CpuWatch, taken


@dataclass
class Answers:
    """What the launcher says of each job, one answer after the other; the last one again and again."""

    of: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    asked: int = 0

    def cpu_times(self, job_dir: Path) -> dict[str, float]:
        self.asked += 1
        answers = self.of[job_dir.name]
        return answers.pop(0) if len(answers) > 1 else answers[0]


def live(*names: str, starting: bool = False) -> list[Any]:
    return [
        SimpleNamespace(id=name, dir=Path(name), process=SimpleNamespace(starting=starting)) for name in names
    ]


def watch(answers: Answers, *busy: float | None) -> tuple[CpuWatch, ManualClock]:
    clock, said = ManualClock(datetime(2026, 3, 1, tzinfo=UTC)), list(busy)
    return CpuWatch(answers, clock, lambda: said.pop(0)), clock  # type: ignore[arg-type]


def test_what_each_took_since_the_last_look_and_what_everything_else_did() -> None:
    looks, clock = watch(
        Answers({"a": [{"1:1": 5.0}, {"1:1": 5.5}], "b": [{"cgroup": 0.2}]}), 100.0, 101.0, 101.0
    )
    assert looks.since(live("a")) is None, "nothing is known of the time before"
    clock.advance(1)
    use = looks.since(live("a", "b"))
    assert use is not None
    assert (use.seconds, use.jobs_s) == (1.0, {"a": 0.5, "b": 0.2})
    assert abs(use.others_s - 0.3) < 1e-9
    clock.advance(1)
    use = looks.since(live("a", "b"))
    assert use is not None
    assert (use.jobs_s, use.others_s) == ({"a": 0.0, "b": 0.0}, 0.0)


def test_a_job_or_a_box_that_does_not_tell_makes_all_unknown_for_that_look_alone() -> None:
    looks, clock = watch(
        Answers({"a": [{"x": 1.0}, {}, {"x": 3.0}, {"x": 3.5}, {"x": 4.0}]}), 1, 2, 3, None, 5, 6
    )
    said = []
    for _ in range(6):
        clock.advance(1)
        said.append(looks.since(live("a")) is not None)
    assert said == [False, False, True, False, False, True]


def test_a_job_that_is_being_started_has_taken_nothing_yet() -> None:
    looks, clock = watch(Answers({"a": [{"x": 1.0}]}), 1, 2)
    looks.since(live("a"))
    clock.advance(1)
    use = looks.since([*live("a"), *live("b", starting=True)])
    assert use is not None
    assert use.jobs_s == {"a": 0.0}


def test_a_child_that_was_waited_for_between_two_reads_is_looked_for_once_more() -> None:
    answers = Answers({"a": [{"1:1": 9.0}, {"1:1": 4.0}, {"1:1": 9.5}]})
    looks, clock = watch(answers, 1, 2)
    looks.since(live("a"))
    clock.advance(1)
    use = looks.since(live("a"))
    assert use is not None
    assert (use.jobs_s, answers.asked) == ({"a": 0.5}, 3)


@given(
    before=st.none() | st.dictionaries(st.sampled_from("xyz"), st.floats(0, 100)),
    now=st.dictionaries(st.sampled_from([*"xyz", "exit"]), st.floats(0, 100)),
)
def test_nobody_gives_time_back_or_takes_more_than_there_is(
    before: dict[str, float] | None, now: dict[str, float]
) -> None:
    used = taken(before, now)
    assert 0 <= used <= sum(now.values()) + 1e-9


def test_a_root_that_was_found_late_counts_from_then_on() -> None:
    assert taken({"1:1": 5.0}, {"1:1": 5.5, "9:9": 70.0}) == 0.5
    assert taken({}, {"1:1": 5.5}) == 0.0
