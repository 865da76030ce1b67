"""The head on labelled tokens in a Trainer: the losses of a Trainer without it, fewer FLOPs, and left off where it would differ."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import tiny_llama
from support.trainers import losses, plain_trainer
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, Trainer, set_seed

from trainer import GreenTrainerCallback
from trainer.profiling.labelled_head import HeadError
from trainer.training.head_trial import try_head

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"), layers=2)


def trained(folder: Path, out: Path, *, on: bool, **args: Any) -> tuple[Any, GreenTrainerCallback]:
    """Of whatever `folder` holds, at ρ 0.7, an epoch of 4 steps."""
    factory = AutoModelForSeq2SeqLM if "t5" in folder.name else AutoModelForCausalLM
    set_seed(0)
    green = GreenTrainerCallback(rho=0.7, labelled_head=on)
    model = factory.from_pretrained(folder, attn_implementation="eager")
    trainer = plain_trainer(model, folder, out, [green], num_train_epochs=1, **args)
    trainer.train()
    assert not model._forward_pre_hooks
    return trainer, green


CASES: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"label_smoothing_factor": 0.1, "gradient_accumulation_steps": 2}),
    ("llama", {"activation_checkpointing": True, "gradient_accumulation_steps": 2}),
    ("t5", {}),
]


@pytest.mark.parametrize(("kind", "args"), CASES)
def test_it_trains_as_without_for_fewer_flops(
    kind: str, args: dict[str, Any], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = request.getfixturevalue(kind)
    (plain, whole), (trainer, green) = (
        trained(folder, tmp_path / str(on), on=on, **args) for on in (False, True)
    )
    first, same = losses(trainer), losses(plain)
    assert first[0] == pytest.approx(same[0], rel=1e-6)
    # the selections may differ: a step costs otherwise
    assert first == pytest.approx(same, rel=0.2)
    for done in green.history:
        assert done.rho_realised == pytest.approx(done.rho_planned, abs=1e-3)
        assert done.departure is None
        assert done.rho_planned <= 0.7
    for a, b in zip(green.history, whole.history, strict=True):
        # these targets are all of one length: nothing an encoder-decoder writes is padding
        assert a.flops_full < b.flops_full if kind == "llama" else a.flops_full == b.flops_full
        # the batches are the user's own: stock is what they would have run, and only the head is ours
        assert a.waste is not None
        assert (a.waste.stock_flops, a.waste.padding_flops) == (pytest.approx(b.flops_full), 0.0)
        assert a.waste.flops == pytest.approx(a.flops_full, rel=1e-12)
        assert b.waste is not None
        assert (b.waste.padding_flops, b.waste.head_flops) == (0.0, 0.0)
    assert green.driver.model.head is not None


def test_at_full_rho_every_loss_is_that_of_a_trainer_without_us(llama: Path, tmp_path: Path) -> None:
    set_seed(0)
    model = AutoModelForCausalLM.from_pretrained(llama, attn_implementation="eager")
    alone = plain_trainer(model, llama, tmp_path / "alone", [])
    alone.train()
    set_seed(0)
    model = AutoModelForCausalLM.from_pretrained(llama, attn_implementation="eager")
    ours = plain_trainer(
        model, llama, tmp_path / "ours", [GreenTrainerCallback(rho=1, labelled_head=True)], bf16=False
    )
    ours.train()
    assert losses(ours) == pytest.approx(losses(alone), rel=1e-4)


class Scaled(Trainer):  # type: ignore[misc]
    """A loss of the user's own."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        return 2 * super().compute_loss(model, inputs, *args, **kwargs)


def test_where_the_logits_may_be_read_it_is_left_off_with_a_note(
    llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = AutoModelForCausalLM.from_pretrained(llama, attn_implementation="eager")
    green = GreenTrainerCallback(rho=0.7, labelled_head=True)
    trainer = plain_trainer(model, llama, tmp_path / "out", [green], kind=Scaled, num_train_epochs=1)
    with caplog.at_level(logging.WARNING, "trainer"):
        trainer.train()
    assert "run on every token" in caplog.text
    assert "the Trainer's own loss" in caplog.text
    assert green.driver.model.head is None
    (done,) = green.history
    assert done.rho_realised == pytest.approx(done.rho_planned, abs=1e-3)


def batch() -> dict[str, torch.Tensor]:
    ids = torch.randint(4, 50, (3, 9), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[:, :5], labels[0] = -100, -100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def wrong(model: Any, change: Any) -> HeadError:
    """What a trial says of `model` whose output embeddings and loss are not what they seem."""
    names = {p: n for n, p in model.named_parameters()}
    before = [p.detach().clone() for p in names]
    with pytest.raises(HeadError) as caught:
        try_head(model, names, change, batch(), coarse=False)
    assert all(p.grad is None for p in names)
    assert all(torch.equal(a, b) for a, b in zip(before, names, strict=True))
    assert not model._forward_pre_hooks
    return caught.value


def test_a_loss_that_would_differ_is_found(llama: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(llama)

    def by_tokens(model: Any, batch: Any) -> Any:
        out = model(**batch)
        return out.loss * out.logits.shape[1]

    def by_rows(model: Any, batch: Any) -> Any:
        out = model(**batch)
        return (out.logits * torch.ones(2, 9, 1)).sum()

    assert "the loss would be" in str(wrong(model, by_tokens))
    assert "a pass with labelled tokens alone fails" in str(wrong(model, by_rows))
    model.get_output_embeddings = lambda: None
    assert "no output embeddings" in str(wrong(model, lambda model, batch: model(**batch).loss))


def test_a_head_that_is_not_run_is_found(llama: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(llama)
    model.get_output_embeddings = lambda: torch.nn.Linear(2, 2)
    found = wrong(model, lambda model, batch: model(**batch).loss)
    assert "not one state for each token" in str(found)
