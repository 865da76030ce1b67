"""Predicts the batches of a whole job, step by step, and the FLOPs of each: by method, with and without stock's waste."""

from functools import cached_property
from typing import Any

import torch

from carbonsched.model.job import JobSpec
from trainer.data.encoding import TextEncoder
from trainer.data.reading import load_rows
from trainer.methods.prepare import Prepared, prepare
from trainer.methods.registry import add_adapters
from trainer.profiling.flop_counter import FullStepFlops, Shape
from trainer.profiling.labelled_head import HeadError, LabelledHead, count_labelled
from trainer.profiling.meta_model import meta_model
from trainer.profiling.stock import padded


class JobRows:
    """The encoded training rows of a job, read once for all its variants.

    Example::

        rows = JobRows(spec)
        costs = StepCosts(rows, spec, rho=None)
    """

    def __init__(self, spec: JobSpec) -> None:
        self.encoder = TextEncoder.of(spec.model, spec.data)
        self.rows = self.encoder.encode(load_rows(spec.data).train)[: spec.data.train_limit]
        self.two_sided = self.encoder.encoder_decoder
        self.labelled = [
            count_labelled(torch.tensor([row.labels]), shifted=not self.two_sided) for row in self.rows
        ]

    def shape(self, rows: list[int], *, head: bool) -> Shape:
        """The shape of a batch of these rows. head: the output embeddings run on labelled tokens alone."""
        chosen = [self.rows[i] for i in rows]
        shape = padded([(len(r.input_ids), len(r.labels) if self.two_sided else None) for r in chosen])
        return shape._replace(labelled=sum(self.labelled[i] for i in rows)) if head else shape


class StepCosts:
    """FLOPs of step n of a job, in training order.

    Example::

        costs = StepCosts(JobRows(spec), spec, rho=0.6)
        first = costs(0)
    """

    def __init__(self, rows: JobRows, spec: JobSpec, rho: float | None) -> None:
        """rho: as directed, for methods that follow it; None: the method trains everything it may."""
        self._rows, self._spec, self._rho = rows, spec, rho
        self._epochs: dict[int, list[float]] = {}
        self._sampler = rows.encoder.sampler(rows.rows, spec.train, ranks=1)

    @property
    def steps_per_epoch(self) -> int:
        batch = self._spec.train.batch_size
        return -(-len(self._rows.rows) // batch)

    def __call__(self, step: int) -> float:
        epoch, at = divmod(step, self.steps_per_epoch)
        if epoch not in self._epochs:
            shapes = [self._rows.shape(batch, head=self._head) for batch in self._batches(epoch)]
            self._full.total(shapes)  # trace the longest and the shortest first
            self._epochs[epoch] = [self._cost(shape) for shape in shapes]
        return self._epochs[epoch][at]

    def _cost(self, shape: Shape) -> float:
        if self._rho is not None:
            return self._rho * self._full.flops(shape)
        return self._prepared.costs.flops(tuple(self._prepared.method.names), shape, self._full)

    def _batches(self, epoch: int) -> list[list[int]]:
        size, count = self._spec.train.batch_size, len(self._rows.rows)
        order = (
            _shuffled(count, self._spec.train.seed, epoch)
            if self._sampler is None
            else self._sampler.order(epoch)
        )
        return [order[i : i + size] for i in range(0, count, size)]

    @cached_property
    def _model(self) -> Any:
        part = self._spec.model
        return add_adapters(meta_model(part.name_or_path, part.attn, part.dtype), self._spec.train)

    @cached_property
    def _head(self) -> bool:
        if not self._spec.train.labelled_head:
            return False
        try:
            LabelledHead(self._model)
        except HeadError:
            return False
        return True

    @cached_property
    def _prepared(self) -> Prepared:
        train = self._spec.train
        nominal = self._rows.shape(self._batches(0)[0], head=self._head)
        if nominal.labelled is not None:  # a profile counts labelled tokens per row
            nominal = nominal._replace(labelled=nominal.batch * max(nominal.labelled // nominal.batch, 1))
        return prepare(self._model, train.method, nominal, train.seed, attn=self._spec.model.attn)

    @property
    def _full(self) -> FullStepFlops:
        return self._prepared.full


def _shuffled(rows: int, seed: int, epoch: int) -> list[int]:
    """The order of a Trainer that does not group rows."""
    from accelerate.data_loader import SeedableRandomSampler

    sampler = SeedableRandomSampler(range(rows), generator=torch.Generator(), data_seed=seed)
    sampler.set_epoch(epoch)
    return list(sampler)
