"""What a job takes, before any of its segments has told."""

from pathlib import Path

import pytest
from support.rig import Rig, checked


@pytest.mark.parametrize("known", [True, False])
def test_real_steps_of_the_model_tell_more_than_an_importance_pass(tmp_path: Path, known: bool) -> None:
    """The first pass of a process takes up to four times as long as a step: by it alone ρ would begin at its floor."""
    rig = Rig(tmp_path)
    foreseen = checked(step_flops_full=1e11)
    if known:
        earlier = rig.running(foreseen=foreseen)
        for k in range(4):
            for _ in earlier.play(k):
                pass
        earlier.finish()
    job = rig.running(foreseen=foreseen)
    job.ready(0, seconds_per_step=8.0)
    rig.run(1)
    energy = rig.supervisor.control.estimates.costs.estimate(rig.supervisor.runs[job.id])
    assert energy.seconds_full == pytest.approx(2.0 if known else 8.0, rel=0.2)
