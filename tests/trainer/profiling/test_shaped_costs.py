"""Costs of selections at shapes that were not traced are those of a profile there."""

import pytest
from support.shapes import ARCHITECTURES, HYBRIDS, on_meta

from trainer.profiling.flop_counter import FullStepFlops, Shape
from trainer.profiling.profiler import profile
from trainer.profiling.shaped_costs import ShapedCosts
from trainer.selection.cost_model import CostModel


@pytest.mark.parametrize("name", ["t5", "mamba2"])
def test_a_selection_costs_what_a_profile_at_its_shape_says(name: str) -> None:
    model = on_meta((ARCHITECTURES | HYBRIDS)[name]())
    writes, costs = name == "t5", ShapedCosts()
    full = FullStepFlops(lambda shape: costs.note(shape, profile(model, *shape)).full_flops)
    shapes = [Shape(2, 5 + 9 * n, 3 + n * n % 11 if writes else None) for n in range(11)]
    names = [n for n, _ in model.named_parameters()]
    for selected in (names[-4:], names[1::5]):
        for shape in shapes[-3:]:
            full.total(shapes)
            expected = CostModel.of(profile(model, *shape)).flops(selected)
            assert costs.flops(selected, shape, full) == pytest.approx(expected, rel=1e-6)
        whole = sum(costs.flops(selected, shape, full) for shape in shapes)
        assert costs.ratio(selected, shapes, full) == pytest.approx(whole / full.total(shapes))
