"""What a step of each setting is taken to bring, before a job has shown it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbonsched.model.methods.efficiency import prior_efficiency
from carbonsched.model.methods.traits import METHODS

NAMES = st.sampled_from([*METHODS, "tokens", "somebody's own"])
NUMBERS = st.one_of(st.floats(-1, 3), st.sampled_from([math.nan, math.inf]))


@given(name=NAMES, rho=NUMBERS, floor=NUMBERS, share=st.one_of(st.none(), st.floats(0.001, 1)))
def test_an_efficiency_is_a_share_of_a_full_step_whatever_is_asked(
    name: str, rho: float, floor: float, share: float | None
) -> None:
    found = prior_efficiency(name, rho, floor=floor, share=share)
    assert 0 < found.median <= 1
    assert 0 <= found.sd < 1


@given(name=NAMES, low=st.floats(0, 1), high=st.floats(0, 1))
def test_a_higher_rho_brings_no_less(name: str, low: float, high: float) -> None:
    low, high = sorted((low, high))
    assert prior_efficiency(name, low).median <= prior_efficiency(name, high).median + 1e-12


def test_full_is_the_measure_and_tensors_bring_less_than_their_flops_as_measured():
    assert prior_efficiency("full", 1.0) == (1.0, 0.0)
    assert prior_efficiency("tokens", 1.0, share=1.0) == (1.0, 0.0)
    assert prior_efficiency("greentrainer", 0.6).median == pytest.approx(0.5)
    assert prior_efficiency("greentrainer", 0.5).median < 0.3
    everywhere, some = prior_efficiency("lora", 0.7), prior_efficiency("lora", 0.68, all_linear=False)
    assert everywhere.median > 1.5 * some.median
    assert everywhere.sd > prior_efficiency("greentrainer", 0.6).sd, (
        "it differs more from data set to data set"
    )


def test_a_pair_brings_what_its_tokens_bring_less_what_its_missing_tensors_cost() -> None:
    """The three pairs of docs/results.md, their worth read off the losses: .12, .73 and .82 of a full step."""
    below = prior_efficiency("greentrainer+tokens", 0.35, floor=0.336, share=0.21).median
    half = prior_efficiency("greentrainer+tokens", 0.54, floor=0.336, share=0.6).median
    tokens = prior_efficiency("tokens", 0.55, floor=0.42, share=0.29).median
    assert below == pytest.approx(0.1, abs=0.03)
    assert below < half < tokens
    every = prior_efficiency("greentrainer+tokens", 1 / 3 + 2 / 3 * 0.6, floor=0.336, share=0.6)
    assert every.median == pytest.approx(prior_efficiency("tokens", 0.73, share=0.6).median)
