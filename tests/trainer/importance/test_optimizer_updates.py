"""Every rule against the optimizer it restates: the weights' difference over one real step, by the rate."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.optimization import Adafactor

from carbonsched.errors import InputError
from trainer.importance import optimizer_updates as updates
from trainer.importance.optimizer_updates import find_rule

torch.set_num_threads(1)

Make = Callable[[list[Tensor], float], torch.optim.Optimizer]

OPTIMIZERS: dict[str, Make] = {
    "AdamW": lambda ps, lr: torch.optim.AdamW(ps, lr, weight_decay=0.1),
    "AdamW plain": lambda ps, lr: torch.optim.AdamW(ps, lr, weight_decay=0.0, betas=(0.7, 0.95)),
    "Adam": lambda ps, lr: torch.optim.Adam(ps, lr, weight_decay=0.3),
    "SGD": lambda ps, lr: torch.optim.SGD(ps, lr, weight_decay=0.2),
    "SGD momentum": lambda ps, lr: torch.optim.SGD(ps, lr, momentum=0.8, dampening=0.3, weight_decay=0.2),
    "SGD nesterov": lambda ps, lr: torch.optim.SGD(ps, lr, momentum=0.9, nesterov=True),
    "torch Adafactor": lambda ps, lr: torch.optim.Adafactor(ps, lr, weight_decay=0.2),
    "torch Adafactor floored": lambda ps, lr: torch.optim.Adafactor(ps, lr, d=1.5, eps=(0.7, 3.0)),
    "Adafactor": lambda ps, lr: Adafactor(ps, lr, scale_parameter=False, relative_step=False),
    "Adafactor scaled": lambda ps, lr: Adafactor(
        ps, lr, scale_parameter=True, relative_step=False, clip_threshold=0.3, weight_decay=0.2
    ),
}


def weights(seed: int = 0) -> list[Tensor]:
    """A vector, a matrix whose rows make uneven chunks, and a tensor of three dimensions; values of float64."""
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=draw, dtype=torch.float64) for s in [(7,), (9, 5), (2, 4, 3)]]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updates, "CHUNK", {"cpu": 10})


@pytest.mark.parametrize("steps", [0, 4])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_is_the_step_the_optimizer_makes(name: str, steps: int) -> None:
    make, lr = OPTIMIZERS[name], 1e-4
    parameters = [nn.Parameter(w) for w in weights()]
    optimizer = make(parameters, lr)  # type: ignore[arg-type]
    for i in range(steps):
        for p, g in zip(parameters, weights(10 + i), strict=True):
            p.grad = g
        optimizer.step()
    rule, group, gradients = find_rule(optimizer), optimizer.param_groups[0], weights(99)
    state = copy.deepcopy([dict(optimizer.state[p]) for p in parameters])
    before = [p.detach().clone() for p in parameters]
    found = [
        torch.cat(list(rule.update(group, optimizer.state[p] if steps else {}, p, g, steps)))
        for p, g in zip(parameters, gradients, strict=True)
    ]
    for p, s, w in zip(parameters, state, before, strict=True):
        assert torch.equal(p, w)
        assert optimizer.state[p].keys() == s.keys()
        for key, value in s.items():
            assert value is None or torch.equal(
                torch.as_tensor(optimizer.state[p][key]), torch.as_tensor(value)
            )
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = g.clone()
    optimizer.step()
    for p, w, update in zip(parameters, before, found, strict=True):
        stepped = ((w - p.detach()) / lr).reshape(-1)
        assert torch.allclose(update.double(), stepped, rtol=2e-4, atol=1e-5), name


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_tensor_counts_as_stepped_once_it_has_moments(name: str) -> None:
    parameters = [nn.Parameter(w) for w in weights()]
    optimizer = OPTIMIZERS[name](parameters, 1e-3)  # type: ignore[arg-type]
    rule = find_rule(optimizer)
    assert not any(rule.has_moments(optimizer.state.get(p, {})) for p in parameters)
    for p in parameters:
        p.grad = torch.ones_like(p)
    optimizer.step()
    # plain SGD keeps nothing, so that its next update has no age
    assert all(rule.has_moments(optimizer.state[p]) == (name != "SGD") for p in parameters)


def test_accelerates_wrapper_is_looked_through() -> None:
    from accelerate import Accelerator

    parameters = [nn.Parameter(w) for w in weights()]
    wrapped = Accelerator(cpu=True).prepare(torch.optim.SGD(parameters, 0.1))
    assert type(wrapped) is not torch.optim.SGD
    assert find_rule(wrapped).name == "SGD"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda ps: torch.optim.Rprop(ps), 'is Rprop.*use one of Adafactor, Adam, AdamW, SGD.*"fisher"'),
        (lambda ps: torch.optim.AdamW(ps, amsgrad=True), "AdamW with amsgrad=True.*switch amsgrad off"),
        (lambda ps: torch.optim.SGD(ps, 0.1, maximize=True), "SGD with maximize=True"),
        (lambda ps: Adafactor(ps, 1e-3, relative_step=False, beta1=0.9), "beta1=0.9.*leave beta1 out"),
    ],
)
def test_what_cannot_be_foreseen_is_refused(make: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_rule(make([nn.Parameter(w) for w in weights()]))
