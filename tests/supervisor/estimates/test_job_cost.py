"""What a job takes, before any of its segments has told, and by the first steps of the one under way."""

from pathlib import Path

import pytest
from support.auto import Auto
from support.rig import Rig, checked, spec


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


def test_jobs_that_start_in_one_tick_share_an_estimate_until_one_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads the newest jobs of the ledger while the supervisor's lock is held."""
    rig = Rig(tmp_path)
    jobs = [rig.submit(spec(f"job-{n}"), foreseen=checked(step_flops_full=1e11)) for n in range(6)]
    asked, newest = list[int](), rig.ledger.newest
    monkeypatch.setattr(rig.ledger, "newest", lambda most: asked.append(most) or newest(most))
    costs, runs = rig.supervisor.control.estimates.costs, [rig.supervisor.runs[job.id] for job in jobs]
    assert len({costs.throughput(run) for run in runs}) == 1
    assert len(asked) == 1
    costs.forget(runs[0])
    costs.throughput(runs[1])
    assert len(asked) == 2
    rig.clock.advance(11.0)
    costs.throughput(runs[1])
    assert len(asked) == 3


class Telling(Auto):
    """Says its steps, at most one a second, and the mean ρ of each segment."""

    def __post_init__(self) -> None:
        super().__post_init__()
        done, whole_s = self.job.done, self.job.segment * self.step_s

        def tell(k: int, rho: float, seconds: float) -> None:
            done(k, min(seconds / whole_s, 1.0), seconds)

        self.job.done = tell  # type: ignore[method-assign]

    cold = 0
    """First steps that take four times as long."""

    def second(self) -> None:
        before = int(self._step)
        self.step_s = 8.0 if before < self.cold else 2.0
        super().second()
        done = int(self._step)
        if before < done and done % self.job.segment:
            rho = self.job.control()["rho"]
            told = {
                "steps": self.job.steps,
                "loss": 2.0,
                "lr": 1e-3,
                "seconds": self.step_s * rho,
                "rho": rho,
            }
            self.job.say("step", k=done // self.job.segment, step=done, **told)


@pytest.mark.parametrize("believed", [4.0, 2.0, 1.0, 0.5])
def test_the_first_steps_set_a_wrong_first_guess_right(tmp_path: Path, believed: float) -> None:
    """An importance pass may take twice as long as a step, or half as long: the first segment is planned by it. Steps take 2 s."""
    rig = Rig(tmp_path, extra={"zone": {"worst_g_per_kwh": 500}})
    job = rig.submit(spec(budget_g=0.75), checked(step_flops_full=3e12 * believed))
    auto, ready, told = Telling(job), job.ready, []

    def offer(k: int) -> None:
        ready(k, seconds_per_step=believed if k == 0 else 2.0)

    job.ready = offer  # type: ignore[assignment, method-assign]
    while not auto.over and rig.clock.monotonic() < 200:
        rig.run(1)
        directive = job.control() if (job.dir / "control.json").exists() else {"k": -1}
        if directive["k"] == 0 and directive["rho"] not in told:
            told.append(directive["rho"])
    rig.run(2)
    shown = job.show()
    assert auto.over, shown.reason
    assert 0.85 <= shown.spent_g / 0.75 <= 1.0
    if believed == 4.0:
        assert told[0] < 0.5 < told[-1], "it need not stay at the floor for its first quarter"
    elif believed == 2.0:
        assert len(told) == 1, "it was right"
    else:
        assert told[0] == 1.0 > told[1]


def test_slow_first_steps_end_no_job(tmp_path: Path) -> None:
    """By the pace of the first three all the grams left would not pay for the lowest ρ."""
    rig = Rig(tmp_path, extra={"zone": {"worst_g_per_kwh": 500}})
    job = rig.submit(spec(budget_g=1.0), checked())
    auto = Telling(job)
    auto.cold = 3
    while not auto.over and rig.clock.monotonic() < 200:
        rig.run(5)
    assert auto.over, job.show().reason
    assert job.show().spent_g <= 1.0


def test_few_steps_do_not_outweigh_what_this_model_took_before(tmp_path: Path) -> None:
    """A cold first step of a job whose model was measured here moves its estimate by a fifth at most."""
    rig = Rig(tmp_path)
    foreseen = checked(step_flops_full=1e11)
    earlier = rig.running(foreseen=foreseen)
    for k in range(4):
        for _ in earlier.play(k):
            pass
    earlier.finish()
    job = rig.running(foreseen=foreseen)
    job.ready(0)
    rig.run(1)
    costs, run = rig.supervisor.control.estimates.costs, rig.supervisor.runs[job.id]
    known = costs.estimate(run).seconds_full
    rho = job.control()["rho"]
    rig.run(8)
    job.say("step", k=0, step=1, steps=40, loss=2.0, lr=1e-3, seconds=8.0 * rho, rho=rho)
    rig.run(1)
    assert known < costs.estimate(run).seconds_full < 1.35 * known
    for step in range(2, 8):
        rig.run(1)
        job.say("step", k=0, step=step, steps=40, loss=2.0, lr=1e-3, seconds=1.0, rho=rho)
    rig.run(1)
    assert costs.estimate(run).seconds_full == pytest.approx(1.0 / rho, rel=0.15)


def test_what_a_process_does_once_is_expected_of_no_later_segment(tmp_path: Path) -> None:
    """It takes 22 s after the evaluation before training to its first segment, and 2 s between two."""
    rig = Rig(tmp_path)
    job = rig.running()
    held_out = {"loss": 3.0, "samples": 8, "tokens": 80, "seconds": 2.0}
    job.say("evaluated", when="before", step=0, **held_out)
    rig.run(22)
    costs, run = rig.supervisor.control.estimates.costs, rig.supervisor.runs[job.id]
    expected = []
    for k in range(3):
        for _ in job.play(k):
            pass
        job.say("checkpoint", k=k, step=(k + 1) * job.segment, path="c", seconds=1.0, bytes=10)
        rig.run(2)
        model = costs.estimate(run)
        expected.append((model.overhead_s, model.overhead_j))
    assert all(seconds <= 5.0 and joules <= 500.0 for seconds, joules in expected), expected
    assert expected[-1] == (pytest.approx(4.0, abs=1.0), pytest.approx(400.0, abs=100.0)), "it is metered"
