"""kill -9 of the daemon, of trainers and of shims at random instants, with real processes: a few here, 300 by `make kills`."""

from pathlib import Path

import pytest
from support.kills import Drill, rounds


@pytest.mark.slow
def test_jobs_end_as_they_should_and_no_joule_is_lost_whoever_is_killed(tmp_path: Path) -> None:
    found = Drill(tmp_path, seed=4).run(daemon_kills=2, job_kills=1)
    assert found["lives"] >= 1


def test_kills_are_shared_out_over_rounds() -> None:
    assert rounds(200, 100) == [(10, 5)] * 20
    assert rounds(3, 2) == [(3, 2)]
    assert [sum(each) for each in zip(*rounds(25, 4), strict=True)] == [25, 4]
