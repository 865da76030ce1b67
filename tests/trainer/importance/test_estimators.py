"""Each estimator is a sum over chunks: how a tensor is cut up does not show."""

import pytest
import torch

from trainer.importance.estimators import ESTIMATORS


@pytest.mark.parametrize("name", ESTIMATORS)
def test_chunks_add_up_to_the_whole(name: str) -> None:
    draw = torch.Generator().manual_seed(0)
    w, g, u = (torch.randn(100, generator=draw, dtype=torch.float64) for _ in range(3))
    fold = ESTIMATORS[name].fold
    whole = fold(w, g, u)
    parts = [fold(*cut) for cut in zip(w.split(7), g.split(7), u.split(7), strict=True)]
    for i, number in enumerate(whole):
        assert float(sum(part[i] for part in parts)) == pytest.approx(float(number))


@pytest.mark.parametrize("name", [n for n, e in ESTIMATORS.items() if not e.updates])
def test_what_says_it_needs_no_update_uses_none(name: str) -> None:
    w, g = torch.ones(4), torch.full((4,), 2.0)
    first, second = (ESTIMATORS[name].fold(w, g, u)[0] for u in (torch.empty(0), torch.ones(4)))
    assert first == second > 0


def test_the_second_number_is_the_curvature_along_the_update() -> None:
    g, u = torch.tensor([1.0, -2.0, 3.0]), torch.tensor([0.5, 1.0, 2.0])
    gain, curvature = ESTIMATORS["curvature"].fold(torch.zeros(3), g, u)
    assert float(gain) == 0.5 - 2 + 6
    assert float(curvature) == 0.25 + 4 + 36
