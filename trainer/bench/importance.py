"""Compares the predicted with the actual drop of the held-out loss, tensor by tensor: how well does an importance predict it?

Actual: one step of the real optimizer on one tensor alone, at a small rate, with the gradient of a training batch that no prediction has
used; the loss is measured on held-out rows before and after, and the tensor is restored. Predicted: what each importance says of that
tensor. Both are done before training and after some steps of full fine-tuning, when the optimizer has moments.

Selection uses the order of tensors, so the rank correlation (Spearman) counts. Large tensors lower the loss more, and almost any measure
values them more, so the correlation is also given for constant size (partial rank correlation). concave, reach and coverage rank single
tensors as `update` does: they only change which tensors go together.
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers.optimization import Adafactor

from carbonsched.errors import InputError
from carbonsched.model.base import Doc
from carbonsched.model.job import JobSpec, TrainPart
from trainer.data.encoding import TextEncoder
from trainer.data.models import load_model
from trainer.data.reading import load_rows
from trainer.device import device_seconds
from trainer.evaluation.metrics import measure_loss
from trainer.importance.measure import Importance, measure
from trainer.importance.objectives import TrainingHistory, draw_importance, objective_of
from trainer.job.random_state import own_random

try:
    from scipy import stats
except ImportError as e:
    raise InputError("bench", "rank correlations need scipy", "install carbonsched[bench]") from e

PREDICTORS = (
    ("update", 1),
    ("update", 2),
    ("update", 3),
    ("noise", 1),
    ("curvature", 1),
    ("magnitude", 1),
    ("grad-norm", 1),
    ("fisher", 1),
    ("snip", 1),
    ("random", 0),
    ("size", 0),
)
"""(importance, batches it is measured on); size is the number of weights."""
BATCHES = max(m for _, m in PREDICTORS)
MIN_TENSORS = 5
Z95 = 1.96


class Predictor(Doc):
    """How well one importance predicts at one stage.

    Example::

        best = max(stage.predictors, key=lambda predictor: predictor.spearman)
    """

    importance: str
    batches: int
    spearman: float
    """Rank correlation of value and drop."""
    low: float
    """95% interval: Fisher's z, variance 1.06 ÷ (n − 3) (Fieller, Hartley, Pearson, 1957)."""
    high: float
    given_size: float | None
    """Partial rank correlation at constant number of weights; None for the size itself."""
    reached: float | None
    """Median of drop ÷ (rate × value) for importances that predict a drop; 1 would be perfect."""
    flops: float
    seconds: float
    age: int | None
    """Optimizer steps behind the moments that it used; None if it uses none."""


class Probe(Doc):
    """One tensor that was stepped alone.

    Example:
        >>> probe = Probe(name="lm_head.weight", numel=8, drop=2e-4, values={"update@1": 2.0})
        >>> probe.drop / (1e-4 * probe.values["update@1"])  # at learning rate 1e-4: all that was predicted
        1.0
    """

    name: str
    numel: int
    drop: float
    """Of the held-out loss, nats per token."""
    values: dict[str, float]
    """By importance@batches."""


class Stage(Doc):
    """All measurements at one point of training.

    Example::

        before, middle = bench_importance(spec, tensors=40, steps=20, lr=1e-4, held_out=16).stages
    """

    when: Literal["before", "mid"]
    steps: int
    """Steps of full fine-tuning before it."""
    loss: float
    predictors: tuple[Predictor, ...]
    probes: tuple[Probe, ...]


class BenchImportance(Doc):
    """What `python -m trainer bench importance` prints.

    Example::

        found = bench_importance(spec, tensors=40, steps=20, lr=1e-4, held_out=16)
        text = table(found)
    """

    model: str
    data: str
    optimizer: str
    batch: int
    seq: int
    held_out_rows: int
    held_out_tokens: int
    lr: float
    """Of the step on a tensor alone."""
    train_lr: float
    """Of the steps in between."""
    seed: int
    seconds: float
    stages: tuple[Stage, ...]


