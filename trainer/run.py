"""Job directory in, fine-tuned model and events out: one job on one board, resumable at any instant (DESIGN 2)."""

import dataclasses
import logging
import os
import platform
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import Trainer, TrainingArguments, set_seed

from carbonsched.model.job import JobSpec, TrainPart
from carbonsched.model.protocol import Evaluated, Finished, SegmentDone, Started
from trainer import checkpoint
from trainer.callback import GreenTrainerCallback
from trainer.data import Encoded, TokenDataset, collator, encode, load_rows, nominal_shape
from trainer.job import JobDir, now, write_json
from trainer.methods import check_method
from trainer.metrics import evaluate
from trainer.models import load_model, load_tokenizer
from trainer.segment import Schedule
from trainer.steering import PATIENCE_S, Stopped

log = logging.getLogger("trainer")

_FIELDS = {field.name for field in dataclasses.fields(TrainingArguments)}
_CHECKPOINTING = next(n for n in ("activation_checkpointing", "gradient_checkpointing") if n in _FIELDS)
"""transformers 5.23 renamed it."""


def run_job(job: JobDir, stopping: Callable[[], bool], patience_s: float = PATIENCE_S) -> str:
    """Run the job, or what its newest checkpoint leaves of it; returns `done` or `stopped`, and has said `finished`.

    `stopping` is polled everywhere; once it holds, the job checkpoints and ends. Raises InputError for a bad spec,
    model or data, CarbonschedError where training cannot go on.
    """
    spec = job.spec().spec
    check_method(spec.train.method)
    _one_board(spec.train)
    job.checkpoints.mkdir(exist_ok=True)
    last = checkpoint.newest(job.checkpoints)
    try:
        return _Run(job, spec, stopping, patience_s).go(last)
    except Stopped as e:
        log.info("stopped: %s", e)
        step = _step_of(checkpoint.newest(job.checkpoints))
        job.send(Finished(at=now(), step=step, reason="stopped", peak_memory_bytes=_peak_memory()))
        return "stopped"


