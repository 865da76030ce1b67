"""Runs one job from its job directory (docs/protocol.md): a fine-tuned model and events come out, and a killed run can be resumed.

One process trains on one device; under torchrun several processes train together."""

import dataclasses
import logging
import os
import platform
import resource
import shutil
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer, TrainingArguments, set_seed

from carbonsched.errors import InputError
from carbonsched.model.job import JobSpec, TrainPart
from carbonsched.model.protocol import VERSION, Evaluated, Finished, SegmentDone, Started
from trainer.data.encoding import Encoded, TextEncoder, TokenDataset
from trainer.data.models import check_vocabulary, load_model
from trainer.data.reading import load_rows
from trainer.data.sampling import GroupedSampler
from trainer.device import board_uuid, check_board, peak_memory, runs_in_bf16
from trainer.distributed.ranks import check_world, leave, ranks, world_of, world_size
from trainer.evaluation.early_stopping import AlreadyStopped, EarlyStopping, check_early_stop
from trainer.evaluation.held_out import HeldOut
from trainer.evaluation.model_card import model_card
from trainer.job import checkpoint
from trainer.job.budget_schedule import BudgetSchedule
from trainer.job.directives import PATIENCE_S, DirectiveSource, Stopped
from trainer.job.inputs import handed_over
from trainer.job.job_dir import JobDir, give_modes, now, write_json
from trainer.job.schedule_rules import check_warmup
from trainer.job.segment import Schedule
from trainer.methods import adapters
from trainer.methods.registry import add_adapters, check_method
from trainer.training.adapter_choice import LORA, AdapterChoice, AdaptersChosen
from trainer.training.callback import GreenTrainerCallback
from trainer.training.options import Options
from trainer.training.step_clock import StepClock

log = logging.getLogger("trainer")

_FIELDS = {field.name for field in dataclasses.fields(TrainingArguments)}
_CHECKPOINTING = next(n for n in ("activation_checkpointing", "gradient_checkpointing") if n in _FIELDS)
"""transformers 5.23 renamed it."""


def run_job(
    job: JobDir,
    stopping: Callable[[], bool],
    patience_s: float = PATIENCE_S,
    *,
    alone: bool = False,
    parts: bool = False,
) -> str:
    """Run the job, or the rest of it after its newest checkpoint; returns `done` or `stopped`, after the event `finished`.

    `stopping` is polled everywhere; once it holds, the job checkpoints and ends. `alone`: at `rho_start` throughout, without a daemon.
    `parts`: write the seconds of each step's parts into parts.json. Raises InputError for a bad spec, model or data, CarbonschedError if
    training cannot continue.
    """
    spec = job.spec().spec
    check_method(spec)
    check_world(spec.train)
    _one_board(spec.train)
    check_board()
    job.checkpoints.mkdir(exist_ok=True)
    last = checkpoint.find_newest(job.checkpoints)
    try:
        ended = _Run(job, spec, stopping, patience_s, alone, parts).go(last)
    except Stopped as e:
        log.info("stopped: %s", e)
        step = checkpoint.step_of(checkpoint.find_newest(job.checkpoints))
        job.send(Finished(at=now(), step=step, reason="stopped", peak_memory_bytes=_peak_memory()))
        ended = "stopped"
    leave()
    return ended