def bench_importance(
    spec: JobSpec,
    *,
    tensors: int,
    steps: int,
    lr: float,
    held_out: int,
    say: Callable[[str], None] = lambda line: None,
) -> BenchImportance:
    """Model, data and training settings are the job's: its rows of `data.max_length` tokens, its optimizer and seed.

    tensors: how many are drawn to be stepped alone. steps: of full fine-tuning before the second stage; 0: no second.
    lr: of a step alone. held_out: rows. Raises InputError for a model or data that cannot be had.
    """
    started, train = device_seconds(), spec.train
    if tensors < MIN_TENSORS:
        raise InputError("--tensors", f"is {tensors}", f"a correlation wants {MIN_TENSORS} or more")
    bench = _Bench(spec, held_out)
    chosen = bench.draw(tensors)
    stages = [bench.stage("before", 0, chosen, lr, say)]
    if steps:
        bench.train(steps, say)
        stages.append(bench.stage("mid", steps, chosen, lr, say))
    return BenchImportance(
        model=spec.model.name_or_path,
        data=spec.data.name_or_path,
        optimizer=train.optimizer,
        batch=train.batch_size,
        seq=spec.data.max_length,
        held_out_rows=len(bench.held_out),
        held_out_tokens=bench.tokens,
        lr=lr,
        train_lr=train.lr,
        seed=train.seed,
        seconds=device_seconds() - started,
        stages=tuple(stages),
    )


class _Bench:
    def __init__(self, spec: JobSpec, held_out: int) -> None:
        rows = load_rows(spec.data)
        self.encoder = TextEncoder.of(spec.model, spec.data)
        self.model = load_model(spec.model).to("cuda" if torch.cuda.is_available() else "cpu")
        self.model.config.use_cache = False
        self.rows = self.encoder.encode(rows.train)
        self.held_out = self.encoder.encode(rows.validation[:held_out])
        if not self.held_out:
            raise InputError(
                "data.validation", "there are no held-out rows", "name a file or split that has some"
            )
        self.part, self.tokens = spec.train, 0
        self.order = np.random.default_rng(spec.train.seed)
        self.optimizer = make_optimizer(self.model, spec.train)
        self.weights = dict(self.model.named_parameters())

    def draw(self, count: int) -> list[str]:
        names = list(self.weights)
        picked = np.random.default_rng(self.part.seed).permutation(len(names))[:count]
        return [names[i] for i in sorted(picked.tolist())]

    def batch(self) -> dict[str, Tensor]:
        chosen = self.order.choice(len(self.rows), min(self.part.batch_size, len(self.rows)), replace=False)
        made = self.encoder.collate([self.rows[i].dump() for i in chosen.tolist()])
        return {name: t.to(self.model.device) for name, t in made.items()}

    def loss(self) -> float:
        found = measure_loss(self.model, self.held_out, self.encoder, self.part.batch_size)
        self.tokens = found.tokens
        return found.nll

    def train(self, steps: int, say: Callable[[str], None]) -> None:
        self.model.train()
        for step in range(steps):
            loss = self.model(**self.batch()).loss
            loss.backward()
            if self.part.max_grad_norm:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.part.max_grad_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
            say(f"step {step + 1}/{steps}: loss {loss.item():.4f}")

    def stage(
        self,
        when: Literal["before", "mid"],
        steps: int,
        chosen: list[str],
        lr: float,
        say: Callable[[str], None],
    ) -> Stage:
        batches = [self.batch() for _ in range(BATCHES)]
        predicted = {}
        for name, count in PREDICTORS:
            say(f"{when}: {name} on {count} batches")
            predicted[f"{name}@{count}"] = self.predict(name, batches[:count], steps)
        before = self.loss()
        drops = []
        gradients = self.gradients(chosen)
        for i, name in enumerate(chosen):
            drops.append(before - self.loss_after_step(name, gradients[name], lr))
            say(f"{when}: tensor {i + 1}/{len(chosen)} {name}: {drops[-1]:+.2e}")
        sizes = [float(self.weights[n].numel()) for n in chosen]
        predictors = []
        for (name, count), (values, found) in zip(PREDICTORS, predicted.values(), strict=True):
            mine = [values[n] for n in chosen]
            predictors.append(_judge(name, count, mine, drops, sizes, lr, found))
        probes = (
            Probe(name=n, numel=int(s), drop=d, values={key: v[n] for key, (v, _) in predicted.items()})
            for n, s, d in zip(chosen, sizes, drops, strict=True)
        )
        return Stage(when=when, steps=steps, loss=before, predictors=tuple(predictors), probes=tuple(probes))

    def predict(
        self, name: str, batches: list[dict[str, Tensor]], steps: int
    ) -> tuple[dict[str, float], Importance | None]:
        sizes = {n: p.numel() for n, p in self.weights.items()}
        if name == "size":
            return {n: float(size) for n, size in sizes.items()}, None
        objective = objective_of(name)
        if objective.estimator is None:
            return draw_importance(sizes, self.part.seed, steps), None
        found = measure(
            self.model,
            self.optimizer,
            batches,
            estimator=objective.estimator,
            common_steps=steps,
            seed=self.part.seed,
        )
        return objective.value(found, TrainingHistory()), found

    def gradients(self, names: list[str]) -> dict[str, Tensor]:
        """Of a batch of its own."""
        self.model.train()
        with own_random(
            self.part.seed, [self.model.device.index] if self.model.device.type == "cuda" else []
        ):
            self.model(**self.batch()).loss.backward()
        found = {n: g for n in names if (g := self.weights[n].grad) is not None}
        self.model.zero_grad()
        return {n: found[n] if n in found else torch.zeros_like(self.weights[n]) for n in names}

    def loss_after_step(self, name: str, gradient: Tensor, lr: float) -> float:
        """The held-out loss after one step on this tensor; tensor and optimizer state are restored."""
        weight, states = self.weights[name], self.optimizer.state
        kept, state = weight.detach().clone(), copy.deepcopy(states.get(weight))
        rates = [group["lr"] for group in self.optimizer.param_groups]
        weight.grad = gradient
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        loss = self.loss()
        weight.grad = None
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        with torch.no_grad():
            weight.copy_(kept)
        if state is None:
            states.pop(weight, None)
        else:
            states[weight] = state
        return loss


