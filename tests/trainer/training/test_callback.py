"""GreenTrainerCallback in anyone's own Trainer."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support.models import word_rows
from support.steer import FakeDaemon, directive, of
from support.trainers import trainer_over
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, Trainer, TrainerCallback

from carbonsched.errors import InputError
from carbonsched.model.job import DataPart, ModelPart
from trainer import GreenTrainerCallback
from trainer.data.encoding import TextEncoder
from trainer.data.field_layouts import Row

torch.set_num_threads(1)


def own_trainer(folder: Path, out: Path, callbacks: list[Any], *, rows: int = 16, **args: Any) -> Trainer:
    """A plain Trainer as a user would write it."""
    part = DataPart(name_or_path="x", max_length=32, target_length=8)
    encoder = TextEncoder.of(ModelPart(name_or_path=str(folder)), part)
    factory = AutoModelForSeq2SeqLM if "t5" in folder.name else AutoModelForCausalLM
    model = factory.from_pretrained(folder, attn_implementation="eager")
    encoded = encoder.encode([Row(**row) for row in word_rows(rows)])
    return trainer_over(model, encoder, encoded, out, callbacks, **args)


def weights(trainer: Trainer) -> list[torch.Tensor]:
    return [p.detach().clone() for p in trainer.model.parameters()]


def test_importance_passes_change_nothing(t5: Path, tmp_path: Path) -> None:
    """Passes run (a daemon's answer is not known before), dropout is on, and yet every weight is what plain training gives."""
    plain = own_trainer(t5, tmp_path / "a", [])
    plain.train()
    (job := tmp_path / "job").mkdir()
    callback = GreenTrainerCallback(job_dir=job, importance_batches=2, segment=3)
    steered = own_trainer(t5, tmp_path / "b", [callback])
    with FakeDaemon(job, lambda e: directive(e["k"], 2.0) if e["event"] == "segment_ready" else None):
        steered.train()
    assert [done.steps for done in callback.history] == [3, 3, 2]
    assert of(job, "segment_ready")[0]["importance_batches"] == 2
    assert all(len(done.selected) == len(weights(plain)) for done in callback.history)
    for one, other in zip(weights(plain), weights(steered), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("options", [{"rho": 1}, {"rho": 1.0, "segment": 3}, {"rho": 1.2, "method": "fixed"}])
@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_full_rho_is_full_fine_tuning(
    kind: str,
    options: dict[str, Any],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is measured, everything trains, and every bit is that of a Trainer without us."""
    folder = request.getfixturevalue(kind)
    plain = own_trainer(folder, tmp_path / "a", [])
    plain.train()
    monkeypatch.delattr("trainer.training.importance_pass.measure")
    callback = GreenTrainerCallback(**options)
    steered = own_trainer(folder, tmp_path / "b", [callback])
    steered.train()
    for done in callback.history:
        assert len(done.selected) == len(weights(plain))
        assert done.rho_planned == pytest.approx(1)
        assert done.rho_realised == pytest.approx(1)
        assert done.importance_seconds == 0
    assert all(torch.equal(a, b) for a, b in zip(weights(plain), weights(steered), strict=True))
    ours = [entry["loss"] for entry in steered.state.log_history if "loss" in entry]
    assert ours == [entry["loss"] for entry in plain.state.log_history if "loss" in entry]


def test_where_rho_suffices_for_all_that_may_train_nothing_is_measured(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen weights: everything left costs less than ρ, so there is nothing to choose."""
    monkeypatch.delattr("trainer.training.importance_pass.measure")
    callback = GreenTrainerCallback(rho=0.95)
    trainer = own_trainer(llama, tmp_path, [callback], num_train_epochs=1)
    for name, parameter in trainer.model.named_parameters():
        parameter.requires_grad_("layers.3" in name)
    trainer.train()
    assert len(callback.history[0].selected) == sum(
        "layers.3" in n for n, _ in trainer.model.named_parameters()
    )


def test_frozen_tensors_stand_still(llama: Path, tmp_path: Path) -> None:
    """A tensor outside the selection keeps every bit, though an importance pass gave it a gradient and AdamW holds it."""
    callback = GreenTrainerCallback(rho=0.75, segment="epoch")
    trainer = own_trainer(llama, tmp_path, [callback], num_train_epochs=1)
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    trainer.train()
    (done,) = callback.history
    assert done.rho_planned <= 0.75
    for name, parameter in trainer.model.named_parameters():
        assert torch.equal(before[name], parameter) == (name not in done.selected), name
        assert parameter.requires_grad, "all is trainable again afterwards"


def test_seconds_hold_what_the_device_still_works_on(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that runs behind Python: each forward pass leaves it 20 ms of work, and only `synchronize` waits for it."""
    behind: list[float] = []

    def synchronize() -> None:
        time.sleep(sum(behind))
        behind.clear()

    cuda = SimpleNamespace(is_initialized=lambda: True, synchronize=synchronize)
    monkeypatch.setattr("trainer.device.torch", SimpleNamespace(cuda=cuda))
    callback = GreenTrainerCallback(rho=0.75, segment="epoch")
    trainer = own_trainer(llama, tmp_path, [callback], num_train_epochs=1)
    trainer.model.register_forward_hook(lambda *_: behind.append(0.02))
    trainer.train()
    (done,) = callback.history
    assert done.seconds - done.importance_seconds - done.selection_seconds >= 0.02 * done.steps
    assert done.importance_seconds >= 0.02


def test_one_callback_steers_one_training_after_the_other(llama: Path, tmp_path: Path) -> None:
    callback = GreenTrainerCallback(rho=0.75, method="random")
    trainer = own_trainer(llama, tmp_path, [callback], num_train_epochs=1)
    trainer.train()
    trainer.train()
    assert [(done.k, done.steps) for done in callback.history] == [(0, 4), (0, 4)]
    assert all(done.rho_planned <= 0.75 for done in callback.history)


class EndsAt(TrainerCallback):  # type: ignore[misc]
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_log = False
        control.should_training_stop = state.global_step == self.step


def test_another_callback_that_ends_training_closes_the_segment(llama: Path, tmp_path: Path) -> None:
    """Also where it keeps the Trainer from logging, so that no segment ends by its log."""
    callback = GreenTrainerCallback(rho=0.75, segment=4)
    trainer = own_trainer(llama, tmp_path, [callback, EndsAt(6)])
    trainer.train()
    assert [(d.k, d.steps) for d in callback.history] == [(0, 4), (1, 2)]
    assert all(d.loss is not None for d in callback.history)
    assert callback.stopped == "another callback ended it after step 6 of 8"
    assert all(p.requires_grad for p in trainer.model.parameters())


@pytest.mark.parametrize("under_a_daemon", [True, False])
def test_what_we_stop_ourselves_goes_on_from_its_checkpoint(
    llama: Path, tmp_path: Path, under_a_daemon: bool
) -> None:
    (job := tmp_path / "job").mkdir()
    steps: list[int] = []

    class Counts(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            steps.append(state.global_step)

    options: dict[str, Any] = {"job_dir": job, "alone": True} if under_a_daemon else {}
    callback = GreenTrainerCallback(rho=0.75, stopping=lambda: len(steps) > 1, **options)
    own_trainer(llama, tmp_path, [Counts(), callback]).train()
    assert callback.stopped == "signal"
    assert len(callback.history) == (0 if under_a_daemon else 1), "what goes on later is not closed"


class Stream(torch.utils.data.IterableDataset[Any]):
    """Can be read once: a second reader finds what the first one left."""

    def __init__(self, rows: Any) -> None:
        self.rows = iter([rows[i] for i in range(len(rows))])

    def __iter__(self) -> Any:
        return self.rows


def test_a_stream_is_trained_on_for_the_steps_given(llama: Path, tmp_path: Path) -> None:
    """No row is taken from it but for a step."""
    callback = GreenTrainerCallback(rho=0.75, segment=3, importance_batches=2)
    trainer = own_trainer(llama, tmp_path, [callback], rows=64, max_steps=6)
    trainer.train_dataset = Stream(trainer.train_dataset)
    trainer.train()
    assert [d.steps for d in callback.history] == [3, 3]
    assert all(abs(d.rho_realised - d.rho_planned) <= 0.02 or d.departure for d in callback.history)
    assert len(list(trainer.train_dataset)) >= 64 - 4 * 6 - 4, "a batch more is fetched ahead"


def test_an_interrupted_training_leaves_nothing_to_the_next(llama: Path, tmp_path: Path) -> None:
    """Ctrl-C in a notebook: no hook says that training ended."""

    class Interrupts(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            raise KeyboardInterrupt

    callback, others = GreenTrainerCallback(rho=np.float32(0.9)), Interrupts()
    trainer = own_trainer(llama, tmp_path, [callback, others], num_train_epochs=1)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.remove_callback(others)
    trainer.train()
    (done,) = callback.history
    assert done.departure is None
    assert done.rho_realised == pytest.approx(done.rho_planned, abs=0.01)
    assert all(p.requires_grad for p in trainer.model.parameters())


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError("no room")])
def test_a_step_that_ends_in_an_error_leaves_the_model_as_it_was(
    llama: Path, tmp_path: Path, error: BaseException
) -> None:
    """Whoever trains it on with another Trainer trains all of it."""
    callback = GreenTrainerCallback(rho=0.6)
    trainer = own_trainer(llama, tmp_path, [callback], num_train_epochs=1)
    hooks = len(trainer.model._forward_pre_hooks)

    def fail(module: Any, args: Any) -> None:
        if callback._in_step and callback.segment.steps_done == 1:
            raise error

    handle = trainer.model.register_forward_pre_hook(fail)
    with pytest.raises(type(error)):
        trainer.train()
    handle.remove()
    assert all(p.requires_grad for p in trainer.model.parameters())
    assert len(trainer.model._forward_pre_hooks) == hooks
    assert "training_step" not in vars(trainer)


@pytest.mark.parametrize("hook", ["on_step_end", "on_log", "on_epoch_end"])
def test_an_error_between_two_steps_leaves_the_model_as_it_was(
    llama: Path, tmp_path: Path, hook: str
) -> None:
    """Ctrl-C, or what another callback raises."""

    def fail(self: Any, *args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    callback = GreenTrainerCallback(rho=0.6, importance="spread")
    others = type("Fails", (TrainerCallback,), {hook: fail})()
    trainer = own_trainer(llama, tmp_path, [callback, others], num_train_epochs=1)
    hooks = len(trainer.model._forward_pre_hooks)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert all(p.requires_grad for p in trainer.model.parameters())
    assert len(trainer.model._forward_pre_hooks) == hooks
    assert not vars(trainer).keys() & {"training_step", "log", "get_batch_samples"}


def test_what_a_pass_counts_in_buffers_is_not_kept(llama: Path, tmp_path: Path) -> None:
    callback = GreenTrainerCallback(rho=0.8, segment=2)
    trainer = own_trainer(llama, tmp_path, [callback], num_train_epochs=1)
    norm = torch.nn.BatchNorm1d(1)
    trainer.model.register_buffer("passes", torch.zeros(()))
    trainer.model.add_module("norm", norm)

    def count(module: Any, args: Any) -> None:
        module.passes += 1
        norm(torch.ones(2, 1))

    trainer.model.register_forward_pre_hook(count)
    norm.requires_grad_(False)
    trainer.train()
    assert len(callback.history) == 2
    assert (float(trainer.model.passes), int(norm.num_batches_tracked)) == (4, 4)


def test_what_the_optimizer_does_not_hold_costs_no_gradient(llama: Path, tmp_path: Path) -> None:
    """Its user froze nothing: the bottom of the model is left out of the optimizer alone."""
    callback = GreenTrainerCallback(rho=0.7)
    trainer = own_trainer(llama, tmp_path, [callback], num_train_epochs=1)
    held = [p for n, p in trainer.model.named_parameters() if "embed" not in n and "layers.0" not in n]
    trainer.optimizer = torch.optim.AdamW(held, lr=1e-3)
    trainer.train()
    (done,) = callback.history
    assert done.rho_realised == pytest.approx(done.rho_planned, abs=0.01)
    assert all(p.requires_grad for p in trainer.model.parameters())


def test_resume_in_ones_own_trainer(t5: Path, tmp_path: Path) -> None:
    """save_steps inside a segment: the segment's selection and account come back with the checkpoint."""
    options = {"save_strategy": "steps", "save_steps": 3, "num_train_epochs": 2}
    straight = GreenTrainerCallback(rho=0.95)
    whole = own_trainer(t5, tmp_path, [straight], **options)
    whole.train()
    callback = GreenTrainerCallback(rho=0.95)
    resumed = own_trainer(t5, tmp_path, [callback], **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    for one, other in zip(weights(whole), weights(resumed), strict=True):
        assert torch.equal(one, other)
    assert [d.selected for d in callback.history] == [d.selected for d in straight.history]
    assert [d.flops for d in callback.history] == [d.flops for d in straight.history]


def test_a_step_or_two_behind_the_last_segment_are_part_of_it(llama: Path, tmp_path: Path) -> None:
    callback = GreenTrainerCallback(rho=0.8, segment=7)
    own_trainer(llama, tmp_path, [callback]).train()
    assert [d.steps for d in callback.history] == [8]
    assert all(abs(d.rho_realised - d.rho_planned) <= 0.01 for d in callback.history)


def test_a_longer_remainder_is_selected_by_what_was_measured_before(llama: Path, tmp_path: Path) -> None:
    """Also where another process trains it."""
    options = {"save_strategy": "steps", "save_steps": 5}
    straight, resumed = (GreenTrainerCallback(rho=0.8, segment=5) for _ in range(2))
    own_trainer(llama, tmp_path, [straight], **options).train()
    own_trainer(llama, tmp_path, [resumed], **options).train(
        resume_from_checkpoint=str(tmp_path / "checkpoint-5")
    )
    first, rest = straight.history
    assert (first.steps, rest.steps) == (5, 3)
    assert first.importance_seconds > 0 == rest.importance_seconds
    assert 0.7 < rest.rho_realised <= 0.801
    assert [d.selected for d in resumed.history] == [rest.selected]


def test_a_strangers_checkpoint_gets_a_new_selection(llama: Path, tmp_path: Path) -> None:
    options = {"save_strategy": "steps", "save_steps": 2, "num_train_epochs": 1}
    own_trainer(llama, tmp_path, [], **options).train()
    callback = GreenTrainerCallback(rho=1.2)
    own_trainer(llama, tmp_path, [callback], **options).train(
        resume_from_checkpoint=str(tmp_path / "checkpoint-2")
    )
    assert [(d.first_step, d.steps) for d in callback.history] == [(2, 2)]


def test_parameters_left_out_of_the_optimizer_stay_frozen(llama: Path, tmp_path: Path) -> None:
    callback = GreenTrainerCallback(rho=0.9)
    trainer = own_trainer(llama, tmp_path, [callback], num_train_epochs=1)
    for name, parameter in trainer.model.named_parameters():
        parameter.requires_grad_("mlp" in name)
    trainer.train()
    (done,) = callback.history
    assert all("mlp" in name for name in done.selected)
    costs = callback.driver.method.costs
    own = costs.flops([n for n, p in trainer.model.named_parameters() if "mlp" in n]) / costs.flops(
        costs.names
    )
    assert done.flops_own == pytest.approx(own * done.flops_full)
    assert done.rho_own == pytest.approx(done.rho_realised / own)
    assert not trainer.model.model.embed_tokens.weight.requires_grad


def test_true_shapes_count(llama: Path, tmp_path: Path) -> None:
    """Rows of many lengths and a short last batch: the full cost is that of the batches that really ran."""
    from trainer.profiling.profiler import profile

    callback = GreenTrainerCallback(rho=0.9)
    trainer = own_trainer(llama, tmp_path, [callback], num_train_epochs=1, rows=14)
    for i, row in enumerate(trainer.train_dataset.rows):
        cut = 4 + i % 9
        trainer.train_dataset.rows[i] = type(row)(row.input_ids[-cut:], row.labels[-cut:])
    shapes: list[tuple[int, ...]] = []
    trainer.model.register_forward_pre_hook(
        lambda model, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    trainer.train()
    (done,) = callback.history
    ran = shapes[1:]  # the first was the importance batch
    assert len(set(ran)) > 1
    expected = sum(profile(trainer.model, *shape).full_flops for shape in ran)
    # up to 5.19 or so transformers multiplied positions by a matrix once per batch, whatever the rows in it: a millionth here
    assert done.flops_full == pytest.approx(expected, rel=1e-6)
    assert done.rho_realised == pytest.approx(done.rho_planned, abs=0.01)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"method": "dropout"}, r"train\.method: 'dropout' is no method of this installation"),
        ({"importance": "rech"}, r"train\.importance: 'rech' is not known"),
        ({"rho": -1}, "rho: must be a number above 0 and at most 2, is -1"),
        ({"rho": 0}, "rho: .* is 0"),
        ({"rho": 60}, r"rho: .* is 60; a ratio is meant, 60% is 0\.6"),
        ({"rho": "0.6"}, r"rho: .* is '0\.6'; leave out the quotes: 0\.6"),
        ({"rho": float("nan")}, "rho: .* is nan"),
        ({"rho": True}, "rho: .* is True"),
        ({"rho": None}, "rho: .* is None"),
        ({"roh": 0.6}, "roh: is no option of GreenTrainerCallback; did you mean 'rho'"),
        ({"segments": 4}, "did you mean 'segment'"),
        ({"segment": 0}, "segment: must be 'epoch' or a number of steps from 1, is 0"),
        ({"segment": "epochs"}, "segment: .* is 'epochs'"),
        ({"segment": 2.5}, r"segment: .* is 2\.5"),
        ({"importance_batches": 0}, "importance_batches: .* is 0"),
        ({"importance": None}, "importance: .* is None"),
        ({"seed": -1}, "seed: .* is -1"),
        ({"seed": "1"}, "seed: .* leave out the quotes: 1"),
        ({"shape": 128}, "shape: .* is 128"),
        ({"stopping": True}, "stopping: .* is True"),
        ({"skip_earliest": 30}, r"skip_earliest: .* 30% is 0\.3"),
        ({"stale_state": "forget"}, "stale_state: must be one of keep, drop, offload"),
        ({"cache": True}, "cache: must be one of off, memory, disk"),
        ({"cache_gb": 0}, "cache_gb: .* is 0"),
        ({"patience_s": -1}, "patience_s: .* is -1"),
        ({"job_dir": "/nowhere/at/all"}, "job_dir: there is no folder /nowhere/at/all; make it first"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_construction(options: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError, match=line) as refused:
        GreenTrainerCallback(**options)
    assert "\n" not in str(refused.value)


def test_ones_own_trainer_under_a_daemon(llama: Path, tmp_path: Path) -> None:
    """job_dir alone makes it speak the protocol; checkpoints elsewhere are reported, and none is pruned."""
    job = tmp_path / "job"
    job.mkdir()
    stranger = tmp_path / "out" / "checkpoint-1"
    stranger.mkdir(parents=True)
    trainer = own_trainer(llama, tmp_path / "out", [GreenTrainerCallback(job_dir=job)], num_train_epochs=1)
    with FakeDaemon(job, lambda e: directive(0, 0.9) if e["event"] == "segment_ready" else None):
        trainer.train()
    assert [d["rho_directed"] for d in of(job, "segment_done")] == [0.9]
    assert of(job, "checkpoint")[0]["path"] == "../out/checkpoint-4"
    assert stranger.is_dir()
