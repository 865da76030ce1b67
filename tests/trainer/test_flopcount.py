"""Counting real work, and T_full at any shape from a few traces."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.models import tiny_llama, tiny_t5

from trainer.flopcount import FullCost, Shape, StepCounter
from trainer.flops import profile
from trainer.meta import meta_model


@given(
    st.lists(st.tuples(st.integers(1, 8), st.integers(1, 999), st.integers(1, 999)), min_size=1, max_size=30)
)
def test_a_quadratic_is_followed_exactly(shapes: list[tuple[int, int, int]]) -> None:
    traced: list[Shape] = []

    def trace(shape: Shape) -> float:
        traced.append(shape)
        s, t = shape.seq, shape.target_seq or 0
        return shape.batch * (7.0 * s + 3 * s * s + 5 * t + 2 * t * t + 11 * s * t)

    full = FullCost(trace)
    for shape in (Shape(*s) for s in shapes):
        expected = trace(shape)
        traced.pop()
        assert full.flops(shape) == pytest.approx(expected, rel=1e-6)
    assert len(traced) <= 6


@pytest.mark.parametrize("make", [tiny_llama, tiny_t5])
def test_real_models_are_such_quadratics(make: Any, tmp_path: Path) -> None:
    model = meta_model(make(tmp_path, layers=1))
    target = 8 if make is tiny_t5 else None
    traces = 0

    def trace(shape: Shape) -> float:
        nonlocal traces
        traces += 1
        return profile(model, *shape).full_flops

    full = FullCost(trace)
    for n in range(8):
        shape = Shape(1 + n % 3, 8 + 5 * n, target and target + (n * n) % 7)
        assert full.flops(shape) == pytest.approx(profile(model, *shape).full_flops, rel=1e-9)
    assert traces <= (6 if target else 3)


def test_a_counter_may_be_stopped_twice() -> None:
    counter = StepCounter()
    counter.start()
    a = torch.ones(4, 3) @ torch.ones(3, 5)
    counter.stop()
    counter.stop()
    assert a.shape == (4, 5)
    assert (counter.flops, counter.recomputed) == (2 * 4 * 3 * 5, 0)