def make_optimizer(model: nn.Module, train: TrainPart) -> torch.optim.Optimizer:
    """The job's optimizer over all of `model`, with weight decay on matrices only, as in transformers' Trainer."""
    parameters = list(model.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": train.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    if train.optimizer == "sgd":
        return torch.optim.SGD(groups, train.lr, momentum=train.momentum)
    if train.optimizer == "adafactor":
        made: torch.optim.Optimizer = Adafactor(groups, train.lr, scale_parameter=False, relative_step=False)
        return made
    return torch.optim.AdamW(groups, train.lr)


def _judge(
    name: str,
    batches: int,
    values: list[float],
    drops: list[float],
    sizes: list[float],
    lr: float,
    found: Importance | None,
) -> Predictor:
    r = spearman(values, drops)
    half = Z95 * math.sqrt(1.06 / (len(drops) - 3))
    z = math.atanh(max(min(r, 1 - 1e-12), -1 + 1e-12))
    ratios = [d / (lr * v) for d, v in zip(drops, values, strict=True) if v]
    return Predictor(
        importance=name,
        batches=batches,
        spearman=r,
        low=min(r, math.tanh(z - half)),
        high=max(r, math.tanh(z + half)),
        given_size=partial_spearman(values, drops, sizes) if name != "size" else None,
        reached=float(np.median(ratios)) if name == "update" and ratios else None,
        flops=sum(found.flops) if found else 0.0,
        seconds=found.seconds if found else 0.0,
        age=found.age if found and name not in ("grad-norm", "fisher", "snip") else None,
    )


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Rank correlation with ties; 0 if one side is constant."""
    if len(set(x)) < 2 or len(set(y)) < 2:
        return 0.0
    return float(stats.spearmanr(x, y).statistic)


def partial_spearman(x: Sequence[float], y: Sequence[float], given: Sequence[float]) -> float:
    """Rank correlation of x and y after removing that of each with `given`; 0 if `given` explains all of one."""
    xy, xz, yz = spearman(x, y), spearman(x, given), spearman(y, given)
    rest = (1 - xz * xz) * (1 - yz * yz)
    return (xy - xz * yz) / math.sqrt(rest) if rest > 1e-12 else 0.0


def table(bench: BenchImportance) -> str:
    """For people: one line per importance, best first, for each stage."""
    head = (
        f"{bench.model} on {bench.data}: {bench.optimizer}, {bench.batch}×{bench.seq}, "
        f"{len(bench.stages[0].probes)} tensors stepped alone at {bench.lr:g}, "
        f"{bench.held_out_rows} held-out rows ({bench.held_out_tokens} tokens)"
    )
    return "\n\n".join([head, *(_stage_table(stage) for stage in bench.stages)])


def _stage_table(stage: Stage) -> str:
    lines = [
        f"after {stage.steps} steps, held-out loss {stage.loss:.4f}:",
        "",
        "| importance | batches | Spearman | 95% | given size | drop ÷ predicted | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for p in sorted(stage.predictors, key=lambda p: -p.spearman):
        given = "" if p.given_size is None else f"{p.given_size:+.2f}"
        reached = "" if p.reached is None else f"{p.reached:.2f}"
        lines.append(
            f"| {p.importance} | {p.batches} | {p.spearman:+.2f} | {p.low:+.2f} … {p.high:+.2f} "
            f"| {given} | {reached} | {p.seconds:.1f} |"
        )
    return "\n".join(lines)
