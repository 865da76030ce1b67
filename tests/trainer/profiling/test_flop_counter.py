"""Counting real work, and T_full at any shape from a few traces."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.models import tiny_llama, tiny_t5

from trainer.profiling.flop_counter import FullStepFlops, Shape, StepCounter
from trainer.profiling.meta_model import meta_model
from trainer.profiling.profiler import profile


@given(
    st.lists(st.tuples(st.integers(1, 8), st.integers(1, 999), st.integers(1, 999)), min_size=1, max_size=30)
)
def test_a_quadratic_is_followed_exactly(shapes: list[tuple[int, int, int]]) -> None:
    traced: list[Shape] = []

    def trace(shape: Shape) -> float:
        traced.append(shape)
        s, t = shape.seq, shape.target_seq or 0
        return shape.batch * (7.0 * s + 3 * s * s + 5 * t + 2 * t * t + 11 * s * t)

    full = FullStepFlops(trace)
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

    full = FullStepFlops(trace)
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


def test_products_in_place_and_of_a_wider_dtype_are_counted() -> None:
    a, b, to = torch.ones(3, 4), torch.ones(4, 5), torch.zeros(3, 5)
    with StepCounter() as counter:
        to.addmm_(a, b)
        torch.zeros(2, 3, 5).baddbmm_(a.expand(2, 3, 4), b.expand(2, 4, 5))
        # what a GPU calls for `torch.addmm(…, out_dtype=torch.float32)`
        counter._mode._count_flops(torch.ops.aten.addmm, to, (to, a, b, torch.float32), {"out": to})  # type: ignore[no-untyped-call]
    assert counter.flops == 2 * 3 * 4 * 5 * (1 + 2 + 1)


@pytest.mark.parametrize("asked", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 8])
def test_each_gradient_of_a_convolution_costs_what_its_output_does(
    groups: int, transposed: bool, asked: tuple[bool, bool]
) -> None:
    """Torch forgets `groups` in the weight's: 16 times too much where each of 16 channels has a filter of its own."""
    kind = torch.nn.ConvTranspose1d if transposed else torch.nn.Conv1d
    layer = kind(8, 16, 3, stride=2, groups=groups)
    layer.weight.requires_grad_(asked[1])
    x = torch.ones(2, 8, 11, requires_grad=asked[0])
    with StepCounter() as counter:
        layer(x).sum().backward()
    places = 11 if transposed else 5
    output = 2 * 2 * places * 3 * 8 * 16 / groups
    assert counter.flops == output * (1 + sum(asked))


def test_logits_formed_again_by_a_fused_loss_are_recomputation() -> None:
    """As TRL's fused head does: the backward pass writes the product into a buffer once more."""

    class Fused(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(hidden, weight)
            return (hidden @ weight).sum()

        @staticmethod
        def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
            hidden, weight = ctx.saved_tensors
            logits = torch.empty(len(hidden), weight.shape[1])
            torch.mm(hidden, weight, out=logits)
            return torch.ones_like(logits) @ weight.T, None

    hidden = torch.ones(3, 4, requires_grad=True)
    with StepCounter() as counter:
        Fused.apply(hidden, torch.ones(4, 5)).backward()  # type: ignore[no-untyped-call]
    assert counter.recomputed == 2 * 3 * 4 * 5
    assert counter.flops == 2 * counter.recomputed


def test_counting_a_step_does_not_change_a_bit_of_it() -> None:
    """Torch's counter takes apart what has a composite kernel, though the device has a faster one that rounds otherwise."""
    from trainer.profiling.profiler import WHOLE

    has = torch._C._dispatch_has_kernel_for_dispatch_key
    apart = {
        name
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("aten::")
        and has(name, "CompositeImplicitAutograd")
        and (has(name, "CPU") or has(name, "CUDA"))
    }
    assert apart <= {op.name() for op in WHOLE}

    def gradient(counted: bool) -> torch.Tensor:
        x = torch.linspace(-9, 9, 1001, requires_grad=True)
        with StepCounter() if counted else contextlib.nullcontext():
            (torch.nn.functional.silu(x) * torch.nn.functional.mish(x)).sum().backward()
        assert x.grad is not None
        return x.grad

    assert torch.equal(gradient(counted=True), gradient(counted=False))
