"""Evaluates a finished run on the test rows: NLL of every row, and ROUGE or whatever the job's `[evaluate]` asks for."""

from pathlib import Path

import torch

from carbonsched.errors import InputError
from carbonsched.model.job import JobSpec
from trainer.bench.result import HeldOutResult
from trainer.data.encoding import TextEncoder
from trainer.data.models import load_model
from trainer.data.reading import load_rows
from trainer.device import runs_in_bf16
from trainer.evaluation.generate import Generation, generate
from trainer.evaluation.metrics import measure_loss, score
from trainer.methods import adapters


def evaluate_test_rows(spec: JobSpec, output: Path) -> HeldOutResult | None:
    """Metrics of the model in `output`, made by the job `spec`, on `evaluate.test`; None if the job names no test rows. Raises InputError
    if they cannot be read."""
    rows = load_rows(spec.data, spec.evaluate).test[: spec.evaluate.limit]
    if spec.evaluate.test is None:
        return None
    if not rows:
        raise InputError("evaluate.test", f"{spec.evaluate.test} holds no rows", "name another")
    if spec.train.threads is not None:
        torch.set_num_threads(spec.train.threads)
    encoder = TextEncoder.of(spec.model, spec.data)
    if (output / "adapter_config.json").exists():
        model = adapters.restore(load_model(spec.model), output)
    else:
        model = load_model(spec.model.model_copy(update={"name_or_path": str(output)}))
    model.config.use_cache = True
    batch = spec.evaluate.batch_size or spec.train.batch_size
    autocast = runs_in_bf16(spec.train.autocast, spec.model.dtype)
    with torch.autocast(model.device.type, torch.bfloat16, enabled=autocast):
        loss = measure_loss(model, encoder.encode(rows), encoder, batch)
    metrics: dict[str, float] = {}
    if spec.evaluate.generates:
        options = Generation.of(spec.evaluate, spec.data, batch)
        texts = generate(model, encoder, rows, options)
        metrics = score(texts, [row.references for row in rows], spec.evaluate.metrics)
    return HeldOutResult(
        nll=loss.nll,
        row_nll=tuple(nll for nll, _ in loss.rows),
        row_tokens=tuple(tokens for _, tokens in loss.rows),
        metrics=metrics,
    )