class _Run:
    def __init__(self, job: JobDir, spec: JobSpec, stopping: Callable[[], bool], patience_s: float) -> None:
        self.job, self.spec, self.stopping, self.patience_s = job, spec, stopping, patience_s

    def go(self, last: Path | None) -> str:
        spec, train = self.spec, self.spec.train
        rows = load_rows(spec.data)
        self.tokenizer = load_tokenizer(spec.model)
        set_seed(train.seed)
        begun = _step_of(last)
        schedule = schedule_of(train, len(rows.train))
        # with all steps done only evaluating and saving are left; a Trainer resumed there would train one step more
        ready = last if last is not None and begun >= schedule.steps else None
        self.model = load_model(
            spec.model.model_copy(update={"name_or_path": str(ready)}) if ready else spec.model
        )
        self.model.config.use_cache = False
        two_sided = bool(self.model.config.is_encoder_decoder)
        data = encode(rows.train, self.tokenizer, spec.data, encoder_decoder=two_sided)
        self.held_out = encode(rows.validation, self.tokenizer, spec.data, encoder_decoder=two_sided)
        self.collate = collator(self.tokenizer.pad_token_id, spec.data, encoder_decoder=two_sided)
        callback = GreenTrainerCallback(
            spec.carbon.rho_start,
            job_dir=self.job.path,
            method=train.method,
            segment=train.segment,
            importance_batches=train.importance_batches,
            seed=train.seed,
            shape=nominal_shape(data, train.batch_size, spec.data, encoder_decoder=two_sided),
            keep_checkpoints=train.keep_checkpoints,
            stopping=self.stopping,
            patience_s=self.patience_s,
        )
        trainer = self._trainer(data, callback)
        self._started(trainer, schedule, last)
        if last is None:
            self._evaluate("before", 0)
        if self.stopping():
            raise Stopped("signal")
        if begun < schedule.steps:
            # evaluation draws nothing, but nothing that comes before training should decide its dropout
            set_seed(train.seed)
            trainer.train(resume_from_checkpoint=str(last) if last else None)
            if callback.stopped is not None:
                raise Stopped(callback.stopped)
        self._evaluate("after", schedule.steps)
        self._save(schedule.steps)
        return "done"

    def _trainer(self, data: list[Encoded], callback: GreenTrainerCallback) -> Trainer:
        train = self.spec.train
        cuda = torch.cuda.is_available()
        args = TrainingArguments(
            output_dir=str(self.job.checkpoints),
            per_device_train_batch_size=train.batch_size,
            gradient_accumulation_steps=train.gradient_accumulation,
            **{_CHECKPOINTING: train.gradient_checkpointing},
            num_train_epochs=train.epochs,
            max_steps=train.max_steps if train.max_steps is not None else -1,
            learning_rate=train.lr,
            lr_scheduler_type=train.scheduler,
            warmup_steps=train.warmup_steps,
            weight_decay=train.weight_decay,
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
        )
        trainer = Trainer(
            model=self.model,
            args=args,
            train_dataset=TokenDataset(data),
            data_collator=self.collate,
            processing_class=self.tokenizer,
            callbacks=[callback],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        return trainer

    def _started(self, trainer: Trainer, schedule: Schedule, last: Path | None) -> None:
        device = trainer.args.device
        cuda = device.type == "cuda"
        self.job.send(
            Started(
                at=now(),
                pid=os.getpid(),
                segments=schedule.segments,
                steps=schedule.steps,
                first_step=_step_of(last),
                params=sum(p.numel() for p in self.model.parameters()),
                device=torch.cuda.get_device_name(device) if cuda else "cpu",
                gpu_uuid=f"GPU-{torch.cuda.get_device_properties(device).uuid}" if cuda else None,
                versions={
                    "python": platform.python_version(),
                    "torch": torch.__version__,
                    "transformers": transformers.__version__,
                },
            )
        )
        where = f"resuming from {last.name}" if last else "from the beginning"
        log.info(
            "%s on %s: %d steps in %d segments, %s",
            self.spec.name,
            device,
            schedule.steps,
            schedule.segments,
            where,
        )

    def _evaluate(self, when: Any, step: int) -> None:
        if not self.held_out:
            return
        found = evaluate(self.model, self.held_out, self.collate, self.spec.train.batch_size, self.stopping)
        log.info("%s training: %.4f nats a target token on %d held-out rows", when, found.nll, found.samples)
        self.job.send(
            Evaluated(
                at=now(),
                when=when,
                step=step,
                loss=found.nll,
                samples=found.samples,
                tokens=found.tokens,
                seconds=found.seconds,
                metrics={"perplexity": found.perplexity},
            )
        )

    def _save(self, step: int) -> None:
        """The model, its tokenizer and metrics.json; whole or not there."""
        part = self.job.path / ".output.part"
        shutil.rmtree(part, ignore_errors=True)
        self.model.config.use_cache = True
        self.model.save_pretrained(part)
        self.tokenizer.save_pretrained(part)
        write_json(part / "metrics.json", self._metrics(step))
        shutil.rmtree(self.job.output, ignore_errors=True)
        part.rename(self.job.output)
        peak = _peak_memory()
        self.job.send(Finished(at=now(), step=step, output="output", peak_memory_bytes=peak))
        log.info("finished after %d steps; the model is in %s", step, self.job.output)

    def _metrics(self, step: int) -> dict[str, Any]:
        """From events.jsonl, so that what earlier processes of this job did is in it; a repeated segment counts once."""
        segments: dict[int, SegmentDone] = {}
        losses: dict[str, Any] = {}
        for event in self.job.events():
            if isinstance(event, SegmentDone):
                segments[event.k] = event
            elif isinstance(event, Evaluated):
                losses[event.when] = event.dump()
        done = [segments[k] for k in sorted(segments)]
        flops, full = sum(d.flops for d in done), sum(d.flops_full for d in done)
        return {
            "name": self.spec.name,
            "method": self.spec.train.method,
            "steps": step,
            "loss_before": losses.get("before"),
            "loss_after": losses.get("after"),
            "flops": flops,
            "flops_full": full,
            "rho_realised": flops / full if full else None,
            "segments": [d.dump() | {"selected": len(d.selected)} for d in done],
        }


def _step_of(folder: Path | None) -> int:
    return int(folder.name.rpartition("-")[2]) if folder else 0


def schedule_of(train: TrainPart, rows: int) -> Schedule:
    return Schedule.of(
        rows, train.batch_size, train.gradient_accumulation, train.epochs, train.max_steps, train.segment
    )


def _one_board(train: TrainPart) -> None:
    # transformers would wrap the model in DataParallel over every board it sees; a job has one
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    if train.threads is not None:
        torch.set_num_threads(train.threads)


def _peak_memory() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
