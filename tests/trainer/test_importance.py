"""Predicted-update importance: against a real AdamW step, and leaving no trace."""

import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.models import tiny_llama, tiny_t5
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from carbonsched.errors import CarbonschedError, InputError
from trainer.importance import measure
from trainer.steering import Stopped

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
    model: Any, optimizer: torch.optim.Optimizer, a: int, b: int, *, fresh: bool
) -> dict[str, float]:
    """−⟨g_b, Δw_a⟩ from a real step at lr 1 of a copy."""
    twin = copy.deepcopy(model)
    stepper = adamw(twin, lr=1.0)
    if not fresh:
        stepper.load_state_dict(optimizer.state_dict())
        for group in stepper.param_groups:
            group["lr"] = 1.0
    before = {n: p.detach().clone() for n, p in twin.named_parameters()}
    twin(**batch(a)).loss.backward()
    stepper.step()
    model(**batch(b)).loss.backward()
    found = {
        n: -float((model.get_parameter(n).grad * (p.detach() - before[n])).sum())
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
    from trainer.flops import profile

    found = measure(llama, adamw(llama), [batch(1), batch(2)])
    full = profile(llama, 4, 12).full_flops
    assert found.flops == (full, full)


def test_big_tensors_are_worked_on_in_pieces(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = adamw(llama)
    train_steps(llama, optimizer, 1)
    whole = measure(llama, optimizer, [batch(1), batch(2)]).values
    monkeypatch.setattr("trainer.importance.CHUNK", {"cpu": 100})
    close(measure(llama, optimizer, [batch(1), batch(2)]).values, whole)


def test_errors_name_the_mend(llama: Any) -> None:
    with pytest.raises(InputError, match="use AdamW"):
        measure(llama, torch.optim.SGD(llama.parameters(), lr=0.1), [batch(1)])
    optimizer = adamw(llama)
    with pytest.raises(Stopped):
        measure(llama, optimizer, [batch(1)], stop=lambda: True)
    with torch.no_grad():
        llama.model.norm.weight.fill_(float("nan"))
    with pytest.raises(CarbonschedError, match=r"importance of \S+ is nan.*lower train.lr"):
        measure(llama, optimizer, [batch(1)])
