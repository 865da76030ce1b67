"""Estimates what evaluating on held-out rows takes, before the first evaluation has been measured.

Evaluation is outside ρ and inside the grams. The loss of a row is one forward pass. Generated text takes a pass per token; how many tokens
the model will write is unknown, so every text is assumed to run to its full length and the estimate is on the high side.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from carbonsched.ledger.ledger import Ledger
from carbonsched.model.job import JobSpec
from carbonsched.model.profile import CheckResult
from carbonsched.power.base import Device
from carbonsched.supervisor.estimates.throughput import RECENT_JOBS, Throughput, same_model

_FORWARD = 1 / 3
"""Cost of a forward pass, as a share of a full step."""
_GPU_TOKEN_S = 0.03
"""Seconds per token of a batch on a data-centre GPU: kernel launches of some thirty layers, whatever their size."""
_CPU_BYTES_PER_S = 5e9
"""Rate at which a CPU reads the weights, once per token. Measured: SmolLM2-135M at 4 rows writes one token in 0.14 s on one core."""
_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}

_EVALUATIONS = 100
"""Evaluations of an earlier job that are searched for one with generated text."""


@dataclass(frozen=True, slots=True)
class EvaluationCost:
    """Estimated seconds of a job's evaluations on held-out rows.

    Example:
        >>> EvaluationCost(before_s=10.0, segment_s=0.0, after_s=110.0, description="evaluation: 60 rows").after_s
        110.0
    """

    before_s: float
    segment_s: float
    """At the end of each segment, if asked for."""
    after_s: float
    """After training: the validation rows again, and the test rows."""
    description: str
    """What is counted, for people."""


def evaluation_cost(
    ledger: Ledger, devices: Sequence[Device], spec: JobSpec, checked: CheckResult, throughput: Throughput
) -> EvaluationCost:
    """Test rows that the check does not report are left out, and the description says so."""
    options, train = spec.evaluate, spec.train
    row_s = throughput.step_s(checked) * _FORWARD / (train.gradient_accumulation * max(checked.batch, 1))
    validation = min(checked.validation_rows, spec.data.validation_limit)
    test = checked.test_rows or 0
    generates = options.generates and not spec.data.pack
    token_s, source = _token(ledger, devices, spec, checked) if generates else (0.0, "")
    length = options.max_new_tokens or spec.data.target_length
    texts = min(validation, options.limit or validation)

    def text_s(rows: int) -> float:
        batches = math.ceil(rows / (options.batch_size or train.batch_size))
        return rows * row_s + batches * length * token_s if generates else 0.0

    first_s = validation * row_s + text_s(texts)
    after_s = first_s + test * row_s + text_s(test)
    each = train.evaluate_each_segment or train.early_stop_patience is not None
    segment_s = validation * row_s if each else 0.0
    counted = []
    if validation:
        counted.append(f"{validation} validation rows before{', in' if each else ''} and after training")
    if test:
        counted.append(f"{test} test rows after")
    description = f"evaluation: {' and '.join(counted) or 'no held-out rows'}"
    if counted:
        many = f", {segment_s:.3g} s in each segment" if checked.segments is None and each else ""
        description += f", {first_s + after_s + (checked.segments or 0) * segment_s:.3g} s in all{many}"
    if counted and generates:
        description += (
            f"; every text runs to its {length} tokens at {token_s:.2g} s a token and batch, {source}"
        )
    if options.test is not None and checked.test_rows is None:
        description += (
            "; the test rows are not counted, this trainer's check does not tell how many there are"
        )
    return EvaluationCost(first_s, segment_s, after_s, description)


def _token(
    ledger: Ledger, devices: Sequence[Device], spec: JobSpec, checked: CheckResult
) -> tuple[float, str]:
    """Return (seconds per token of a batch of texts, how that is known)."""
    for job in same_model(ledger.newest(RECENT_JOBS), spec):
        for event in ledger.history(job.id, kinds=("evaluated",), newest=_EVALUATIONS):
            rows = event["metrics"].get("generated_rows")
            if not rows or event["seconds"] <= 0:
                continue
            options, train, data = job.spec.evaluate, job.spec.train, job.spec.data
            batches = math.ceil(rows / (options.batch_size or train.batch_size))
            tokens = batches * (options.max_new_tokens or data.target_length)
            return event["seconds"] / tokens, "measured on this box with this model"
    if spec.train.device != "cpu" and any(device.kind == "gpu" for device in devices):
        return _GPU_TOKEN_S, "assumed"
    return checked.params * _BYTES[spec.model.dtype] / _CPU_BYTES_PER_S, "assumed"
