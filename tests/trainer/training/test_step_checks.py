"""What a Trainer's log leaves out: losses, gradients and weights that are not what they should be, and where realised ρ left the plan."""

import inspect
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.models import tiny_llama
from support.trainers import plain_trainer
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

from carbonsched.errors import CarbonschedError, InputError
from trainer import GreenTrainerCallback
from trainer.job.segment import SegmentRecord
from trainer.training.departure import departure
from trainer.training.step_checks import gradient_faults

torch.set_num_threads(1)

GROUPED = "train_sampling_strategy" in inspect.signature(TrainingArguments).parameters
BY_LENGTH = {"train_sampling_strategy": "group_by_length"} if GROUPED else {"group_by_length": True}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"), layers=2)


def trainer_of(llama: Path, out: Path, callbacks: list[Any], kind: type = Trainer, **args: Any) -> Trainer:
    """Nothing is logged but at the end of a segment, losses that are not finite are filtered: transformers' defaults."""
    model = AutoModelForCausalLM.from_pretrained(llama, attn_implementation="eager")
    args = {"num_train_epochs": 1, "logging_steps": 500, **args}
    return plain_trainer(model, llama, out, callbacks, kind=kind, **args)


def relabel(trainer: Trainer, labelled: Any) -> None:
    """Labels of -100 for all rows but those whose number `labelled` lets through."""
    rows = trainer.train_dataset.rows
    for i, row in enumerate(rows):
        if not labelled(i):
            rows[i] = type(row)(row.input_ids, [-100] * len(row.labels))


def shorten(trainer: Trainer) -> None:
    rows = trainer.train_dataset.rows
    for i, row in enumerate(rows):
        cut = 4 + 7 * i % 24
        rows[i] = type(row)(row.input_ids[-cut:], row.labels[-cut:])


class BadLoss(Trainer):  # type: ignore[misc]
    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(*args, **kwargs)
        return loss * float("nan") if self.state.global_step == 2 else loss


class BadGradients(Trainer):  # type: ignore[misc]
    """In the very last step, under a loss that is finite."""

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().training_step(*args, **kwargs)
        if self.state.global_step == self.state.max_steps - 1:
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(float("inf"))
        return loss


@pytest.mark.parametrize(
    ("kind", "rho", "found"),
    [
        (BadLoss, 0.9, "the loss became nan at step 3"),
        (BadLoss, 1.0, "the loss became nan at step 3"),
        (BadGradients, 0.9, "weights are not finite any more at step 4"),
    ],
)
def test_no_filter_hides_what_is_not_finite(
    llama: Path, tmp_path: Path, kind: type, rho: float, found: str
) -> None:
    trainer = trainer_of(llama, tmp_path, [GreenTrainerCallback(rho)], kind)
    with pytest.raises(CarbonschedError, match=found):
        trainer.train()
    if kind is BadLoss:
        assert all(p.isfinite().all() for p in trainer.model.parameters()), "it is found before the step"


def test_labels_of_which_nothing_is_learned_are_refused(llama: Path, tmp_path: Path) -> None:
    trainer = trainer_of(llama, tmp_path, [GreenTrainerCallback(0.9)])
    relabel(trainer, lambda i: False)
    with pytest.raises(InputError, match=r"all labels .* are -100: there is nothing to learn"):
        trainer.train()


@pytest.mark.parametrize("filtered", [True, False])
def test_a_batch_without_labels_is_said_and_training_goes_on(
    llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, filtered: bool
) -> None:
    callback = GreenTrainerCallback(0.9)
    args = {
        "logging_nan_inf_filter": filtered,
        "logging_steps": 1,
        "per_device_train_batch_size": 1,
        "max_steps": 6,
    }
    trainer = trainer_of(llama, tmp_path, [callback], **args)
    relabel(trainer, lambda i: i % 2)
    with caplog.at_level(logging.WARNING, "trainer"):
        trainer.train()
    said = [r.getMessage() for r in caplog.records if "-100" in r.getMessage()]
    assert len([line for line in said if "every label of a batch is -100" in line]) == 1
    assert callback.history[0].loss is not None
    assert 2 < callback.history[0].loss < 6


class OwnLoss(Trainer):  # type: ignore[misc]
    """What it makes of labels is not known."""

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        return 0 * super().compute_loss(*args, **kwargs)


class TwiceAsMuch(Trainer):  # type: ignore[misc]
    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        big = model.lm_head.weight.expand(8, -1, -1)
        return super().compute_loss(model, inputs, *args, **kwargs) + 0 * (big @ big.transpose(1, 2)).sum()


class Unfreezes(TrainerCallback):  # type: ignore[misc]
    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        kwargs["model"].requires_grad_(True)


class Freezes(TrainerCallback):  # type: ignore[misc]
    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        kwargs["model"].model.layers[1].requires_grad_(False)


