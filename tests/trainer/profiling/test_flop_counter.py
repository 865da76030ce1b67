"""Counting real work, and T_full at any shape from a few traces."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.models import tiny_llama, tiny_t5
from support.shapes import HYBRIDS, on_meta

from carbonsched.errors import InputError
from trainer.profiling.flop_counter import FullStepFlops, Shape, StepCounter
from trainer.profiling.length_fit import MOST
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
    assert len(traced) <= 16  # six unknowns, one check, and what lies outside


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
    shapes = [Shape(1 + n % 3, 8 + 5 * n, target and target + (n * n) % 7) for n in range(12)]
    assert full.total(shapes) == pytest.approx(sum(profile(model, *s).full_flops for s in shapes), rel=1e-9)
    assert traces <= (8 if target else 4)


@pytest.mark.parametrize(
    "lengths",
    [
        list(range(20, 190, 7)),
        list(range(190, 5, -7)),
        [*range(8, 130, 8), 37, 101],  # multiples of a chunk hide it
        [150, 11, 77, 160, 63, 64, 65, 128, 129, 3, 190],
    ],
)
@pytest.mark.parametrize("chunk", [0, 4, 8, 64])
@pytest.mark.parametrize("target", [None, 9])
def test_a_row_padded_to_whole_chunks_costs_what_the_padded_one_does(
    chunk: int, lengths: list[int], target: int | None
) -> None:
    traced: list[Shape] = []

    def flops(s: Shape) -> float:
        padded = -(-s.seq // chunk) * chunk if chunk else 0
        read = 7 * s.seq + 3 * s.seq**2 + 50 * padded + padded**2 + 1000 * (padded > 0)
        return s.batch * (read + 5.0 * (s.target_seq or 0) ** 2 + 2 * s.seq * (s.target_seq or 0))

    def trace(shape: Shape) -> float:
        if shape.seq > 256:
            raise InputError("seq", "is longer than the model takes")
        traced.append(shape)
        return flops(shape)

    full = FullStepFlops(trace)
    for n, length in enumerate(lengths):
        shape = Shape(2, length, target and target + n % 5)
        assert full.flops(shape) == pytest.approx(flops(shape), rel=1e-6), (shape, traced)
    assert len(traced) <= 16


def test_what_follows_no_formula_is_traced_length_by_length_and_no_more_than_so_often(
    caplog: pytest.LogCaptureFixture,
) -> None:
    traced: list[Shape] = []

    def trace(shape: Shape) -> float:
        traced.append(shape)
        return shape.batch * (100.0 * shape.seq + shape.seq * shape.seq % 89)

    full = FullStepFlops(trace)
    for length in range(100, 140):
        assert full.flops(Shape(2, length)) == 200.0 * length + 2 * (length * length % 89)
    assert len(traced) == 40
    for length in range(140, 400):
        assert full.flops(Shape(2, length)) == pytest.approx(200.0 * length, rel=0.02)
    assert len(traced) == MOST
    assert [r.getMessage().partition(":")[0] for r in caplog.records] == [
        "this model's FLOPs follow no formula in the length that is known here"
    ]


def test_a_model_that_works_in_chunks_is_found_out() -> None:
    model = on_meta(HYBRIDS["mamba2"]())
    traced: list[Shape] = []

    def trace(shape: Shape) -> float:
        traced.append(shape)
        return profile(model, *shape).full_flops

    full = FullStepFlops(trace)
    for length in (20, 31, 5, 40, 33, 26, 12, 17):
        expected = profile(model, 1, length).full_flops if length in (33, 26, 17) else None
        got = full.flops(Shape(2, length))
        assert expected is None or got == pytest.approx(2 * expected, rel=1e-6)
    assert len(traced) < 8


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


@pytest.mark.parametrize(
    ("work", "flops"),
    [
        (lambda x: x.mv(x[0]), 2 * 64 * 64),
        (lambda x: torch.addmv(x[0], x, x[0]), 2 * 64 * 64),
        (lambda x: torch.einsum("ab,bc->ac", x, x), 2 * 64**3),
        (lambda x: torch.addbmm(x, x[None].expand(3, -1, -1), x[None].expand(3, -1, -1)), 3 * 2 * 64**3),
        (lambda x: torch.ops.aten._addmm_activation(x[0], x, x), 2 * 64**3),
        (lambda x: torch.nn.functional.bilinear(x, x, x[None].expand(2, -1, -1)), "_trilinear"),
        (lambda x: torch.fft.rfft(x), "_fft_r2c"),
        (lambda x: torch.cdist(x, x), "_euclidean_dist"),
        (lambda x: torch.linalg.solve_triangular(x, x, upper=True), "linalg_solve_triangular"),
        (lambda x: torch.linalg.qr(x), "linalg_qr"),
        (lambda x: torch.ops.elsewhere.kernel(x), "elsewhere::kernel"),
        (lambda x: (x * x).softmax(-1).sqrt(), 0),
    ],
)
def test_what_multiplies_is_counted_or_named(work: Any, flops: int | str) -> None:
    @torch.library.custom_op("elsewhere::kernel", mutates_args=())
    def kernel(x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    with StepCounter() as counter:
        work(torch.eye(64) + 1)
    if isinstance(flops, str):
        assert (counter.flops, flops in counter.uncounted) == (0, True)
    else:
        assert (counter.flops, counter.uncounted) == (flops, set())


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
