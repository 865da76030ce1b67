"""One budget for several jobs: it is never passed by their sum, nobody starves, who comes has all planned anew."""

from pathlib import Path
from typing import Any

import pytest
from support.auto import Auto
from support.rig import ME, Played, Rig, checked, spec

from carbonsched.errors import InputError, StateError
from carbonsched.model.job_state import JobState

FULL_G = 4 * 10 * 2 * 100 / 3.6e6 * 400
"""Of one job's steps at full speed."""
OVERHEAD_G = 0.25
"""Loading, checkpoints, the seconds between two segments."""


def lab(tmp_path: Path, devices: int = 2, **pool: Any) -> Rig:
    extra = {"zone": {"worst_g_per_kwh": 450}, "pools": [{"name": "lab", **pool}], "ledger": {"row_s": 5}}
    return Rig(tmp_path, extra=extra, devices=devices)


def join(rig: Rig, name: str, **carbon: Any) -> Auto:
    job = spec(name, **({"budget_g": None, "pool": "lab"} | carbon))
    return Auto(rig.submit(job, checked()))


def spent_g(rig: Rig) -> float:
    return sum(job.spent_g for job in rig.service.jobs(ME).jobs)


def play(rig: Rig, jobs: list[Auto], budget_g: float, seconds: int = 400) -> None:
    """Until all are over; the pool holds every two seconds."""
    for _ in range(seconds // 2):
        rig.run(2)
        assert spent_g(rig) <= budget_g
        if all(auto.job.show().state.ended for auto in jobs):
            return


def rhos(job: Played) -> list[float]:
    return [s.rho_directed for s in job.show().segments_done]


def test_equal_jobs_share_a_pool_alike_and_do_not_pass_it(tmp_path: Path) -> None:
    budget_g = 2 * (0.75 * FULL_G + OVERHEAD_G)
    rig = lab(tmp_path, budget_g=budget_g)
    jobs = [join(rig, "one"), join(rig, "two")]
    play(rig, jobs, budget_g)
    a, b = (auto.job.show() for auto in jobs)
    assert (a.state, b.state) == (JobState.FINISHED, JobState.FINISHED), (a.reason, b.reason)
    assert a.pool == "lab"
    assert a.spent_g == pytest.approx(b.spent_g, rel=0.25)
    assert sum(rhos(jobs[0].job)) == pytest.approx(sum(rhos(jobs[1].job)), rel=0.25)
    assert min(rhos(jobs[0].job)) < 1.0, "it was tight"
    assert rig.ledger.verify().ok


def test_a_heavier_job_gets_more_and_the_lighter_its_floor(tmp_path: Path) -> None:
    budget_g = 2 * (0.7 * FULL_G + OVERHEAD_G)
    rig = lab(tmp_path, budget_g=budget_g)
    jobs = [join(rig, "light"), join(rig, "heavy", weight=5.0)]
    play(rig, jobs, budget_g)
    light, heavy = (auto.job for auto in jobs)
    assert light.show().state is JobState.FINISHED, light.show().reason
    assert heavy.show().state is JobState.FINISHED
    assert sum(rhos(heavy)) > sum(rhos(light))
    assert all(rho >= 0.4 for rho in rhos(light))


def test_a_job_that_comes_has_the_others_planned_anew_at_once(tmp_path: Path) -> None:
    budget_g = FULL_G + OVERHEAD_G + 0.2
    rig = lab(tmp_path, budget_g=budget_g)
    first = join(rig, "first")
    rig.run(8)
    before = first.job.control()
    assert (before["k"], before["rho"]) == (0, pytest.approx(1.0))
    second = join(rig, "second")
    rig.run(2)
    after = first.job.control()
    assert after["k"] == 0, "in the same segment"
    assert after["rho"] < 0.95
    play(rig, [first, second], budget_g)
    assert first.job.show().state is JobState.FINISHED, first.job.show().reason


def test_who_does_not_fit_waits_in_the_queue_until_a_place_is_free(tmp_path: Path) -> None:
    floor_g = 0.4 * FULL_G + OVERHEAD_G
    budget_g = 1.5 * floor_g
    rig = lab(tmp_path, budget_g=budget_g)
    first, late = join(rig, "first"), join(rig, "late")
    rig.run(12)
    assert first.job.show().state is JobState.RUNNING
    assert late.job.show().state is JobState.QUEUED
    assert "waits for pool lab: needs" in late.job.show().reason
    assert first.job.control()["action"] == "train"
    rig.service.cancel(first.job.id, ME)
    rig.run(4)
    assert late.job.show().state is JobState.RUNNING, late.job.show().reason
    play(rig, [late], budget_g)


def test_a_daemon_killed_in_between_holds_the_pool(tmp_path: Path) -> None:
    budget_g = 2 * (0.75 * FULL_G + OVERHEAD_G)
    rig = lab(tmp_path, budget_g=budget_g)
    jobs = [join(rig, "one"), join(rig, "two")]
    rig.run(25)
    rig.supervisor.flush()
    rig.die()
    rig.clock.advance(2)
    rig.boot()
    play(rig, jobs, budget_g)
    assert {auto.job.show().state for auto in jobs} == {JobState.FINISHED}
    rig.supervisor.flush()
    over = rig.supervisor.pools.pools["lab"].left_g([])
    assert over == pytest.approx(budget_g - spent_g(rig), abs=1e-6), (
        "what jobs that are over spent stays counted"
    )


def test_a_pool_that_grows_gives_by_weight_and_nobody_starves(tmp_path: Path) -> None:
    rate = 3.0
    rig = lab(tmp_path, budget_rate_g_per_h=rate)
    jobs = [join(rig, "small"), join(rig, "big", weight=2.0)]
    for n in range(100):
        rig.run(20)
        assert spent_g(rig) <= rate * (1 + 20 * (n + 1) / 3600) + 1e-9
        if all(auto.job.show().state.ended for auto in jobs):
            break
    assert {auto.job.show().state for auto in jobs} == {JobState.FINISHED}, [
        a.job.show().reason for a in jobs
    ]


def test_a_guess_that_was_far_too_low_does_not_end_a_job_while_it_loads(tmp_path: Path) -> None:
    budget_g = 2.0
    rig = lab(tmp_path, devices=1, budget_g=budget_g)
    job = Auto(rig.submit(spec("slow", budget_g=None, pool="lab"), checked(step_flops_full=4e9)), load_s=40.0)
    told = rig.service.explain(spec("late", budget_g=None, pool="lab"), ME, checked())
    assert told.action == "train", told.reason
    assert told.budget.startswith("its part of pool lab")
    play(rig, [job], budget_g)
    assert job.job.show().state is JobState.FINISHED, job.job.show().reason


def test_a_pool_raised_in_the_config_is_recorded_and_used(tmp_path: Path) -> None:
    rig = lab(tmp_path, budget_g=0.2)
    job = join(rig, "poor")
    rig.run(5)
    assert job.job.show().state is JobState.QUEUED
    more = rig.config.pools[0].model_copy(update={"budget_g": 10.0})
    rig.supervisor.reconfigure(rig.config.model_copy(update={"pools": (more,)}))
    rig.run(5)
    assert job.job.show().state is JobState.RUNNING
    told = rig.ledger.history(None, kinds=("pool",))
    assert [entry["budget_g"] for entry in told] == [0.2, 10.0]


def test_what_a_pool_granted_spent_and_holds_is_shown_with_its_price(tmp_path: Path) -> None:
    budget_g = 2 * (0.75 * FULL_G + OVERHEAD_G)
    rig = lab(tmp_path, budget_g=budget_g)
    (empty,) = rig.service.pools(ME).pools
    assert (empty.left_g, empty.held_g, empty.jobs) == (budget_g, 0.0, ())
    assert empty.gain_per_more_g is None
    assert empty.price == "no price: no job draws on it"
    jobs = [join(rig, "one"), join(rig, "two")]
    rig.run(12)
    (pool,) = rig.service.pools(ME).pools
    assert (pool.name, pool.granted_g, pool.g_per_h) == ("lab", budget_g, None)
    assert pool.spent_g == pytest.approx(spent_g(rig))
    assert pool.left_g == pytest.approx(budget_g - pool.spent_g)
    assert pool.held_g == pytest.approx(pool.left_g)
    assert [job.name for job in pool.jobs] == ["one", "two"]
    assert sum(job.part_g for job in pool.jobs) == pytest.approx(pool.held_g)
    assert all(job.floor_g is not None and 0 < job.floor_g <= job.part_g for job in pool.jobs)
    assert pool.gain_per_more_g is not None
    # by the frontier from ρ = 0.6 on a gram buys no more than from there to 0.8
    assert 0 < pool.gain_per_more_g < 1 / (0.2 * FULL_G)
    assert pool.price.startswith("one more gram in this pool buys ")
    assert pool.price.endswith("% of a whole job's gain")
    play(rig, jobs, budget_g)
    rig.supervisor.flush()
    (after,) = rig.service.pools(ME).pools
    assert (after.jobs, after.jobs_over) == ((), 2)
    assert after.spent_g == pytest.approx(spent_g(rig), abs=1e-6)


def test_a_pool_says_in_words_why_a_gram_has_no_price(tmp_path: Path) -> None:
    rig = lab(tmp_path, budget_g=0.2)
    join(rig, "poor", weight=2.0)
    rig.run(3)
    (poor,) = rig.service.pools(ME).pools
    assert poor.gain_per_more_g is None
    assert poor.price.startswith("no price: what is left does not pay for the floor")
    assert (poor.jobs[0].weight, poor.jobs[0].part_g, poor.held_g) == (2.0, 0.0, 0.0)
    assert poor.jobs[0].floor_g is not None
    more = rig.config.pools[0].model_copy(update={"budget_g": 50.0})
    rig.supervisor.reconfigure(rig.config.model_copy(update={"pools": (more,)}))
    rig.run(12)
    (rich,) = rig.service.pools(ME).pools
    assert rich.gain_per_more_g == 0.0
    assert rich.price.startswith("one more gram buys nothing")
    grown = Rig(tmp_path / "b", extra={"pools": [{"name": "lab", "budget_rate_g_per_h": 3.0}]})
    join(grown, "one")
    grown.run(3)
    (pool,) = grown.service.pools(ME).pools
    assert (pool.g_per_h, pool.price) == (3.0, "no price: what accrues is shared by weight")
    assert pool.granted_g == pytest.approx(3.0, rel=0.01)


def test_the_price_is_of_a_job_of_weight_1_where_weights_differ(tmp_path: Path) -> None:
    rig = lab(tmp_path, budget_g=2 * (0.6 * FULL_G + OVERHEAD_G))
    join(rig, "light")
    join(rig, "heavy", weight=5.0)
    rig.run(12)
    (pool,) = rig.service.pools(ME).pools
    assert pool.price.endswith("% of the gain of a whole job of weight 1")


def test_a_pool_of_one_job_that_trains_at_one_rho_alone(tmp_path: Path) -> None:
    rig = lab(tmp_path, budget_g=5.0)
    jobs = [join(rig, "stiff", rho_min=1.0)]
    play(rig, jobs, 5.0)
    assert jobs[0].job.show().state is JobState.FINISHED


def test_a_pool_whose_only_job_is_paused(tmp_path: Path) -> None:
    rig = lab(tmp_path, budget_g=5.0)
    job = join(rig, "one")
    rig.run(12)
    rig.service.pause(job.job.id, ME)
    rig.run(10)
    rig.supervisor.pools.mark_stale(rig.supervisor.runs[job.job.id])
    rig.run(2)
    assert job.job.show().state is JobState.PAUSED
    assert rig.service.pools(ME).pools[0].left_g > 0


def test_a_pool_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    rig = lab(tmp_path, budget_g=1.0)
    with pytest.raises(InputError, match=r"carbon\.pool: this box has no pool 'lap'; its pools: lab"):
        rig.submit(spec(budget_g=None, pool="lap"))
    job = join(rig, "one")
    with pytest.raises(StateError, match="draws on pool lab"):
        rig.service.budget(job.job.id, 5.0, ME)