class Ends(TrainerCallback):  # type: ignore[misc]
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step == 1


class TwoPasses(Trainer):  # type: ignore[misc]
    """As R-Drop does: the same batch twice."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        again = super().compute_loss(model, dict(inputs), *args, **kwargs)
        return super().compute_loss(model, inputs, *args, **kwargs) + again


DEPARTURES: list[tuple[str, type, list[Any], dict[str, Any]]] = [
    ("every gradient is 0", OwnLoss, [], {}),
    ("did other work than was profiled", TwiceAsMuch, [], {}),
    ("not selected got a gradient", Trainer, [Unfreezes()], {}),
    ("selected tensors got no gradient", Trainer, [Freezes()], {}),
    ("it ended after 1 of 2 steps", Trainer, [Ends()], {"importance": "reach"}),
    ("the loss runs the model 2 times per batch", TwoPasses, [], {"importance": "reach"}),
]


@pytest.mark.parametrize(("cause", "kind", "others", "options"), DEPARTURES)
def test_a_departure_from_the_plan_is_said_once_with_its_cause(
    llama: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    cause: str,
    kind: type,
    others: list[Any],
    options: dict[str, Any],
) -> None:
    callback = GreenTrainerCallback(0.85, segment=2, **{"importance": "spread", **options})
    trainer = trainer_of(llama, tmp_path, [callback, *others], kind)
    with caplog.at_level(logging.WARNING, "trainer"):
        trainer.train()
    assert cause in (callback.history[0].departure or "")
    lines = [r.getMessage() for r in caplog.records if cause in r.getMessage()]
    said = [line for line in lines if "realised rho" not in line] or lines
    assert len(said) == 1, lines


def test_a_cache_that_fills_and_layers_that_are_left_out_are_named() -> None:
    def segment(counted: float, saved: float) -> SegmentRecord:
        record = SegmentRecord(k=0, first=0, end=2, expected_full=200.0)
        record.select(("lm_head.weight",), cost_ratio=0.6)
        record.add_step(100.0, 1.0, counted, recomputed=0.0)
        record.add_step(100.0, 1.0, None, recomputed=0.0, saved=saved)
        return record

    assert "the activation cache filled while it ran" in (departure(segment(60.0, 30.0)) or "")
    layers = "the model leaves out layers at random (layerdrop = 0.1)"
    assert layers in (departure(segment(45.0, 0.0), skips="layerdrop = 0.1") or "")


def test_where_nothing_is_learned_any_more_the_rate_of_the_steps_before_is_named() -> None:
    model = torch.nn.Linear(2, 2)
    (0 * model(torch.ones(1, 2)).sum()).backward()
    at_first, later = (gradient_faults(model, {"weight"}, {"weight"}, lr) for lr in (None, 1000.0))
    assert at_first is not None
    assert "train.lr" not in at_first
    assert later is not None
    assert "or was train.lr (now 1000) so high" in later


def test_tensors_of_a_layer_that_was_left_out_are_said_to_be() -> None:
    model = torch.nn.Linear(2, 2)
    model.config = SimpleNamespace(to_dict=lambda: {"text": {"decoder_layerdrop": 0.1}})  # type: ignore[assignment]
    fault = gradient_faults(model, {"weight", "bias"}, {"weight"})
    assert fault is not None
    assert "leaves out layers at random (decoder_layerdrop = 0.1)" in fault


def test_as_planned_nothing_is_said(llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    callback = GreenTrainerCallback(0.95, segment=2)
    trainer = trainer_of(llama, tmp_path, [callback])
    with caplog.at_level(logging.WARNING, "trainer"):
        trainer.train()
    assert [done.departure for done in callback.history] == [None, None]
    assert not caplog.records


@pytest.mark.parametrize(
    "args",
    [
        {**BY_LENGTH, "dataloader_drop_last": True, "gradient_accumulation_steps": 3},
        {"dataloader_drop_last": True, "gradient_accumulation_steps": 3},
        {"gradient_accumulation_steps": 3},
    ],
)
def test_rows_of_many_lengths_in_any_order_keep_the_plan_or_say_why(
    llama: Path, tmp_path: Path, args: dict[str, Any]
) -> None:
    """Grouped by length a typical order stands for the real one; whatever is dropped at the end of an epoch is foreseen."""
    callback = GreenTrainerCallback(0.85)
    trainer = trainer_of(llama, tmp_path, [callback], rows=50, **args)
    shorten(trainer)
    trainer.train()
    (done,) = callback.history
    off = abs(done.rho_realised - done.rho_planned)
    assert off <= (0.05 if "train_sampling_strategy" in args or "group_by_length" in args else 0.02)
    assert (off > 0.02) == (done.departure is not None and "does not tell its order" in done.departure)
