"""What a job would be, without loading a weight: rows, steps, batch shape and ρ floor."""

import math
from typing import Any

from carbonsched.errors import InputError
from carbonsched.model.job import JobSpec
from carbonsched.model.profile import CheckResult
from trainer.data.models import check_folder, load_tokenizer
from trainer.data.reading import encode, load_rows, nominal_shape
from trainer.distributed.ranks import check_world, world_size
from trainer.evaluation.early_stopping import check_early_stop
from trainer.job.segment import rows_in
from trainer.methods.method import Method
from trainer.methods.prepare import prepare
from trainer.methods.registry import add_adapters, check_method
from trainer.profiling.flop_counter import Shape
from trainer.profiling.meta_model import meta_model
from trainer.run import schedule_of
from trainer.training.activation_cache import check_cache, flops_beneath
from trainer.training.skippable_blocks import find_blocks


def check_job(spec: JobSpec) -> CheckResult:
    """Raises InputError that names the field and a hint."""
    train, carbon = spec.train, spec.carbon
    traits = check_method(spec).traits
    check_world(train)
    check_folder(spec.model)
    rows = load_rows(spec.data, spec.evaluate)
    check_early_stop(train, rows.validation)
    tokenizer = load_tokenizer(spec.model)
    model = add_adapters(meta_model(spec.model.name_or_path, spec.model.attn, spec.model.dtype), train)
    two_sided = bool(model.config.is_encoder_decoder)
    encoded = encode(rows.train, tokenizer, spec.data, encoder_decoder=two_sided)[: spec.data.train_limit]
    validation = encode(rows.validation, tokenizer, spec.data, encoder_decoder=two_sided)
    test = encode(rows.test, tokenizer, spec.data, encoder_decoder=two_sided)
    batch = min(train.batch_size, len(encoded))
    seq, target_seq = nominal_shape(encoded, batch, spec.data, encoder_decoder=two_sided)
    if train.cache != "off":
        check_cache(model.config)
    prepared = prepare(
        model,
        train.method,
        Shape(batch, seq, target_seq),
        train.seed,
        skip_earliest=train.skip_earliest,
        attn=spec.model.attn,
        model_name=spec.model.name_or_path,
    )
    method, measured = prepared.method, prepared.method.profile
    schedule = schedule_of(train, len(encoded))
    shortest = _fewest_rows(schedule.steps, schedule.length, len(encoded), spec)
    share = (
        train.importance_batches * batch * world_size() / shortest * method.ceiling
        if method.measures()
        else 0.0
    )
    floor = method.floor + share
    notes = list(measured.notes)
    if train.cache != "off":
        least = _cached_floor(model, method, Shape(batch, seq)) + share
        if least < floor:
            notes.append(
                f"once the cache is filled, ρ may go down to {least:.3f}; no plan counts on it before"
            )
    if not rows.validation:
        notes.append("no validation rows: the loss before and after will not be known")
    if traits.constant_rho:
        notes.append(
            f"method {train.method!r} trains at ρ {floor:.3f} whatever the budget: it can only wait or stop"
        )
    else:
        if train.cache == "off":  # else later segments may go below it
            _check_rho("rho_min", carbon.rho_min, floor, method.floor, share)
        _check_rho("rho_max", carbon.rho_max, floor, method.floor, share)
        _check_rho("rho_mean", carbon.rho_mean, floor, method.floor, share)
    return CheckResult(
        ok=True,
        model=spec.model.name_or_path,
        params=measured.params,
        rows=len(rows.train),
        validation_rows=len(validation[: spec.data.validation_limit]),
        test_rows=len(test[: spec.evaluate.limit]),
        steps=schedule.steps,
        segments=schedule.segments,
        rho_floor=floor,
        step_flops_full=measured.full_flops * train.gradient_accumulation * world_size(),
        batch=batch,
        seq=seq,
        target_seq=target_seq,
        notes=tuple(notes),
    )


def _cached_floor(model: Any, method: Method, shape: Shape) -> float:
    """The floor under a cache of everything that lies beneath the cheapest selection."""
    if not method.plans_with_cache:
        return method.floor
    full, depth = method.profile.full_flops, {t.name: t.depth_flops for t in method.profile.tensors}
    beneath = flops_beneath(model, shape)
    blocks = find_blocks(model)
    at = {id(p): b for b, block in enumerate(blocks) for p in block.parameters()}
    block = {n: at[id(p)] for n, p in model.named_parameters() if id(p) in at and n in depth}
    top = min(depth[n] for n in block)
    choices = [tuple(method.names)] if method.traits.constant_rho else [(n,) for n in method.names]
    return min(
        method.ratio(names)
        - beneath[min(block.get(n, len(blocks) if depth[n] <= top else 0) for n in names)] / full
        for names in choices
    )


def _fewest_rows(steps: int, length: int, rows: int, spec: JobSpec) -> int:
    """Rows of the segment that its importance batches weigh most in: the last may be short."""
    schedule = schedule_of(spec.train, rows)
    batch = min(spec.train.batch_size, rows) * world_size()
    accumulation = spec.train.gradient_accumulation
    bounds = [(0, min(length, steps)), ((schedule.segments - 1) * length, steps)]
    return min(rows_in(schedule, first, end, rows, batch, accumulation) for first, end in bounds)


def _check_rho(name: str, value: float | None, floor: float, cheapest: float, share: float) -> None:
    if value is None or value >= floor:
        return
    least = math.ceil(floor * 1000) / 1000
    why = f"this model's floor {floor:.3f}"
    if share:
        why += f" (cheapest tensor {cheapest:.3f} + importance batches {share:.3f})"
    if least >= 1:
        hint = "make segments longer: the importance batches leave nothing to train with"
    else:
        hint = f"set it to {least:.3f} or more, or leave it out"
    raise InputError(f"carbon.{name}", f"{value:g} is below {why}", hint)
