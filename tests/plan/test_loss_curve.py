"""The loss curve: what it learns from a job's losses, what it never does, and how well it foretold runs that were recorded."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.loss_curve import calibrate, recorded_runs
from carbonsched.model.methods.efficiency import Efficiency, prior_efficiency
from carbonsched.plan.loss_curve import HeldOut, LossCurve, LossHistory, Stretch

FULL = Efficiency(1.0, 0.0)
NAN = math.nan

losses = st.one_of(st.none(), st.floats(0, 20), st.sampled_from([NAN, math.inf, -1.0, 1e9]))
stretches = st.lists(
    st.builds(
        Stretch,
        method=st.sampled_from(["full", "tokens", "greentrainer"]),
        steps=st.floats(0, 500),
        efficiency=st.builds(Efficiency, st.floats(0.01, 1), st.floats(0, 0.5)),
        loss=losses,
        epoch=st.floats(0, 5),
    ),
    max_size=5,
).map(tuple)
histories = st.builds(
    LossHistory,
    stretches=stretches,
    held_out=st.lists(st.builds(HeldOut, after=st.integers(0, 5), loss=losses), max_size=4).map(tuple),
)


@settings(max_examples=30, deadline=None)
@given(own=histories, other=histories, ahead=stretches)
def test_whatever_was_seen_a_prediction_is_finite_repeatable_and_no_higher_after_more_steps(
    own: LossHistory, other: LossHistory, ahead: tuple[Stretch, ...]
) -> None:
    curve, again = LossCurve.fit(own, (other,)), LossCurve.fit(own, (other,))
    before = curve.predict(())
    for i in range(len(ahead) + 1):
        found = curve.predict(ahead[:i])
        assert all(math.isfinite(v) for v in (found.loss, found.low, found.high))
        assert found.low <= found.loss <= found.high or found.loss < 0
        assert found.loss <= before.loss + 1e-9
        assert found == again.predict(ahead[:i])
        before = found
    for stretch in ahead:
        assert curve.fall(stretch).loss >= 0


def _run(
    *, first: float, fall: float, x0: float, b: float, worth: float, noise: float, seed: int
) -> tuple[LossHistory, float]:
    """Six stretches of 40 steps, of which three of `tokens`, on a curve of the kind; and the loss at their end."""
    rng = np.random.default_rng(seed)

    def loss(x: float) -> float:
        return float(first - fall * (1 - (1 + x / x0) ** -b))

    x, shown = 0.0, []
    for i in range(6):
        tokens = i in (1, 2, 4)
        span = 40.0 * (worth if tokens else 1.0)
        mean = float(np.mean([loss(x + span * f) for f in np.linspace(0, 1, 50)])) + rng.normal(0, noise)
        kind = Stretch("tokens", 40.0, Efficiency(0.6, 0.2)) if tokens else Stretch("full", 40.0, FULL)
        shown.append(replace(kind, loss=mean))
        x += span
    return LossHistory(tuple(shown), (HeldOut(0, first),)), loss(x)


@settings(max_examples=12, deadline=None)
@given(
    first=st.floats(2.5, 5.0),
    share=st.floats(0.15, 0.5),
    x0=st.floats(4.0, 25.0),
    b=st.floats(0.3, 0.9),
    worth=st.floats(0.5, 0.75),
    seed=st.integers(0, 99),
)
def test_a_band_holds_the_end_of_a_run_of_its_kind_and_narrows(
    first: float, share: float, x0: float, b: float, worth: float, seed: int
) -> None:
    whole, end = _run(first=first, fall=share * first, x0=x0, b=b, worth=worth, noise=0.03, seed=seed)
    margins = []
    for known in (0, 2, 6):
        own = LossHistory(whole.stretches[:known], whole.held_out)
        ahead = [replace(s, loss=None) for s in whole.stretches[known:]]
        found = LossCurve.fit(own).predict(ahead)
        assert abs(found.loss - end) <= 1.6 * found.margin
        margins.append(found.margin)
    assert margins[0] > margins[1] > margins[2]


def test_losses_that_are_none_and_one_that_lies_far_off_change_little() -> None:
    whole, end = _run(first=3.5, fall=0.9, x0=8.0, b=0.5, worth=0.6, noise=0.0, seed=0)
    plain = LossCurve.fit(whole).predict(())
    assert abs(plain.loss - end) < 0.04
    for bad, most in ((NAN, 0.02), (math.inf, 0.02), (None, 0.02), (9.0, 0.08)):
        spoilt = list(whole.stretches)
        spoilt[3] = replace(spoilt[3], loss=bad)
        found = LossCurve.fit(replace(whole, stretches=tuple(spoilt))).predict(())
        assert abs(found.loss - plain.loss) < most


def test_a_loss_that_rises_is_foretold_to_stay_not_to_rise_on() -> None:
    shown = tuple(Stretch("full", 50.0, FULL, 3.0 + 0.2 * i) for i in range(5))
    curve = LossCurve.fit(LossHistory(shown, (HeldOut(0, 3.0), HeldOut(5, 4.0))))
    now, later = curve.predict(()), curve.predict((Stretch("full", 500.0, FULL),))
    assert later.loss <= now.loss
    assert now.loss - later.loss < 0.1


def test_without_any_loss_it_tells_the_share_that_remains_of_the_first() -> None:
    curve = LossCurve.fit(LossHistory())
    found = curve.predict((Stretch("full", 100.0, FULL),))
    assert curve.relative
    assert curve.predict(()).loss == pytest.approx(1.0)
    assert 0.6 < found.loss < 0.9
    assert found.margin > 0.1


def test_an_earlier_job_of_the_same_data_narrows_what_is_foretold_before_the_first_step() -> None:
    whole, end = _run(first=3.5, fall=0.9, x0=8.0, b=0.5, worth=0.6, noise=0.02, seed=1)
    earlier = replace(whole, held_out=(*whole.held_out, HeldOut(6, end)))
    own = LossHistory(held_out=(HeldOut(0, 3.5),))
    ahead = [replace(s, loss=None) for s in whole.stretches]
    alone, taught = LossCurve.fit(own).predict(ahead), LossCurve.fit(own, (earlier,)).predict(ahead)
    assert taught.margin < 0.25 * alone.margin
    assert abs(taught.loss - end) < 0.05


def test_a_method_that_nothing_has_shown_yet_has_the_band_of_its_prior() -> None:
    """A first job of adapters, told by one of tensors: by what a step of adapters may be worth it misses as well."""
    whole, end = _run(first=3.5, fall=0.9, x0=8.0, b=0.5, worth=0.6, noise=0.02, seed=1)
    earlier, own = replace(whole, held_out=(*whole.held_out, HeldOut(6, end))), LossHistory()
    curve = LossCurve.fit(own, (earlier,))
    sure, unsure = (curve.predict((Stretch("lora", 100.0, Efficiency(0.9, sd)),)) for sd in (0.0, 0.35))
    assert unsure.margin > 1.3 * sure.margin
    assert unsure.loss == pytest.approx(sure.loss, abs=0.03)
    falls = [curve.fall(Stretch("lora", 100.0, Efficiency(0.9, sd))).margin for sd in (0.0, 0.35)]
    assert falls[1] > falls[0]


def test_a_setting_that_brings_less_than_thought_is_learned_from_the_losses() -> None:
    prior = prior_efficiency("greentrainer", 0.6)
    flat = tuple(Stretch("greentrainer", 60.0, prior, 3.3 - 0.02 * i) for i in range(5))
    whole, end = _run(first=3.5, fall=0.9, x0=8.0, b=0.5, worth=0.6, noise=0.0, seed=1)
    earlier = replace(whole, held_out=(*whole.held_out, HeldOut(6, end)))
    curve = LossCurve.fit(LossHistory(flat, (HeldOut(0, 3.5),)), (earlier,))
    assert curve.efficiency("greentrainer", prior).median < 0.8 * prior.median
    assert curve.efficiency("tokens", Efficiency(0.6, 0.2)).sd <= 0.2
    assert curve.efficiency("lora", Efficiency(0.5, 0.25)) == Efficiency(0.5, 0.25)


def test_what_recorded_runs_came_to_lies_in_the_bands_told_before_them() -> None:
    """Told by one run of full fine-tuning on the same rows; and by the job's first losses alone."""
    found = {row.told: row for row in calibrate(recorded_runs()[::2])}
    taught, alone = found["one full run of the same data"], found["the loss before"]
    assert taught.runs >= 30
    assert taught.error < 0.06  # of all runs: .039, a half band of .088, coverage 95%
    assert taught.coverage >= 0.85
    assert alone.coverage >= 0.9
    assert alone.margin > taught.margin
