"""What becomes of Adam's moments while a tensor stands still: said, measured in bytes, and the same after a resume."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import tiny_llama
from support.trainers import losses, plain_trainer
from torch import Tensor
from transformers import AutoModelForCausalLM

from trainer import GreenTrainerCallback
from trainer.training.optimizer_state import StaleState

torch.set_num_threads(1)
POLICIES = ["keep", "drop", "offload"]


def held_bytes(optimizer: Any, device: torch.device | None = None) -> int:
    """Bytes of all tensors in the optimizer's state, or of those on `device`."""
    return sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor) and (device is None or value.device == device)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"))


def trained(folder: Path, out: Path, policy: str, resume: str | None = None, **args: Any) -> tuple[Any, Any]:
    """Four segments of three steps, each at another random selection."""
    green = GreenTrainerCallback(rho=0.7, method="random", segment=3, stale_state=policy)
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    trainer = plain_trainer(model, folder, out, [green], num_train_epochs=3, **args)
    trainer.train(resume_from_checkpoint=resume)
    return trainer, green


def weights(trainer: Any) -> list[torch.Tensor]:
    return [p.detach().clone() for p in trainer.model.parameters()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_offload_is_keep_and_drop_is_not(folder: Path, tmp_path: Path) -> None:
    kept, dropped, offloaded = (weights(trained(folder, tmp_path / p, p)[0]) for p in POLICIES)
    assert same(kept, offloaded)
    assert not same(kept, dropped)


@pytest.mark.parametrize("policy", POLICIES)
def test_resumed_in_mid_segment_it_is_the_same_run(folder: Path, tmp_path: Path, policy: str) -> None:
    options = {"save_strategy": "steps", "save_steps": 5}
    straight, _ = trained(folder, tmp_path, policy, **options)
    checkpoint = tmp_path / "checkpoint-5"
    resumed, green = trained(folder, tmp_path, policy, str(checkpoint), **options)
    assert same(weights(straight), weights(resumed))
    assert losses(resumed) == losses(straight)
    assert green.history[0].first_step == 3, "the segment that was under way"


def test_bytes_held(folder: Path, tmp_path: Path) -> None:
    """Two moments of four bytes for every weight that was ever trained, or, dropped, that is trained now."""
    for policy in ("keep", "drop"):
        options = {"save_strategy": "steps", "save_steps": 11}
        trainer, green = trained(folder, tmp_path / policy, policy, **options)
        now = set(green.history[-1].selected)
        ever = {name for done in green.history for name in done.selected}
        sizes = {name: p.numel() for name, p in trainer.model.named_parameters()}
        saved = torch.load(tmp_path / policy / "checkpoint-11" / "optimizer.pt", weights_only=True)["state"]
        held = sum(s["exp_avg"].nbytes + s["exp_avg_sq"].nbytes for s in saved.values())
        assert held == 8 * sum(sizes[name] for name in (now if policy == "drop" else ever))
        assert len(now) < len(ever)


def test_dropped_state_begins_anew() -> None:
    """A tensor's first step after it comes back is that of a new AdamW: bias correction starts over."""
    start = torch.tensor([1.0, -2.0])
    first, second = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimizer = torch.optim.AdamW([first, second], lr=0.1)
    stale = StaleState("drop", optimizer)

    def step(*gradients: torch.Tensor | None) -> None:
        first.grad, second.grad = gradients
        optimizer.step()

    step(torch.tensor([3.0, 1.0]), torch.ones(2))
    first.requires_grad_(False)
    stale.apply()
    assert set(optimizer.state) == {second}
    assert held_bytes(optimizer) == 2 * second.nbytes + 4
    step(None, torch.ones(2))
    first.requires_grad_(True)
    stale.apply()
    before = first.detach().clone()
    step(torch.tensor([5.0, -5.0]), None)
    assert float(optimizer.state[first]["step"]) == 1
    fresh = torch.nn.Parameter(before)
    alone = torch.optim.AdamW([fresh], lr=0.1)
    fresh.grad = torch.tensor([5.0, -5.0])
    alone.step()
    assert torch.equal(first, fresh)


def test_offloaded_state_is_in_the_state_dict() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter])
    parameter.grad = torch.ones(3)
    optimizer.step()
    parameter.requires_grad_(False)
    StaleState("offload", optimizer).apply()
    state = optimizer.state_dict()["state"][0]
    assert torch.equal(state["exp_avg"], torch.full((3,), 0.1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: on the CPU host and device are one")
def test_offload_frees_the_device() -> None:
    device = torch.device("cuda")
    first, second = (torch.nn.Parameter(torch.ones(1000, device=device)) for _ in range(2))
    optimizer = torch.optim.AdamW([first, second], fused=True)
    first.grad, second.grad = torch.ones_like(first), torch.ones_like(second)
    optimizer.step()
    whole = held_bytes(optimizer, torch.device("cuda", 0))
    first.requires_grad_(False)
    stale = StaleState("offload", optimizer)
    stale.apply()
    assert held_bytes(optimizer, torch.device("cuda", 0)) == whole - 2 * first.nbytes
    optimizer.load_state_dict(optimizer.state_dict())
    stale.apply()
    assert optimizer.state[first]["exp_avg"].device.type == "cpu"
    first.requires_grad_(True)
    stale.apply()
    assert held_bytes(optimizer, torch.device("cuda", 0)) == whole
