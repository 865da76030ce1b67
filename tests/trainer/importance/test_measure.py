"""Predicted-update importance: against a real AdamW step, and leaving no trace."""

import copy
import itertools
import random
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.models import tiny_llama, tiny_t5
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM
from transformers.optimization import Adafactor

from carbonsched.errors import CarbonschedError, InputError
from trainer.importance.measure import _batch_seconds, measure
from trainer.job.directives import Stopped

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"), layers=2)


@pytest.fixture
def llama(llama_folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(llama_folder, attn_implementation="eager").train()


def batch(seed: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(4, 40, (4, 12), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "labels": ids}


def adamw(model: Any, lr: float = 1e-3) -> torch.optim.AdamW:
    decay = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr)


def train_steps(model: Any, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for i in range(steps):
        model(**batch(100 + i)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def by_stepping(
    model: Any,
    optimizer: torch.optim.Optimizer,
    a: int,
    b: int,
    *,
    fresh: bool,
    make: Any = adamw,
    lr: float = 1.0,
) -> dict[str, float]:
    """−⟨g_b, Δw_a⟩ ÷ lr from a real step of a copy."""
    twin = copy.deepcopy(model)
    stepper = make(twin, lr)
    if not fresh:
        stepper.load_state_dict(optimizer.state_dict())
        for group in stepper.param_groups:
            group["lr"] = lr
    before = {n: p.detach().clone() for n, p in twin.named_parameters()}
    twin(**batch(a)).loss.backward()
    stepper.step()
    model(**batch(b)).loss.backward()
    found = {
        n: -float((model.get_parameter(n).grad * (p.detach() - before[n])).sum()) / lr
        for n, p in twin.named_parameters()
    }
    model.zero_grad()
    return found


def close(found: dict[str, float], expected: dict[str, float]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize(("batches", "a", "b"), [([1], 1, 1), ([1, 2], 1, 2)])
def test_it_is_the_update_adamw_would_make(
    llama: Any, steps: int, batches: list[int], a: int, b: int
) -> None:
    optimizer = adamw(llama)
    train_steps(llama, optimizer, steps)
    found = measure(llama, optimizer, [batch(i) for i in batches])
    assert found.age == steps
    assert (found.kept_bytes > 0) == (len(batches) > 1)
    close(found.values, by_stepping(llama, optimizer, a, b, fresh=steps == 0))


def sgd(model: Any, lr: float = 1e-2) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr, momentum=0.9, nesterov=True, weight_decay=0.1)


def adafactor(model: Any, lr: float = 1e-2) -> Any:
    return Adafactor(model.parameters(), lr, scale_parameter=False, relative_step=False)


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize(("make", "rate"), [(sgd, 1.0), (adafactor, 1.0)])
def test_it_is_the_update_other_optimizers_would_make(llama: Any, make: Any, rate: float, steps: int) -> None:
    optimizer = make(llama)
    train_steps(llama, optimizer, steps)
    found = measure(llama, optimizer, [batch(1)], common_steps=steps)
    assert found.age == steps
    close(found.values, by_stepping(llama, optimizer, 1, 1, fresh=steps == 0, make=make, lr=rate))


def test_an_optimizer_that_does_not_count_is_told_the_age(llama: Any) -> None:
    """SGD's buffers look alike whether they are fresh or stale: who stood still is for the caller to know."""
    optimizer = sgd(llama)
    assert measure(llama, optimizer, [batch(1)]).age == 0
    train_steps(llama, optimizer, 2)
    unknown, stale = (measure(llama, optimizer, [batch(1)], common_steps=t) for t in (None, 0))
    assert (unknown.age, stale.age) == (1, 0)
    close(stale.values, by_stepping(llama, optimizer, 1, 1, fresh=True, make=sgd))
    close(unknown.values, by_stepping(llama, optimizer, 1, 1, fresh=False, make=sgd))


def gradients(model: Any, seed: int) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(**batch(seed)).loss.backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    return found


def test_other_measures_are_what_they_are_called(llama: Any) -> None:
    """No weight decay and fresh moments: AdamW's update is the gradient's sign."""
    optimizer = torch.optim.AdamW(llama.parameters(), 1e-3, weight_decay=0.0, eps=1e-30)
    g, w = gradients(llama, 1), dict(llama.named_parameters())
    signs = {n: t.sign() for n, t in g.items()}
    expected = {
        "update": {n: float((t * signs[n]).sum()) for n, t in g.items()},
        "magnitude": {n: float(signs[n].abs().sum()) for n in g},
        "grad-norm": {n: float(t.norm()) for n, t in g.items()},
        "fisher": {n: float(t.square().sum()) for n, t in g.items()},
        "snip": {n: float((w[n].detach() * t).abs().sum()) for n, t in g.items()},
        "curvature": {n: float((t * signs[n]).sum()) for n, t in g.items()},
    }
    for estimator, values in expected.items():
        found = measure(llama, optimizer, [batch(1)], estimator=estimator)
        close(found.values, values)
        assert (found.curvature is not None) == (estimator == "curvature")
        assert found.variance is None
        assert found.relative_error is None
    curvature = measure(llama, optimizer, [batch(1)], estimator="curvature").curvature
    assert curvature is not None
    close(curvature, expected["fisher"])


def test_what_needs_no_update_takes_any_optimizer(llama: Any) -> None:
    found = measure(llama, torch.optim.Rprop(llama.parameters(), lr=0.1), [batch(1)], estimator="fisher")
    assert min(found.values.values()) > 0


def test_several_batches_give_a_variance(llama: Any) -> None:
    """Of the mean: the sample variance over batches by their number; of the update over neighbouring pairs."""
    optimizer, seeds = adamw(llama), [1, 2, 3, 4]
    each = [measure(llama, optimizer, [batch(s)], estimator="fisher").values for s in seeds]
    found = measure(llama, optimizer, [batch(s) for s in seeds], estimator="fisher")
    assert found.variance is not None
    for name, value in found.values.items():
        of_each = [values[name] for values in each]
        assert value == pytest.approx(statistics.mean(of_each), rel=1e-6)
        assert found.variance[name] == pytest.approx(statistics.variance(of_each) / 4, rel=1e-4)
    ratios = [found.variance[n] ** 0.5 / v for n, v in found.values.items()]
    assert found.relative_error == pytest.approx(statistics.median(ratios))
    pairs = [by_stepping(llama, optimizer, a, b, fresh=True) for a, b in itertools.pairwise(seeds)]
    update = measure(llama, optimizer, [batch(s) for s in seeds])
    assert update.variance is not None
    close(update.variance, {n: statistics.variance(p[n] for p in pairs) / 3 for n in pairs[0]})
    assert measure(llama, optimizer, [batch(1), batch(2)]).variance is None, "one pair has no spread"


def test_rows_are_batches_of_their_own(llama: Any) -> None:
    """A single batch taken apart costs what it costs whole, and has a spread."""
    optimizer, whole = adamw(llama), batch(1)
    rows = [{n: t[i : i + 1] for n, t in whole.items()} for i in range(4)]
    found = measure(llama, optimizer, [whole], estimator="rows")
    close(found.values, measure(llama, optimizer, rows).values)
    assert found.variance is not None
    assert found.flops == pytest.approx(measure(llama, optimizer, [whole]).flops)


def test_memory_is_a_backward_pass_and_five_percent(tmp_path: Path) -> None:
    """Peak bytes of a pass over the peak of a backward pass that frees each gradient as soon as it is whole."""
    folder = tiny_llama(tmp_path, layers=12, hidden=256)
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").train()
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    ids = torch.randint(4, 40, (2, 32), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "labels": ids}
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)

    def streamed() -> None:
        hooks = [
            p.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
            for p in model.parameters()
        ]
        model(**inputs).loss.backward()
        for hook in hooks:
            hook.remove()

    def whole() -> None:
        model(**inputs).loss.backward()
        model.zero_grad()

    def passes(make: Any) -> Callable[[], None]:
        return lambda: void(measure(model, make(model), [inputs]))

    streamed()
    backward = weights + peak_bytes(streamed)
    assert weights + peak_bytes(whole) > 1.2 * backward, "the model is big enough to tell"
    for make in (lambda m: optimizer, adafactor):
        assert weights + peak_bytes(passes(make)) <= 1.05 * backward
    # with moments of an age, which are held anyway
    model(**inputs).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    assert measure(model, optimizer, [inputs]).age == 1
    assert weights + peak_bytes(passes(lambda m: optimizer)) <= 1.05 * backward


def void(result: object) -> None:
    pass


def peak_bytes(work: Callable[[], None]) -> int:
    """The most that `work` had allocated at a time beyond what was there before it, by torch's own allocator."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profiler:
        work()
    held = peak = 0
    events = profiler.profiler.kineto_results.events()
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def test_a_tensor_without_trained_moments_puts_all_on_fresh_ones(llama: Any) -> None:
    optimizer = adamw(llama)
    llama.model.norm.weight.requires_grad_(False)
    train_steps(llama, optimizer, 2)
    found = measure(llama, optimizer, [batch(1)])
    assert found.age == 0
    llama.model.norm.weight.requires_grad_(True)
    close(found.values, by_stepping(llama, optimizer, 1, 1, fresh=True))


def test_it_predicts_the_drop_of_the_loss(llama: Any) -> None:
    optimizer = torch.optim.AdamW(llama.parameters(), lr=1e-4, weight_decay=0.01)
    predicted = sum(measure(llama, optimizer, [batch(1)]).values.values()) * 1e-4
    before = llama(**batch(1)).loss
    before.backward()
    optimizer.step()
    dropped = float(before.detach() - llama(**batch(1)).loss.detach())
    assert predicted == pytest.approx(dropped, rel=0.1)


def test_nothing_is_left_changed(tmp_path: Path) -> None:
    """Weights, moments, gradients, flags, mode and random generators, in a model that draws dropout."""
    model = AutoModelForSeq2SeqLM.from_pretrained(tiny_t5(tmp_path), attn_implementation="eager")
    model.train()
    optimizer = adamw(model)
    train_steps(model, optimizer, 1)
    model(**batch(7)).loss.backward()
    frozen = next(iter(model.parameters()))
    frozen.requires_grad_(False)

    def state() -> list[Any]:
        tensors = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters())]
        moments = [t for s in optimizer.state.values() for t in s.values()]
        flags = [p.requires_grad for p in model.parameters()]
        randoms = [torch.random.get_rng_state(), torch.from_numpy(np.random.get_state()[1].astype(np.int64))]
        return [
            *(t.clone() for t in [*tensors, *moments, *randoms]),
            flags,
            random.getstate(),
            model.training,
        ]

    before = state()
    grads = [p.grad for p in model.parameters()]
    measure(model, optimizer, [batch(1), batch(2)], seed=5)
    for old, new in zip(before, state(), strict=True):
        assert torch.equal(old, new) if isinstance(old, torch.Tensor) else old == new
    assert all(p.grad is g for p, g in zip(model.parameters(), grads, strict=True))


def test_same_seed_same_dropout_same_values(tmp_path: Path) -> None:
    model = AutoModelForSeq2SeqLM.from_pretrained(tiny_t5(tmp_path), attn_implementation="eager")
    optimizer = adamw(model)
    first = measure(model, optimizer, [batch(1)], seed=3).values
    torch.rand(5)
    assert measure(model, optimizer, [batch(1)], seed=3).values == first
    assert measure(model, optimizer, [batch(1)], seed=4).values != first


def test_passes_are_counted(llama: Any) -> None:
    from trainer.profiling.profiler import profile

    found = measure(llama, adamw(llama), [batch(1), batch(2)])
    full = profile(llama, 4, 12).full_flops
    assert found.flops == (full, full)


def test_big_tensors_are_worked_on_in_pieces(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = adamw(llama)
    train_steps(llama, optimizer, 1)
    whole = measure(llama, optimizer, [batch(1), batch(2)]).values
    monkeypatch.setattr("trainer.importance.optimizer_updates.CHUNK", {"cpu": 100})
    close(measure(llama, optimizer, [batch(1), batch(2)]).values, whole)


def test_errors_name_the_mend(llama: Any) -> None:
    with pytest.raises(InputError, match=r"is Rprop.*use one of Adafactor, Adam, AdamW, SGD"):
        measure(llama, torch.optim.Rprop(llama.parameters(), lr=0.1), [batch(1)])
    with pytest.raises(InputError, match=r"takes a spread from 3 rows.*importance_batches = 3"):
        measure(llama, adamw(llama), [{n: t[:2] for n, t in batch(1).items()}], estimator="rows")
    optimizer = adamw(llama)
    with pytest.raises(Stopped):
        measure(llama, optimizer, [batch(1)], stop=lambda: True)
    with torch.no_grad():
        llama.model.norm.weight.fill_(float("nan"))
    with pytest.raises(CarbonschedError, match=r"importance of \S+ is nan.*lower train.lr"):
        measure(llama, optimizer, [batch(1)])


def test_the_speed_of_a_step_is_not_told_by_what_warms_a_board_up() -> None:
    """Kernels load and memory is allocated in the first pass of a process; on a warm device one batch is enough."""
    assert _batch_seconds([9.0], 1, warm=False) is None
    assert _batch_seconds([2.0], 1, warm=True) == 2.0
    assert _batch_seconds([9.0, 1.0, 2.0], 3, warm=False) == 1.5
    assert _batch_seconds([9.0, 1.0, 1.0, 1.0], 1, warm=False) == 4.0, "rows of one batch"
