"""Counts what a stock `transformers.Trainer` wastes on a job's rows, and shows that leaving it out changes neither loss nor gradient.

Stock: batches of rows in random order, each padded to its longest row, and logits for every token. Ours: the same rows grouped by length,
as jobs train them, with the output embeddings on labelled tokens alone. FLOPs are those of full fine-tuning over all rows once. Losses and
gradients are taken at the initial weights without dropout, weighted by labelled tokens, so that they do not depend on which rows share a
batch.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from carbonsched.errors import InputError
from carbonsched.model.base import Doc
from carbonsched.model.job import JobSpec, ModelPart
from trainer.data.encoding import Encoded, TextEncoder
from trainer.data.models import check_vocabulary, load_model
from trainer.data.reading import load_rows
from trainer.data.sampling import GroupedSampler
from trainer.device import begin_peak, device_seconds, peak_since
from trainer.evaluation.held_out import autocast
from trainer.methods.prepare import prepare
from trainer.profiling.flop_counter import Shape
from trainer.profiling.labelled_head import HeadError, LabelledHead, count_labelled
from trainer.profiling.meta_model import meta_model
from trainer.profiling.stock import Lengths, all_logits, padded, split

_SAY_EVERY_S = 2.0

Rows = list[list[int]]
"""Row numbers of each batch."""


class BenchWaste(Doc):
    """All rows once. stock_flops = flops + padding_flops + head_flops.

    Example:
        >>> found = BenchWaste(
        ...     rows=4, batches=1, tokens=90, labelled=9, stock_flops=100.0, flops=60.0, padding_flops=25.0, head_flops=15.0
        ... )
        >>> found.flops / found.stock_flops
        0.6
    """

    rows: int
    batches: int
    tokens: int
    """Tokens of the rows themselves, without padding."""
    labelled: int
    """Tokens whose logits are in the loss."""
    stock_tokens: int = 0
    """Including the padding of random batches."""
    own_tokens: int = 0
    """Including the padding of grouped batches."""
    stock_flops: float
    flops: float
    padding_flops: float
    """FLOPs saved by grouping, with logits for every token."""
    head_flops: float
    """FLOPs saved in addition by the head on labelled tokens."""
    loss_stock: float | None = None
    """Nats per labelled token; None: nothing was run."""
    loss: float | None = None
    grad_norm_stock: float | None = None
    grad_norm: float | None = None
    seconds_stock: float | None = None
    """Forward and backward, wall time."""
    seconds: float | None = None
    peak_memory_bytes_stock: int | None = None
    """Peak memory of tensors on the board (on a CPU of the process), weights and gradients included."""
    peak_memory_bytes: int | None = None
    notes: tuple[str, ...] = ()


def bench_waste(spec: JobSpec, rows: int | None, *, run: bool, say: Callable[[str], None]) -> BenchWaste:
    """On the job's model and training rows. rows: how many, drawn by its seed; None: all. run: whether losses are measured too. Raises
    InputError if the model or data cannot be loaded."""
    bench = _Bench(spec, rows, run=run)
    found = bench.count()
    if run:
        stock = bench.measure("stock", bench.stock, None, say)
        ours = bench.measure("ours", bench.grouped, bench.head, say)
        names = ("loss", "grad_norm", "seconds", "peak_memory_bytes")
        taken = {f"{n}_stock": x for n, x in zip(names, stock, strict=True)}
        found = found.model_copy(update=taken | dict(zip(names, ours, strict=True)))
    return found


class _Bench:
    def __init__(self, spec: JobSpec, rows: int | None, *, run: bool = True) -> None:
        self.spec, train = spec, spec.train
        if train.threads is not None:
            torch.set_num_threads(train.threads)
        self.encoder = TextEncoder.of(spec.model, spec.data)
        encoded = self.encoder.encode(load_rows(spec.data).train)[: spec.data.train_limit]
        order = torch.randperm(len(encoded), generator=torch.Generator().manual_seed(train.seed)).tolist()
        self.rows = [encoded[i] for i in order[:rows]]
        self.model = (
            _load(spec.model)
            if run
            else meta_model(spec.model.name_or_path, spec.model.attn, spec.model.dtype)
        )
        check_vocabulary(self.model, (max(row.input_ids) for row in self.rows), spec.model)
        self.model.config.use_cache = False
        self.shifted = not self.encoder.encoder_decoder
        self.labelled = [
            count_labelled(torch.tensor([row.labels]), shifted=self.shifted) for row in self.rows
        ]
        if not sum(self.labelled):
            raise InputError("data", "no row has a label", "give rows with targets")
        lengths = [(len(row.input_ids), len(row.labels)) for row in self.rows]
        # the rows are in random order already
        self.stock = _batches(range(len(self.rows)), train.batch_size)
        grouped = GroupedSampler(lengths, train.batch_size, train.seed)
        self.grouped = _batches(grouped.order(0), train.batch_size)
        self.notes: list[str] = []
        self.head: LabelledHead | None = None
        try:
            self.head = LabelledHead(self.model)
        except HeadError as e:
            self.notes.append(f"the output embeddings run on every token: {e}")

    def count(self) -> BenchWaste:
        """FLOPs of an epoch, and the number of tokens computed."""
        stock = [padded([self._lengths(i) for i in rows]) for rows in self.stock]
        ours = [self._own_shape(rows) for rows in self.grouped]
        if self.head is not None:
            ours = [
                shape._replace(labelled=sum(self.labelled[i] for i in rows))
                for shape, rows in zip(ours, self.grouped, strict=True)
            ]
        nominal = stock[0] if self.head is None else all_logits(ours[0])._replace(labelled=ours[0].batch)
        waste = split(prepare(self.model, "full", nominal, attn=self.spec.model.attn).full, stock, ours)
        return BenchWaste(
            rows=len(self.rows),
            batches=len(self.stock),
            tokens=sum(len(row.input_ids) + (0 if self.shifted else len(row.labels)) for row in self.rows),
            labelled=sum(self.labelled),
            stock_tokens=_tokens(stock),
            own_tokens=_tokens(ours),
            stock_flops=waste.stock_flops,
            flops=waste.flops,
            padding_flops=waste.padding_flops,
            head_flops=waste.head_flops,
            notes=tuple(self.notes),
        )

    def measure(
        self, what: str, batches: Rows, head: LabelledHead | None, say: Callable[[str], None]
    ) -> tuple[float, float, float, int | None]:
        """Loss per labelled token, gradient norm, seconds, peak bytes."""
        model, total = self.model, sum(self.labelled)
        model.zero_grad(set_to_none=True)
        begin_peak()
        loss, began, said = 0.0, device_seconds(), device_seconds()
        with nullcontext() if head is None else head.attached():
            for k, rows in enumerate(batches):
                share = sum(self.labelled[i] for i in rows) / total
                if not share:
                    continue
                inputs = self._collate([self.rows[i] for i in rows], stock=what == "stock")
                with autocast(self.spec, model):
                    part = model(**inputs).loss * share
                part.backward()
                loss += float(part.detach())
                if device_seconds() - said >= _SAY_EVERY_S or k + 1 == len(batches):
                    said = device_seconds()
                    left = (device_seconds() - began) / (k + 1) * (len(batches) - k - 1)
                    say(f"{what}: batch {k + 1}/{len(batches)}, {left:.0f} s left")
        peak = peak_since()
        squares = [p.grad.double().pow(2).sum() for p in model.parameters() if p.grad is not None]
        seconds = device_seconds() - began
        norm = float(torch.stack(squares).sum().sqrt())
        model.zero_grad(set_to_none=True)
        return loss, norm, seconds, peak

    def _lengths(self, row: int) -> Lengths:
        found = self.rows[row]
        return len(found.input_ids), None if self.shifted else len(found.labels)

    def _own_shape(self, rows: list[int]) -> Shape:
        chosen = [self.rows[i] for i in rows]
        lengths = [len(row.input_ids) for row in chosen], [len(row.labels) for row in chosen]
        return Shape(len(rows), *self.encoder.batch_shape(*lengths))

    def _collate(self, rows: Sequence[Encoded], *, stock: bool) -> dict[str, Tensor]:
        batch = self.encoder.collate([row.dump() for row in rows])
        if stock:  # a stock collator does not pad to a multiple
            seq = max(len(row.input_ids) for row in rows)
            target = seq if self.shifted else max(len(row.labels) for row in rows)
            cut = {"labels": target}
            batch = {name: t[:, : cut.get(name, seq)].contiguous() for name, t in batch.items()}
        return {name: t.to(self.model.device) for name, t in batch.items()}


def _load(part: ModelPart) -> Any:
    return load_model(part).to("cuda" if torch.cuda.is_available() else "cpu").eval()


def _batches(order: Sequence[int], size: int) -> Rows:
    return [list(order[i : i + size]) for i in range(0, len(order), size)]


def _tokens(shapes: Sequence[Shape]) -> int:
    return sum(shape.batch * (shape.seq + (shape.target_seq or 0)) for shape in shapes)


def table(found: BenchWaste) -> str:
    """For people."""
    stock = found.stock_flops
    lines = [
        f"{found.rows} rows, {found.tokens} tokens of which {found.labelled} are labelled ({found.labelled / found.tokens:.3f})",
        f"stock   {stock:.4g} FLOPs, {found.stock_tokens / found.tokens:.2f} tokens computed for each real one",
        f"padding {-found.padding_flops / stock:+.3f}, {found.own_tokens / found.tokens:.2f} tokens computed for each real one",
        f"head    {-found.head_flops / stock:+.3f}",
        f"ours    {found.flops:.4g} FLOPs, {found.flops / stock:.3f} of stock",
    ]
    if found.loss is not None and found.loss_stock is not None:
        lines.append(f"loss    {found.loss_stock:.8f} stock, {found.loss:.8f} ours")
        lines.append(f"norm    {found.grad_norm_stock:.8f} stock, {found.grad_norm:.8f} ours")
        lines.append(f"seconds {found.seconds_stock:.1f} stock, {found.seconds:.1f} ours")
    if found.peak_memory_bytes is not None and found.peak_memory_bytes_stock is not None:
        stock_gb, ours_gb = found.peak_memory_bytes_stock / 1e9, found.peak_memory_bytes / 1e9
        lines.append(f"memory  {stock_gb:.2f} GB stock at most, {ours_gb:.2f} GB ours")
    return "\n".join([*lines, *found.notes])
