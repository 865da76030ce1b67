"""Evaluates a model on held-out rows: their loss, the text that the model writes for them, and the files that keep both.

Each evaluation becomes an `evaluated` event, so its energy is on the job's account. The validation rows are evaluated before and
after training (and at the end of segments where that is asked for, by loss alone); the test rows once, after it.
"""

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from carbonsched.model.job import JobSpec
from carbonsched.model.protocol import Evaluated
from trainer.data.encoding import Encoded, TextEncoder
from trainer.data.field_layouts import Row
from trainer.data.reading import Rows
from trainer.device import device_seconds, runs_in_bf16
from trainer.evaluation.generate import Generation, generate
from trainer.evaluation.metrics import Loss, measure_loss, score
from trainer.job.job_dir import JobDir, now

log = logging.getLogger("trainer")

When = Literal["before", "segment", "after", "test"]


@dataclass(frozen=True, slots=True)
class HeldOutRows:
    """Held-out rows as text and as tokens.

    Example::

        held = HeldOutRows(rows.test, encoder.encode(rows.test))
    """

    rows: list[Row]
    encoded: list[Encoded]


@dataclass(slots=True)
class HeldOut:
    """The validation and test rows of a job, and what was found on them in this process.

    Example::

        held_out = HeldOut.of(rows, job, spec, encoder, stop=lambda: False)
        held_out.evaluate(model, "before", 0)
    """

    job: JobDir
    spec: JobSpec
    encoder: TextEncoder
    stop: Callable[[], bool]
    validation: HeldOutRows
    test: HeldOutRows
    losses: dict[str, Loss] = field(default_factory=dict)
    """By `when`."""
    texts: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        rows: Rows,
        job: JobDir,
        spec: JobSpec,
        encoder: TextEncoder,
        stop: Callable[[], bool],
    ) -> "HeldOut":
        """stop: polled between batches and between tokens of generated text; once it holds, Stopped is raised."""

        def part(found: list[Row], most: int | None) -> HeldOutRows:
            return HeldOutRows(found, encoder.encode(found)[:most])

        validation = part(rows.validation, spec.data.validation_limit)
        return cls(job, spec, encoder, stop, validation, part(rows.test, spec.evaluate.limit))

    @property
    def generation(self) -> Generation:
        return Generation.of(self.spec.evaluate, self.spec.data, self.spec.train.batch_size)

    def evaluate(
        self, model: Any, when: When, step: int, then: Callable[[float], None] = lambda loss: None
    ) -> Evaluated | None:
        """Measure, and say so in events.jsonl; None where there are no rows. Raises Stopped.

        then: called with the loss before anything is said.
        """
        part = self.test if when == "test" else self.validation
        if not part.encoded:
            return None
        began = device_seconds()
        with autocast(self.spec, model):
            head = self.spec.train.labelled_head and not self.spec.train.compile
            loss = measure_loss(
                model, part.encoded, self.encoder, self._batch_size, self.stop, labelled_head=head
            )
            found = self._text(model, when, part.rows) if when != "segment" else {}
        self.losses[when] = loss
        then(loss.nll)
        event = Evaluated(
            at=now(),
            when=when,
            step=step,
            loss=loss.nll,
            samples=loss.samples,
            tokens=loss.tokens,
            seconds=device_seconds() - began,
            metrics={"perplexity": loss.perplexity, **found},
        )
        log.info(
            "%s: %.4f nats a target token on %d held-out rows%s",
            when,
            loss.nll,
            loss.samples,
            _metrics_text(found),
        )
        self.job.send(event)
        return event

    def _text(self, model: Any, when: str, rows: Sequence[Row]) -> dict[str, float]:
        asked = self.spec.evaluate
        if not asked.generates or self.spec.data.pack:
            return {}
        rows = rows[: asked.limit]
        texts = generate(model, self.encoder, rows, self.generation, self.stop)
        self.texts[when] = texts
        found = score(texts, [row.references for row in rows], asked.metrics, stemmer=asked.stemmer)
        return {**found, "generated_rows": float(len(texts))}

    @property
    def _batch_size(self) -> int:
        return self.spec.evaluate.batch_size or self.spec.train.batch_size

    # ---- what is kept

    def report(self, when: When) -> dict[str, Any]:
        """For metrics.json: NLL and target tokens of each row, in the order of the file."""
        loss = self.losses.get(when)
        if loss is None:
            return {}
        return {"row_nll": [nll for nll, _ in loss.rows], "row_tokens": [tokens for _, tokens in loss.rows]}

    def settings(self) -> dict[str, Any] | None:
        """For metrics.json: how text was generated and scored; None where none was."""
        if not self.texts:
            return None
        return self.generation.dump() | {
            "rouge_stemmer": self.spec.evaluate.stemmer,
            "several_references": "the best one counts, for each row and metric",
        }

    def write_predictions(self, file: Path) -> None:
        """A line for each row looked at after training: source, prediction (null where no text was generated), references,
        nll (summed) and tokens."""
        with file.open("w", encoding="utf-8") as out:
            for when, name, part in (("after", "validation", self.validation), ("test", "test", self.test)):
                loss, texts = self.losses.get(when), self.texts.get(when, [])
                if loss is None or self.spec.data.pack:
                    continue
                for i, (row, (nll, tokens)) in enumerate(zip(part.rows, loss.rows, strict=True)):
                    line = {
                        "set": name,
                        "source": row.source,
                        "prediction": texts[i] if i < len(texts) else None,
                        "references": row.references,
                        "nll": nll,
                        "tokens": tokens,
                    }
                    out.write(json.dumps(line, ensure_ascii=False) + "\n")


def autocast(spec: JobSpec, model: Any) -> AbstractContextManager[Any]:
    """The precision that training has."""
    if not runs_in_bf16(spec.train.autocast, spec.model.dtype):
        return nullcontext()
    return torch.autocast(next(model.parameters()).device.type, torch.bfloat16)


def _metrics_text(found: dict[str, float]) -> str:
    return "".join(f", {name} {value:.1f}" for name, value in found.items() if name != "generated_rows")
