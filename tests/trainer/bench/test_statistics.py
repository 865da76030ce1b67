"""The paired bootstrap: what it must find, what it must not, and how often."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.bench.result import HeldOutResult
from trainer.bench.statistics import difference


def held(nll: np.ndarray, tokens: np.ndarray) -> HeldOutResult:
    return HeldOutResult(
        nll=float(nll.sum() / tokens.sum()),
        row_nll=tuple(nll.tolist()),
        row_tokens=tuple(int(t) for t in tokens),
    )


def rows(seed: int, count: int = 200) -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(5, 40, count)
    return rng, tokens, tokens * rng.normal(3, 0.5, count)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(-0.2, 0.2))
def test_a_shift_of_every_token_is_found_exactly(seed: int, shift: float) -> None:
    _, tokens, nll = rows(seed)
    found = difference([held(nll + shift * tokens, tokens)], [held(nll, tokens)], draws=200)
    assert found.mean == pytest.approx(shift, abs=1e-9)
    assert found.low == pytest.approx(shift, abs=1e-9)
    assert found.high == pytest.approx(shift, abs=1e-9)


def test_no_difference_is_called_one_in_about_five_percent_of_cases() -> None:
    wrong = 0
    for seed in range(300):
        rng, tokens, nll = rows(seed)
        other = nll + rng.normal(0, 0.3, len(nll)) * tokens**0.5
        wrong += difference([held(other, tokens)], [held(nll, tokens)], draws=500).significant
    assert 3 <= wrong <= 30


def test_a_detectable_difference_is_detected_in_about_four_of_five_cases() -> None:
    found = 0
    for seed in range(300):
        rng, tokens, nll = rows(seed)
        noise = rng.normal(0, 0.3, len(nll)) * tokens**0.5
        least = difference([held(nll + noise, tokens)], [held(nll, tokens)], draws=500).detectable
        other = nll + noise + least * tokens
        found += difference([held(other, tokens)], [held(nll, tokens)], draws=500).significant
    assert 0.7 <= found / 300 <= 0.9


def test_runs_on_other_rows_or_without_a_partner_are_refused() -> None:
    _, tokens, nll = rows(0)
    one = held(nll, tokens)
    with pytest.raises(ValueError, match="same rows"):
        difference([one], [held(nll, tokens + 1)])
    with pytest.raises(ValueError, match="paired"):
        difference([one, one], [one])
