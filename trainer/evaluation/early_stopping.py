"""Evaluates the held-out loss at the end of each segment, keeps the best model, and ends training when the loss no longer falls.

A segment's loss is measured behind its checkpoint, so a signal that falls into it costs no training. What was measured is read
back from events.jsonl, so a resumed job decides as one that was never interrupted; the loss of a segment whose measuring was cut off is
measured before the next one begins. Each evaluation is an `evaluated` event: its energy is on the job's account.
"""

import logging
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from carbonsched.errors import CarbonschedError, InputError
from carbonsched.model.files import sync
from carbonsched.model.job import TrainPart
from carbonsched.model.protocol import Evaluated
from trainer.distributed.ranks import ranks
from trainer.evaluation.held_out import HeldOut
from trainer.job.budget_schedule import BudgetSchedule
from trainer.job.job_dir import JobDir
from trainer.job.segment import Schedule

log = logging.getLogger("trainer")

BEST = "best.safetensors"


class AlreadyStopped(Exception):  # noqa: N818  (not an error: training is over before it begins again)
    """Raised out of `Trainer.train()` where a resumed job turns out to have had its last segment.

    Example::

        with contextlib.suppress(AlreadyStopped):
            trainer.train(resume_from_checkpoint=str(last))
    """


def check_early_stop(train: TrainPart, held_out: object) -> None:
    """Raises InputError where the loss that decides cannot be known."""
    if train.early_stop_patience is not None and not held_out:
        raise InputError(
            "train.early_stop_patience", "there are no held-out rows", "set data.validation, or leave it out"
        )


class EarlyStopping(TrainerCallback):  # type: ignore[misc]
    """To stand behind GreenTrainerCallback, which writes the checkpoint.

    Example::

        early_stopping = EarlyStopping(job, spec.train, held_out, schedule, begun=0)
        trainer.add_callback(early_stopping)
    """

    def __init__(
        self,
        job: JobDir,
        train: TrainPart,
        held_out: HeldOut,
        schedule: Schedule,
        begun: int,
        budget: BudgetSchedule | None = None,
    ) -> None:
        """begun: steps already done; what was measured beyond them was lost with its training. budget: where the daemon decides how
        many there are."""
        self.budget = budget
        self.patience, self.held_out, self.schedule = train.early_stop_patience, held_out, schedule
        self.on = train.evaluate_each_segment or self.patience is not None
        self.file = job.checkpoints / BEST
        self.losses: dict[int, float] = {}
        """Held-out loss by the steps done."""
        for event in job.events():
            if isinstance(event, Evaluated) and event.when == "segment" and event.step <= begun:
                self.losses[event.step] = event.loss
        self._names: frozenset[str] = frozenset()

    @property
    def best_step(self) -> int | None:
        """Steps after which the loss was lowest, the first of equals; None: never measured."""
        return min(self.losses, key=lambda step: (self.losses[step], step), default=None)

    @property
    def exhausted(self) -> bool:
        """Whether `patience` segments in a row brought no new lowest loss."""
        best = self.best_step
        if self.patience is None or best is None:
            return False
        return sum(step > best for step in self.losses) >= self.patience

    @property
    def reason(self) -> str | None:
        """Why training ended before its last step; None where it did not."""
        best = self.best_step
        if not self.exhausted or best is None or max(self.losses) >= self.schedule.steps:
            return None
        return (
            f"early stop after step {max(self.losses)}: no lower held-out loss than {self.losses[best]:.4f} of step {best} in "
            f"{self.patience} segment{'' if self.patience == 1 else 's'}"
        )

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        held = {id(p) for group in kwargs["optimizer"].param_groups for p in group["params"]}
        self._names = frozenset(n for n, p in kwargs["model"].named_parameters() if id(p) in held)
        step = state.global_step
        if self.on and self._ends(step) and step not in self.losses:
            self._evaluate(kwargs["model"], step)
        if self.exhausted:
            raise AlreadyStopped

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.on and self._ends(state.global_step) and state.global_step not in self.losses:
            self._evaluate(kwargs["model"], state.global_step)
        if self.exhausted:
            control.should_training_stop = True

    def restore_best(self, model: Any) -> int | None:
        """Put the best weights into `model`; returns their step, or None where the last ones are kept."""
        best = self.best_step
        if self.patience is None or best is None or best == max(self.losses):
            return None
        parameters = dict(model.named_parameters())
        try:
            with safe_open(self.file, framework="pt") as kept, torch.no_grad():
                for name in kept.keys():  # noqa: SIM118  (no mapping)
                    parameters[name].copy_(kept.get_tensor(name))
        except (OSError, SafetensorError) as e:
            raise CarbonschedError(f"the weights of the best step {best} cannot be read: {e}") from e
        log.info("the weights of step %d are the best of %d segments: they are kept", best, len(self.losses))
        return best

    def delete_best(self) -> None:
        self.file.unlink(missing_ok=True)

    def _ends(self, step: int) -> bool:
        known = self.schedule if self.budget is None else self.budget.narrow(self.schedule, step)
        return step > 0 and known.bounds(step - 1)[2] == step

    def _evaluate(self, model: Any, step: int) -> None:
        before = min(self.losses.values(), default=float("inf"))

        def keep(loss: float) -> None:
            # before the event: what events.jsonl calls the best must be there. Rank 0 decides: sums differ in their last bits
            if self.patience is not None:
                ranks().broadcast(lambda: self._keep(model, step) if loss < before else None)

        event = self.held_out.evaluate(model, "segment", step, keep)
        if event is not None:
            self.losses[step] = ranks().broadcast(lambda: event.loss)

    def _keep(self, model: Any, step: int) -> None:
        """What training moves, in one step and durably: the rest is as it was loaded."""
        tensors = {
            name: parameter.detach().to("cpu").contiguous()
            for name, parameter in model.named_parameters()
            if name in self._names
        }
        part = self.file.with_name(f".{BEST}.part")
        save_file(tensors, part, metadata={"step": str(step)})
        sync(part)
        part.replace(self.file)