class _Run:
    def __init__(
        self,
        job: JobDir,
        spec: JobSpec,
        stopping: Callable[[], bool],
        patience_s: float,
        alone: bool,
        parts: bool,
    ) -> None:
        self.job, self.spec, self.stopping, self.patience_s = job, spec, stopping, patience_s
        self.read = handed_over(job, spec)
        """`spec` with the paths that its files are read from."""
        self.alone, self.parts = alone, parts
        self.directives: DirectiveSource | None = None

    def go(self, last: Path | None) -> str:
        spec, train = self.spec, self.spec.train
        rows = load_rows(self.read.data, self.read.evaluate)
        check_early_stop(train, rows.validation)
        self.encoder = TextEncoder.of(self.read.model, self.read.data)
        data = self.encoder.encode(rows.train)[: spec.data.train_limit]
        self._end_if_stopped()
        self.held_out = HeldOut.of(rows, self.job, spec, self.encoder, self._stopped)
        set_seed(train.seed)
        begun = checkpoint.step_of(last)
        schedule = schedule_of(train, len(data))
        if self.alone:  # otherwise the check has said so
            check_warmup(train, schedule)
        budget = self._budget(schedule, last)
        early = EarlyStopping(self.job, train, self.held_out, schedule, begun, budget)
        # if all steps are done only evaluation and saving are left; a Trainer resumed there would train one step more
        over = begun >= schedule.steps or early.exhausted or (budget is not None and budget.is_over(begun))
        ready = last if over else None
        saved = checkpoint.read(last) if last is not None else None
        self.adapters = AdapterChoice.of(spec, made=bool((saved or {}).get("adapters")))
        self.model = self._load(ready)
        self._end_if_stopped()
        check_vocabulary(self.model, chain.from_iterable(row.input_ids for row in data), self.read.model)
        self.model.config.use_cache = False
        sampler = self.encoder.sampler(data, train, world_size(), begun // schedule.steps_per_epoch)
        trainer = self._prepare(data, sampler, schedule, budget, early)
        self._started(trainer, schedule if budget is None else budget.narrow(schedule, begun), last)
        if last is None:
            self.held_out.evaluate(self.model, "before", 0)
        self._end_if_stopped()
        if not over:
            # evaluation uses no random numbers, but whatever precedes training must not change its dropout
            set_seed(train.seed)
            if self._takes_adapters(trainer, last) and self.adapters is not None:
                self._put_on_adapters(trainer, self.adapters)
                trainer = self._prepare(data, sampler, schedule, budget, early)
                self._takes_adapters(trainer, None)
            callback = self.callback
            if callback.stopped is not None and not (callback.stopped_elsewhere and early.exhausted):
                raise Stopped(callback.stopped)
        steps = max(early.losses) if early.exhausted else schedule.steps if budget is None else budget.steps
        ranks().gather(None)  # the files that rank 0 wrote are there
        best = early.restore_best(self.model)
        self.held_out.evaluate(self.model, "after", steps if best is None else best)
        self.held_out.evaluate(self.model, "test", steps if best is None else best)
        state = trainer.accelerator.get_state_dict(self.model) if train.parallel == "fsdp2" else None
        ranks().broadcast(lambda: self._save(steps, best, early.reason, state))
        early.delete_best()
        return "done"

    def _prepare(
        self,
        data: list[Encoded],
        sampler: GroupedSampler | None,
        schedule: Schedule,
        budget: BudgetSchedule | None,
        early: EarlyStopping,
    ) -> Trainer:
        """A Trainer of the current model, driven by `callback`."""
        options = Options.of(
            self._trained_as,
            job_dir=self.job.path,
            shape=self.encoder.nominal_shape(data, self.spec.train.batch_size, sampler),
            stopping=self.stopping,
            patience_s=self.patience_s,
            alone=self.alone,
        )
        self.callback = GreenTrainerCallback.of(options)
        self.callback.budget, self.callback.adapters = budget, self.adapters
        self.directives = self.callback.directives
        trainer = self._trainer(data, self.callback, sampler, schedule)
        trainer.add_callback(early)
        if self.parts:
            trainer.add_callback(StepClock(self.job.path / "parts.json"))
        return trainer

    def _takes_adapters(self, trainer: Trainer, last: Path | None) -> bool:
        """Train; returns true if the daemon chose adapters before the first step."""
        try:
            trainer.train(resume_from_checkpoint=str(last) if last else None)
        except AdaptersChosen:
            return True
        except AlreadyStopped:
            pass
        return False

    def _put_on_adapters(self, trainer: Trainer, choice: AdapterChoice) -> None:
        """Go on as a job of LoRA, as the daemon chose before the first step."""
        self.adapters = dataclasses.replace(choice, made=True)
        log.info("the daemon chose %s: the model gets adapters, the rest is frozen", LORA)
        plain = trainer.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        # adapters are initialised as in a job of this method
        set_seed(self.spec.train.seed)
        self.model = add_adapters(plain, self._trained_as.train)
        self.model.config.use_cache = False
        set_seed(self.spec.train.seed)

    @property
    def _trained_as(self) -> JobSpec:
        """The job as it trains: if a job of method auto took adapters, one of LoRA."""
        chosen = self.adapters is not None and self.adapters.made
        return self.adapters.spec(self.spec) if self.adapters is not None and chosen else self.spec

    def _budget(self, schedule: Schedule, last: Path | None) -> BudgetSchedule | None:
        """The schedule, if the daemon decides how many steps there are. Raises InputError if nobody would end it."""
        train = self.spec.train
        if train.scheduler != "budget":
            return None
        asked = self.job.launched or (self.job.path / "control.json").exists()
        if not train.bounded and (self.alone or not asked):
            raise InputError(
                "train.scheduler",
                "'budget' has no end without a daemon",
                "add train.max_steps or train.epochs",
            )
        budget = BudgetSchedule.of(train.warmup_steps, train.cooldown, schedule)
        budget.load((checkpoint.read(last) or {}).get("budget") if last is not None else None)
        return budget

    def _stopped(self) -> bool:
        """Whether any rank was asked to stop; every rank asks. Waits while no lease holds. Raises Stopped."""
        if self.directives is not None:
            ranks().broadcast(self.directives.check_lease)
        return ranks().any(self.stopping())

    def _end_if_stopped(self) -> None:
        """Raises Stopped."""
        if self._stopped():
            raise Stopped("signal")

    def _load(self, trained: Path | None) -> Any:
        """The model to train; with `trained`, a checkpoint, the model in it."""
        spec = self._trained_as
        if trained is None:
            return add_adapters(self._named(load_model(self.read.model)), spec.train)
        if check_method(spec).traits.trains_adapters:  # a checkpoint of theirs contains only the adapters
            return adapters.restore(self._named(load_model(self.read.model)), trained)
        return load_model(self.read.model.model_copy(update={"name_or_path": str(trained)}))

    def _named(self, model: Any) -> Any:
        """Set the name that saved models and adapters give as their origin: not a file in this job's directory."""
        if self.read is not self.spec:
            model.name_or_path = model.config.name_or_path = self.spec.model.name_or_path
        return model

    def _trainer(
        self,
        data: list[Encoded],
        callback: GreenTrainerCallback,
        sampler: GroupedSampler | None,
        schedule: Schedule,
    ) -> Trainer:
        train = self.spec.train
        cuda = torch.cuda.is_available()
        args = TrainingArguments(
            output_dir=str(self.job.checkpoints),
            per_device_train_batch_size=train.batch_size,
            gradient_accumulation_steps=train.gradient_accumulation,
            **{_CHECKPOINTING: train.gradient_checkpointing},
            num_train_epochs=train.epochs or 1,
            max_steps=schedule.steps if train.max_steps is not None or not train.bounded else -1,
            learning_rate=train.lr,
            lr_scheduler_type=_scheduler_type(train),
            warmup_steps=train.warmup_steps,
            weight_decay=train.weight_decay,
            **optimizer_arguments(train),
            max_grad_norm=train.max_grad_norm,
            seed=train.seed,
            data_seed=train.seed,
            logging_steps=1,
            logging_nan_inf_filter=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=cuda,
            use_cpu=not cuda,
            bf16=(bf16 := runs_in_bf16(train.autocast, self.spec.model.dtype)),
            # what products are left in fp32
            tf32=True if bf16 and train.autocast == "auto" else None,
            fsdp=train.parallel == "fsdp2",
            torch_compile=train.compile,
            # dropped branches get no gradient; otherwise transformers decides
            ddp_find_unused_parameters=check_method(self.spec).traits.skips_gradients or None,
        )
        trainer = _Trainer(
            sampler,
            callback.budget,
            model=self.model,
            args=args,
            train_dataset=TokenDataset(data),
            data_collator=self.encoder.collate,
            processing_class=self.encoder.tokenizer,
            callbacks=[callback],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        if train.parallel == "fsdp2" and not trainer.is_fsdp_enabled:
            raise InputError("train.parallel", "'fsdp2' takes GPUs, there are none", "set it to 'ddp'")
        return trainer

    def _started(self, trainer: Trainer, schedule: Schedule, last: Path | None) -> None:
        device = trainer.args.device
        cuda = device.type == "cuda"
        self.job.send(
            Started(
                at=now(),
                pid=os.getpid(),
                segments=None if schedule.is_open else schedule.segments,
                steps=None if schedule.is_open else schedule.steps,
                most_steps=schedule.most_steps,
                first_step=checkpoint.step_of(last),
                test_rows=len(self.held_out.test.encoded),
                params=sum(p.numel() for p in self.model.parameters()),
                device=torch.cuda.get_device_name(device) if cuda else "cpu",
                gpu_uuid=board_uuid(device) if cuda else None,
                versions={
                    "python": platform.python_version(),
                    "torch": torch.__version__,
                    "transformers": transformers.__version__,
                },
                protocol=VERSION,
            )
        )
        where = f"resuming from {last.name}" if last else "from the beginning"
        log.info(
            "%s on %s: %s, %s",
            self.spec.name,
            device,
            schedule,
            where,
        )

    def _save(
        self, step: int, best: int | None, early: str | None, state: dict[str, Any] | None = None
    ) -> None:
        """Save the model, its tokenizer and metrics.json, complete before `finished` is sent. state: the weights of a sharded model.

        All of it is inside output/: the job's folder is not the owner's if the daemon is root.
        """
        part = self.job.output / ".part"
        shutil.rmtree(part, ignore_errors=True)
        self.model.config.use_cache = True
        kind = adapters.save(self.model, part, state)
        self.encoder.tokenizer.save_pretrained(part)
        ended = {"best_step": best, "early_stop": early, "output": kind}
        write_json(part / "metrics.json", self._metrics(step) | ended)
        if self.spec.evaluate.predictions:
            self.held_out.write_predictions(part / "predictions.jsonl")
        events, how = self.job.events(), self.held_out.settings()
        card = model_card(self.job.spec().id, self.spec, events, kind, how).text()
        (part / "README.md").write_text(card, encoding="utf-8")
        give_modes(part)
        _move_up(part)
        peak = _peak_memory()
        self.job.send(Finished(at=now(), step=step, early=early, output="output", peak_memory_bytes=peak))
        log.info("finished after %d steps; the model is in %s", step, self.job.output)

    def _metrics(self, step: int) -> dict[str, Any]:
        """Metrics from events.jsonl, which includes earlier processes of this job; a repeated segment counts once."""
        segments: dict[int, SegmentDone] = {}
        losses: dict[str, Any] = {}
        for event in self.job.events():
            if isinstance(event, SegmentDone):
                segments[event.k] = event
            elif isinstance(event, Evaluated):
                losses[event.when] = event.dump() | self.held_out.report(event.when)
        done = [segments[k] for k in sorted(segments)]
        flops, full = sum(d.flops for d in done), sum(d.flops_full for d in done)
        return {
            "name": self.spec.name,
            "method": self.spec.train.method,
            "steps": step,
            "loss_before": losses.get("before"),
            "loss_after": losses.get("after"),
            "loss_test": losses.get("test"),
            "generation": self.held_out.settings(),
            "flops": flops,
            "flops_full": full,
            "rho_realised": flops / full if full else None,
            "segments": [d.dump() | {"selected": len(d.selected)} for d in done],
        }


class _Trainer(Trainer):  # type: ignore[misc]
    """A Trainer that reads rows in the order of `sampler`, with the learning rate of `budget`; None: transformers' own."""

    def __init__(self, sampler: GroupedSampler | None, budget: BudgetSchedule | None, **given: Any) -> None:
        self._sampler, self._budget = sampler, budget
        super().__init__(**given)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        budget = self._budget
        if budget is None:
            return super().create_scheduler(num_training_steps, optimizer)
        self.lr_scheduler = LambdaLR(optimizer or self.optimizer, lambda step: budget.factor(step))
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def _get_train_sampler(self, *args: Any) -> Any:
        return super()._get_train_sampler(*args) if self._sampler is None else self._sampler


def _move_up(part: Path) -> None:
    """Replace the content of a folder by that of its subfolder `part`."""
    for old in part.parent.iterdir():
        if old.is_dir() and old != part and not old.is_symlink():
            shutil.rmtree(old)
        elif old != part:
            old.unlink()
    for new in part.iterdir():
        new.rename(part.parent / new.name)
    part.rmdir()


def schedule_of(train: TrainPart, rows: int) -> Schedule:
    batch = train.batch_size * world_of(train)
    given = (rows, batch, train.gradient_accumulation, train.epochs, train.max_steps, train.segment)
    return Schedule.of(*given, is_open=train.scheduler == "budget")


def _scheduler_type(train: TrainPart) -> str:
    """The name for TrainingArguments: its `constant` ignores warm-up."""
    if train.scheduler == "budget":
        return "constant"  # our schedule replaces it
    return "constant_with_warmup" if train.scheduler == "constant" else train.scheduler


def optimizer_arguments(train: TrainPart) -> dict[str, Any]:
    """The arguments for TrainingArguments. AdamW runs in one fused kernel, on CPUs too, which takes a fifth of the time."""
    if train.optimizer == "sgd":
        return {"optim": "sgd", "optim_args": f"momentum={train.momentum}"}
    return {"optim": "adamw_torch_fused" if train.optimizer == "adamw" else train.optimizer}


def _one_board(train: TrainPart) -> None:
    # transformers would wrap the model in DataParallel over all visible devices; a job, or a rank, has one
    if world_size() == 1:
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    if train.threads is not None:
        torch.set_num_threads(train.threads)


def _peak_memory() -> int:
    reserved = peak_memory()
    if reserved is not None:
        return reserved
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
