"""Checks a job without loading a weight, and answers its rows, steps, batch shape and ρ floor, for `submit` and `--explain`."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from carbonsched.errors import InputError
from carbonsched.model.job import JobSpec, TrainPart
from carbonsched.model.methods.traits import MethodTraits
from carbonsched.model.profile import CheckResult
from carbonsched.model.setting import ForeseenSetting
from trainer.data.encoding import Encoded, TextEncoder
from trainer.data.models import check_folder, check_vocabulary
from trainer.data.reading import load_rows
from trainer.device import note_problem
from trainer.distributed.ranks import check_world, world_of
from trainer.evaluation.early_stopping import check_early_stop
from trainer.job.schedule_rules import check_warmup, unused_keys
from trainer.job.segment import rows_in
from trainer.methods.auto import Auto
from trainer.methods.method import Method
from trainer.methods.prepare import check_split, prepare
from trainer.methods.registry import add_adapters, check_method
from trainer.methods.tokens import Tokens
from trainer.profiling.flop_counter import Shape
from trainer.profiling.labelled_head import HeadError, LabelledHead, count_labelled
from trainer.profiling.meta_model import meta_model
from trainer.profiling.row_ends import RowEnds
from trainer.profiling.shaped_costs import SharePrices
from trainer.removals import removals
from trainer.run import schedule_of
from trainer.training.activation_cache import check_cache, flops_beneath
from trainer.training.adapter_choice import AdapterChoice
from trainer.training.learning_rate import multiplier
from trainer.training.skippable_blocks import find_blocks


def check_job(spec: JobSpec) -> CheckResult:
    """Raises InputError that names the field and how to fix it."""
    train = spec.train
    traits = check_method(spec).traits
    check_world(train)
    check_folder(spec.model)
    rows = _encode_rows(spec)
    model = meta_model(spec.model.name_or_path, spec.model.attn, spec.model.dtype)
    check_vocabulary(model, rows.tokens(), spec.model)
    model = add_adapters(model, train)
    price = _price(spec, model, rows)
    if not traits.constant_rho:
        _check_rhos(spec, price)
    schedule = schedule_of(train, len(rows.train))
    check_warmup(train, schedule)
    profile = price.method.profile
    return CheckResult(
        ok=True,
        model=spec.model.name_or_path,
        params=profile.params,
        rows=rows.read,
        validation_rows=len(rows.validation),
        test_rows=len(rows.test),
        formats=rows.formats,
        steps=None if schedule.is_open else schedule.steps,
        segments=None if schedule.is_open else schedule.segments,
        most_steps=schedule.most_steps,
        segment_steps=schedule.length if schedule.is_open else None,
        rho_floor=price.floor,
        step_flops_full=profile.full_flops * train.gradient_accumulation * world_of(train),
        batch=price.shape.batch,
        seq=price.shape.seq,
        target_seq=price.shape.target_seq,
        removals=removals(spec, price.shape, price.without_head),
        settings=price.settings,
        notes=_notes(spec, price, rows, constant=traits.constant_rho),
    )


@dataclass(frozen=True, slots=True)
class _EncodedRows:
    read: int
    """Training rows before packing and limits."""
    train: list[Encoded]
    validation: list[Encoded]
    test: list[Encoded]
    formats: tuple[str, ...]
    """Formats of the training rows, most common first."""
    batches: tuple[Shape, ...]
    """Some batches, if rows may run in two parts."""
    nominal: tuple[int, int | None, int]
    """(seq, target_seq, labelled tokens of a row) of the mean batch."""
    pad: int

    def tokens(self) -> Iterator[int]:
        """The largest of every row."""
        yield self.pad
        for row in chain(self.train, self.validation, self.test):
            yield max(chain(row.input_ids, row.labels), default=0)


def _encode_rows(spec: JobSpec) -> _EncodedRows:
    rows = load_rows(spec.data, spec.evaluate)
    check_early_stop(spec.train, rows.validation)
    if spec.evaluate.generates and not rows.validation and not rows.test:
        metrics = ", ".join(metric for metric in spec.evaluate.metrics if metric != "nll")
        raise InputError(
            "evaluate.metrics",
            f"asks for {metrics}, and there are no rows to write text for",
            "name them in data.validation or evaluate.test",
        )
    encoder = TextEncoder.of(spec.model, spec.data)
    train = encoder.encode(rows.train)[: spec.data.train_limit]
    batch, sampler = (
        min(spec.train.batch_size, len(train)),
        encoder.sampler(train, spec.train, world_of(spec.train)),
    )
    traits = check_method(spec).traits
    splits = (traits.splits_rows or _offers_tokens(spec.train, traits)) and not encoder.encoder_decoder
    return _EncodedRows(
        len(rows.train),
        train,
        encoder.encode(rows.validation)[: spec.data.validation_limit],
        encoder.encode(rows.test)[: spec.evaluate.limit],
        tuple(name for name, _ in Counter(row.format for row in rows.train).most_common()),
        tuple(map(_shape_of, encoder.typical_batches(train, batch, sampler))) if splits else (),
        encoder.nominal_shape(train, batch, sampler),
        encoder.tokenizer.pad_token_id,
    )


@dataclass(frozen=True, slots=True)
class _Price:
    """The cost of a step, as ratios to full fine-tuning."""

    method: Method
    shape: Shape
    importance_share: float
    """Of the importance batches of a segment."""
    cached_floor: float | None
    """The floor once the activation cache is filled; None: there is no cache."""
    settings: tuple[ForeseenSetting, ...]
    """Settings that the planner may choose from."""
    without_head: str | None
    """Why the output embeddings run on every token; None: they run on labelled ones alone, or that was not asked for."""

    @property
    def floor(self) -> float:
        return self.method.floor + self.importance_share


def _shape_of(batch: dict[str, Any]) -> Shape:
    rows, seq = batch["input_ids"].shape
    labelled = count_labelled(batch["labels"], shifted=True)
    return Shape(rows, seq, labelled=labelled, ends=RowEnds.of(batch))


def _price(spec: JobSpec, model: Any, rows: _EncodedRows) -> _Price:
    train = spec.train
    batch = min(train.batch_size, len(rows.train))
    seq, target_seq, labelled = rows.nominal
    without_head = _without_head(model, train) if train.labelled_head else None
    head = train.labelled_head and without_head is None
    shape = Shape(batch, seq, target_seq, labelled * batch if head else None)
    if train.cache != "off":
        check_cache(model.config)
    choice = AdapterChoice.of(spec)
    prepared = prepare(
        model,
        train.method,
        shape,
        train.seed,
        skip_earliest=train.skip_earliest,
        attn=spec.model.attn,
        model_name=spec.model.name_or_path,
        gradient_share=train.gradient_share,
        offers_tokens=bool(rows.batches)
        and _offers_tokens(train, check_method(spec).traits)
        and _splits(model),
        lora=None if choice is None else choice.train,
    )
    method = prepared.method
    for tokens in (method, method.tokens if isinstance(method, Auto) else None):
        if isinstance(tokens, Tokens):
            shapes = [at if head else at._replace(labelled=None) for at in rows.batches]
            tokens.prices = SharePrices(prepared.costs, prepared.full, shapes)
    measured = train.importance_batches * batch * world_of(train) if method.measures() else 0
    share = measured / _segment_rows(len(rows.train), spec) * method.measured_ratio if measured else 0.0
    cached = None if train.cache == "off" else _cached_floor(model, method, Shape(batch, shape.seq)) + share
    return _Price(method, shape, share, cached, _settings(spec, method), without_head)


def _offers_tokens(train: TrainPart, traits: MethodTraits) -> bool:
    """Whether the trainer will try running rows in two parts, for a method that changes its setting."""
    return traits.switches and train.cache == "off" and not train.compile


def _splits(model: Any) -> bool:
    try:
        check_split(model, "auto")
    except InputError:
        return False
    return True


def _settings(spec: JobSpec, method: Method) -> tuple[ForeseenSetting, ...]:
    """The settings that the trainer will offer with the first segment, each with its ρ."""
    train = spec.train
    if not isinstance(method, Auto):
        return ()
    found = method.settings(method.curve(method.importance(0, None)))
    if (choice := AdapterChoice.of(spec)) is not None:
        found = tuple(choice.offered(found, method.adapters, 0))
    scales = train.lr_scaling == "full" and train.optimizer == "adamw"
    return tuple(
        ForeseenSetting(
            setting=setting,
            rho=rho,
            lr=train.lr * (multiplier(method.traits, rho, setting) if scales else 1.0),
        )
        for setting, rho in found
    )


def _without_head(model: Any, train: TrainPart) -> str | None:
    """Why the output embeddings will run on every token, as far as a config shows."""
    if train.compile:
        return "train.compile would compile anew for each number of labelled ones"
    try:
        LabelledHead(model)
    except HeadError as e:
        return str(e)
    return None


def _notes(spec: JobSpec, price: _Price, rows: _EncodedRows, *, constant: bool) -> tuple[str, ...]:
    notes = [*_format_note(rows.formats), *price.method.profile.notes]
    if price.without_head is not None:  # asked for but impossible: a plain submit says so too
        notes.append(
            f"the output embeddings run on every token, not on the labelled alone: {price.without_head}"
        )
    if price.cached_floor is not None and price.cached_floor < price.floor:
        notes.append(
            f"once the cache is filled, ρ may go down to {price.cached_floor:.3f}; no plan counts on it before"
        )
    notes += unused_keys(spec.train)
    notes += _lora_note(price) if price.settings else _rate_note(spec.train, price)
    if not rows.validation:
        notes.append("no validation rows: the loss before and after will not be known")
    if (blind := note_problem()) is not None:
        notes.append(blind)
    if constant:
        notes.append(
            f"method {spec.train.method!r} trains at ρ {price.floor:.3f} whatever the budget: it can only wait or stop"
        )
    return tuple(notes)


def _rate_note(train: TrainPart, price: _Price) -> list[str]:
    """Empty if the rate is used unchanged."""
    traits = price.method.traits
    most = traits.lr_factor(0.0)
    if train.lr_scaling == "as-given" or train.optimizer != "adamw" or most == 1:
        return []
    at = "gradient share" if traits.splits_rows else "ρ"
    to = traits.lr_measured_to
    varies = "" if to is None else f" up to {at} {to:g}, above it closer to 1 time"
    return [
        f"learning rate: {train.lr * most:.3g}, {most:g} times train.lr, which is full fine-tuning's{varies}; "
        'train.lr_scaling = "as-given" takes it as it stands'
    ]


def _lora_note(price: _Price) -> list[str]:
    """Why `auto` cannot choose adapters; empty if it can."""
    if not isinstance(price.method, Auto) or price.method.adapters is not None:
        return []
    why = price.method.without_adapters or "it does not go with other settings of this job"
    return [f"lora is none of the settings that auto may choose: {why}"]


def _format_note(formats: tuple[str, ...]) -> list[str]:
    """Empty if the rows have the fields that the job names."""
    if formats == ("fields",):
        return []
    if len(formats) > 1:
        return [f"rows of several formats: {', '.join(formats)}; data.format reads all as one"]
    how = (
        "the assistant's turns alone are learnt"
        if formats == ("chat",)
        else "data.format reads them otherwise"
    )
    return [f"rows are read as {formats[0]!r}: {how}"]


def _check_rhos(spec: JobSpec, price: _Price) -> None:
    carbon, floor, cheapest, share = spec.carbon, price.floor, price.method.floor, price.importance_share
    if spec.train.cache == "off":  # otherwise later segments may go below it
        _check_rho("rho_min", carbon.rho_min, floor, cheapest, share)
    _check_rho("rho_max", carbon.rho_max, floor, cheapest, share)
    _check_rho("rho_mean", carbon.rho_mean, floor, cheapest, share)


def _cached_floor(model: Any, method: Method, shape: Shape) -> float:
    """The floor with a cache of everything below the cheapest selection."""
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


def _segment_rows(rows: int, spec: JobSpec) -> int:
    """Rows of a segment; shorter segments do not measure importance."""
    schedule = schedule_of(spec.train, rows)
    batch = min(spec.train.batch_size, rows) * world_of(spec.train)
    _, first, end = schedule.bounds(0)
    return rows_in(schedule, first, end, rows, batch, spec.train.gradient_accumulation)


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
