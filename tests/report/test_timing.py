"""The timing effect against running at once: its sign, what was chosen and what was forced, and what is not known of it."""

from collections.abc import Sequence
from datetime import timedelta

import pytest
from support.job_history import GPU, PUE, T0, interval, submitted

from carbonsched.ledger import Ledger
from carbonsched.model.energy import EnergyMethod
from carbonsched.model.job_state import JobState
from carbonsched.report import build
from carbonsched.report.effects import Savings
from carbonsched.units import grams

HOUR = timedelta(hours=1)
KWH_MJ = 3_600_000_000
Hours = Sequence[tuple[str, float | None]]
"""For each hour what the job does (work, wait, pause, queue) and the grid's intensity."""
STATES = {
    "work": JobState.RUNNING,
    "wait": JobState.WAITING,
    "resident": JobState.WAITING,
    "pause": JobState.PAUSED,
    "queue": JobState.QUEUED,
}


def saved(hours: Hours, *, settled: dict[int, float] | None = None, counter: bool = True) -> Savings:
    """Of a job that uses a kWh in each hour of work; the host tells the grid's intensity all the time."""
    with Ledger.open("sqlite://") as ledger:
        ledger.add_job(submitted("j"))
        state = JobState.QUEUED
        for n, (does, g) in enumerate(hours):
            at, new = T0 + n * HOUR, STATES[does]
            if new is not state:
                if state is JobState.PAUSED and new is JobState.RUNNING:
                    ledger.set_state("j", JobState.QUEUED, "resumed", "ada", at)
                ledger.set_state("j", new, does, "daemon", at)
                state = new
            method = EnergyMethod.COUNTER if counter else EnergyMethod.INTEGRATED
            mine = {"job_id": "j", "segment": 0}
            if does == "work":
                ledger.append(
                    [interval(at, 3600, KWH_MJ, rho=0.5, g_per_kwh=g, method=method, **mine)]  # type: ignore[arg-type]
                )
            elif does == "resident":
                ledger.append([interval(at, 3600, KWH_MJ // 10, g_per_kwh=g, **mine)])  # type: ignore[arg-type]
            else:
                ledger.append([interval(at, 3600, 1000, g_per_kwh=g)])
        for n, later in (settled or {}).items():
            entry = {
                "start": stamp(n), "end": stamp(n + 1), "g_per_kwh": later, "provider": "neso", "zone": "GB", "zones": ["GB"],
                "basis": "average-direct", "kind": "actual", "note": "", "issued_at": None, "fetched_at": stamp(n),
                "body_sha256": None, "was": {"g_per_kwh": 1.0, "provider": "neso", "kind": "actual"},
            }  # fmt: skip
            ledger.note(None, "settled", entry, "daemon", T0)
        report = build(ledger, "j", now=T0 + 100 * HOUR)
    assert report.savings is not None
    return report.savings


def stamp(n: int) -> str:
    return (T0 + n * HOUR).isoformat(timespec="microseconds").replace("+00:00", "Z")


def g(*intensities: float) -> float:
    """A kWh at each."""
    return sum(grams(3.6e6, each, PUE) for each in intensities)


def test_a_pause_into_dirtier_hours_saved_nothing() -> None:
    """Against the mean of the span it would be +65%: the hours of the pause, in which it would never have run, count in that."""
    found = saved([("work", 100), *[("pause", 100)] * 2, *[("pause", 1300)] * 6, ("work", 500)])
    assert found.timing.saved_g == pytest.approx(g(100, 100) - g(100, 500))
    assert found.timing.share == pytest.approx(-2.0)
    assert (found.chosen.saved_g, found.forced.saved_g) == (pytest.approx(0.0), found.timing.saved_g)
    assert found.mean_intensity.share == pytest.approx(0.651, abs=0.001), "under its own name"
    assert "at the mean intensity" in found.mean_intensity.against
    assert "begun at submission and run without pause" in found.timing.against
    assert found.timing.inputs["forced_wait_s"] == 8 * 3600


def test_a_wait_for_a_cleaner_hour_is_chosen_and_pays_for_itself_first() -> None:
    gone, stays = (
        saved([("work", 400), (how, 400), (how, 400), ("work", 100)]) for how in ("wait", "resident")
    )
    assert gone.timing.saved_g == gone.chosen.saved_g == pytest.approx(g(400, 400) - g(400, 100))
    assert gone.forced.saved_g == pytest.approx(0.0)
    wasted = g(400, 400) / 10
    assert stays.timing.saved_g == pytest.approx(g(400, 400) - g(400, 100) - wasted)
    assert stays.timing.inputs["waiting_g"] == pytest.approx(wasted)
    assert stays.timing.inputs["waited_s"] == 2 * 3600


def test_forced_and_chosen_waits_are_told_apart_and_come_to_the_whole() -> None:
    found = saved(
        [("queue", 100), ("queue", 200), ("work", 300), ("wait", 400), ("pause", 500), ("work", 250)]
    )
    at_once, forced_alone, ran = g(100, 200), g(300, 500), g(300, 250)
    assert found.timing.saved_g == pytest.approx(at_once - ran)
    assert found.chosen.saved_g == pytest.approx(forced_alone - ran)
    assert found.forced.saved_g == pytest.approx(at_once - forced_alone)
    assert found.timing.baseline_g == pytest.approx(at_once)


def test_a_job_that_ran_at_once_saved_nothing_exactly() -> None:
    found = saved([("work", 100), ("work", 400), ("work", 50)])
    for effect in (found.timing, found.chosen, found.forced):
        assert (effect.saved_g, effect.low_g, effect.high_g, effect.estimated) == (0.0, 0.0, 0.0, False)
    assert saved([("work", 100)], counter=False).timing.estimated, "its energy is"


def test_hours_that_nobody_metered_make_a_range() -> None:
    found = saved([("queue", None), ("queue", 300), ("work", 100), ("work", 200)]).timing
    assert found.estimated
    assert found.inputs["unknown_s"] == 3600
    assert found.saved_g == pytest.approx(g(200, 300) - g(100, 200)), "the mean of the span stands in"
    assert found.low_g == pytest.approx(g(100, 300) - g(100, 200))
    assert found.high_g == pytest.approx(g(300, 300) - g(100, 200))


def test_what_was_settled_since_widens_the_range() -> None:
    hours: Hours = [("queue", 300), ("work", 100)]
    found = saved(hours, settled={0: 500.0}).timing
    assert (found.saved_g, found.low_g) == (pytest.approx(g(300) - g(100)),) * 2
    assert found.high_g == pytest.approx(g(500) - g(100))
    found = saved(hours, settled={1: 160.0}).timing
    assert found.low_g == pytest.approx(g(300) - g(160))


def test_without_any_intensity_it_is_not_known() -> None:
    found = saved([("work", None)])
    for effect in (found.timing, found.chosen, found.forced, found.mean_intensity):
        assert (effect.saved_g, effect.reason) == (None, "no row has both energy and intensity")


def test_two_boards_move_together() -> None:
    with Ledger.open("sqlite://") as ledger:
        ledger.add_job(submitted("j"))
        for n, each in enumerate((100.0, 400.0)):
            at = T0 + n * HOUR
            boards = (GPU, "GPU-2") if n else ()
            ledger.append(
                [
                    interval(at, 3600, KWH_MJ, board=board, job_id="j", segment=0, g_per_kwh=each)
                    for board in boards
                ]
                or [interval(at, 3600, 1000, g_per_kwh=each)]
            )
        report = build(ledger, "j", now=T0 + 2 * HOUR)
    assert report.savings is not None
    assert report.savings.timing.saved_g == pytest.approx(2 * (g(100) - g(400)))
