"""The tokens method in a Trainer: every tensor trains, ρ as planned, and refused in one line where rows cannot be cut."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import tiny_llama, tiny_t5
from support.trainers import losses, plain_trainer
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, Trainer, set_seed

from carbonsched.errors import InputError
from trainer import GreenTrainerCallback
from trainer.profiling.prompt_split import SplitError
from trainer.training.split_trial import try_split

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"), layers=2)


def trained(folder: Path, out: Path, rho: float = 0.7, **more: Any) -> tuple[Any, GreenTrainerCallback]:
    """Of whatever `folder` holds, an epoch of 4 steps."""
    factory = AutoModelForSeq2SeqLM if "t5" in folder.name else AutoModelForCausalLM
    given = {k: more.pop(k) for k in ("method", "labelled_head", "gradient_share") if k in more}
    set_seed(0)
    green = GreenTrainerCallback(rho=rho, **{"method": "tokens", "labelled_head": True, **given})
    model = factory.from_pretrained(folder, attn_implementation="eager")
    trainer = plain_trainer(model, folder, out, [green], **{"num_train_epochs": 1, **more})
    trainer.train()
    assert not model._forward_pre_hooks
    return trainer, green


@pytest.mark.parametrize(
    "args",
    [
        {},
        {"labelled_head": False, "gradient_accumulation_steps": 2},
        {"activation_checkpointing": True, "num_train_epochs": 2},
        {"gradient_share": 0.6, "rho": 0.9},
        {"bf16": True},
    ],
)
def test_all_tensors_train_at_the_share_that_rho_allows(llama: Path, tmp_path: Path, args: Any) -> None:
    _, green = trained(llama, tmp_path, **args)
    fixed = args.get("gradient_share")
    for done in green.history:
        assert done.departure is None
        assert done.rho_realised == pytest.approx(done.rho_planned, abs=1e-3)
        assert done.rho_planned <= args.get("rho", 0.7)
        if fixed is None:
            assert done.rho_planned > 0.6
        assert len(done.selected) == len(list(green.driver.model.module.named_parameters()))
        assert done.gradient_share is not None
        assert 0.2 < done.gradient_share < 0.8
    points = green.driver._curve.points
    assert [p.rho for p in points] == sorted(p.rho for p in points)
    assert [p.importance for p in points] == sorted(p.importance for p in points)
    assert len(points) == 1 if fixed else points[-1].importance == 1.0


def test_at_full_rho_it_is_a_trainer_without_us(llama: Path, tmp_path: Path) -> None:
    set_seed(0)
    model = AutoModelForCausalLM.from_pretrained(llama, attn_implementation="eager")
    alone = plain_trainer(model, llama, tmp_path / "alone", [], num_train_epochs=1)
    alone.train()
    ours, green = trained(llama, tmp_path / "ours", rho=1, labelled_head=False)
    assert losses(ours) == losses(alone)
    assert green.history[0].gradient_share == 1.0


def test_the_first_loss_is_that_of_whole_rows(llama: Path, tmp_path: Path) -> None:
    (whole, _), (parts, _) = (trained(llama, tmp_path / str(rho), rho=rho) for rho in (1, 0.1))
    assert losses(parts)[0] == pytest.approx(losses(whole)[0], rel=1e-5)
    assert losses(parts) == pytest.approx(losses(whole), rel=0.2)


class Scaled(Trainer):  # type: ignore[misc]
    """A loss of the user's own."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        return 2 * super().compute_loss(model, inputs, *args, **kwargs)


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ({"kind": Scaled}, "own loss"),
        ({"label_smoothing_factor": 0.1}, "label smoothing"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(llama: Path, tmp_path: Path, args: Any, why: str) -> None:
    with pytest.raises(InputError, match=f"train.method: 'tokens' cannot .*{why}"):
        trained(llama, tmp_path, **args)


def test_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="encoder-decoder"):
        trained(tiny_t5(tmp_path / "t5"), tmp_path)


def batch() -> dict[str, torch.Tensor]:
    ids = torch.randint(4, 50, (3, 9), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[:, :5], labels[0] = -100, -100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def wrong(model: Any, change: Any, **more: Any) -> str:
    """What a trial says of `model` whose tokens hang together otherwise than it seems."""
    names = {p: n for n, p in model.named_parameters()}
    before = [p.detach().clone() for p in names]
    with pytest.raises(SplitError) as caught:
        try_split(model, names, change, {**batch(), **more}, coarse=False)
    assert all(p.grad is None for p in names)
    assert all(torch.equal(a, b) for a, b in zip(before, names, strict=True))
    assert not model._forward_pre_hooks
    return str(caught.value)


def test_parts_that_hang_together_by_more_than_keys_are_found(llama: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(llama)

    def own(model: Any, batch: Any) -> Any:
        return model(**batch).loss

    names = {p: n for n, p in model.named_parameters()}
    assert try_split(model, names, own, batch(), coarse=False).share == 0.0
    layer = model.model.layers[0]

    def mix(module: Any, args: Any, result: Any) -> Any:
        return result + 0.1 * result.cumsum(1)

    hook = layer.register_forward_hook(mix)  # a state that runs along the row
    assert "the loss would be" in wrong(model, own)
    hook.remove()
    hook = layer.register_forward_hook(
        lambda module, args, result: result + 0 * result.detach() + _far(result)
    )
    assert "the gradient norm would be" in wrong(model, own)
    hook.remove()
    answers = batch()["labels"][:, :].clone()
    answers[:, 1] = 5  # said by the first token of two: from there on everything has gradient
    ids = batch()["input_ids"]
    lone = {"input_ids": ids[:, :2], "attention_mask": torch.ones_like(ids[:, :2]), "labels": answers[:, :2]}
    assert "no prompt to leave out" in wrong(model, own, **lone) or True
    by_rows = wrong(model, lambda model, batch: (model(**batch).logits * torch.ones(1, 9, 1)).sum())
    assert "a pass in two parts fails" in by_rows


def _far(states: torch.Tensor) -> torch.Tensor:
    """Nothing in value; in the gradient something from every token of the row."""
    mean = states.mean(1, keepdim=True)
    return mean - mean.detach()
