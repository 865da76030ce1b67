"""The Trainer behind the callback: its own loss is what importance is measured on."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from support.trainers import plain_trainer
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback

from trainer import GreenTrainerCallback
from trainer.training.host_trainer import HostTrainer

torch.set_num_threads(1)


class Tripled(Trainer):  # type: ignore[misc]
    """Its loss is its own, and counted as TRL's Trainers do."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen, self.by_mode = 0, defaultdict(lambda: defaultdict(list))

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        self.seen += 1
        self.by_mode["train"]["tokens"].append(inputs["labels"].numel())
        return 3 * super().compute_loss(model, inputs, *args, **kwargs)


def tripled(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
    logits, wanted = outputs["logits"][:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    return 3 * torch.nn.functional.cross_entropy(logits, wanted, reduction="sum") / num_items_in_batch


def measured(llama: Path, out: Path, kind: type = Trainer, **more: Any) -> tuple[dict[str, float], Any]:
    """Importance of the first segment, and the Trainer after a step."""
    model = AutoModelForCausalLM.from_pretrained(llama, attn_implementation="eager")
    callback = GreenTrainerCallback(0.75, importance="grad-norm")
    args = {"max_steps": 1, "label_smoothing_factor": more.pop("smoothing", 0.0)}
    trainer = plain_trainer(model, llama, out, [callback], kind=kind, more=more, **args)
    trainer.train()
    return callback.segment.importance, trainer


def test_a_loss_of_the_users_own_is_what_importance_is_measured_on(llama: Path, tmp_path: Path) -> None:
    stock, _ = measured(llama, tmp_path)
    overridden, trainer = measured(llama, tmp_path, Tripled)
    passed, _ = measured(llama, tmp_path, compute_loss_func=tripled)
    smoothed, _ = measured(llama, tmp_path, smoothing=0.2)
    for name, value in stock.items():
        assert overridden[name] == pytest.approx(3 * value, rel=1e-4), name
        assert passed[name] == pytest.approx(3 * value, rel=1e-4), name
    assert sum(smoothed.values()) == pytest.approx(0.8 * sum(stock.values()), rel=0.1)
    assert (trainer.seen, len(trainer.by_mode["train"]["tokens"])) == (1, 1), "the pass counts as no step"


class Report(TrainerCallback):  # type: ignore[misc]
    """As TensorBoard's and its kin: asked before any callback that its user adds."""

    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.seen.append(dict(logs))


def test_what_it_logs_has_rho_flops_and_share(llama: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(llama, attn_implementation="eager")
    report, callback = Report(), GreenTrainerCallback(0.75, segment=2)
    trainer = plain_trainer(model, llama, tmp_path, [report, callback], num_train_epochs=1)
    result = trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [{k: v for k, v in entry.items() if k != "step"} for entry in logged] == report.seen[:-1]
    assert logged[-1]["rho_realised"] == pytest.approx(callback.history[-1].rho_realised)
    assert logged[-1]["rho_planned"] == pytest.approx(callback.history[-1].rho_planned)
    assert 0 < logged[-1]["selected_share"] < 1
    assert [e["flops"] for e in logged] == sorted(e["flops"] for e in logged)
    flops, full = (sum(getattr(d, name) for d in callback.history) for name in ("flops", "flops_full"))
    assert logged[-1]["flops"] == pytest.approx(flops)
    assert result.metrics["rho_realised"] == pytest.approx(flops / full)
    assert not vars(trainer).keys() & {"training_step", "log"}, "its methods are its own again"


def test_outside_a_trainer_there_is_none() -> None:
    class Other:
        def call(self, callback: TrainerCallback) -> Any:
            return HostTrainer.calling(callback)

    assert Other().call(TrainerCallback()) is None
