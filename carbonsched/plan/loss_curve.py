"""Predicts the held-out loss of a job from its own losses: how far it falls after more steps of a setting.

The model, in full-equivalent steps x (a step of a setting counts its efficiency, `carbonsched.model.methods.efficiency`):

    held-out loss(x) = L0 − F·(1 − (1 + x/x0)^−b)          mean training loss of a stretch = its mean + d

A power law that starts at L0 and falls by F in all; d is the difference of training rows. Given x0, b and the efficiencies the rest is
linear, so its posterior is exact; over x0, b and the efficiencies a fixed set of draws from the prior is weighted by how well each explains
the losses. The result is deterministic. F is never below 0, so no prediction rises with more steps. Losses that are not finite are left
out, and an outlier counts less (Huber).

The prior of a job without losses is wide: fine-tunings measured here fell by .2 of their first loss (SciTLDR) to .45 (Debian synopses). Earlier
jobs of the same model and data narrow it most.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from carbonsched.model.methods.efficiency import BEND, BEND_STEPS, FALL, FALL_SD, Efficiency

Floats = NDArray[np.float64]

BAND = 0.9
"""Probability with which a band should hold."""
_Z = NormalDist().inv_cdf(0.5 + BAND / 2)
_DRAWS = 1024
_X0, _X0_SD = BEND_STEPS, 1.0
"""Full steps after which the loss bends, and the sd of its logarithm."""
_B, _B_SD = BEND, 0.45
"""Exponent of the fall, likewise."""
_FALL, _FALL_SD = FALL, FALL_SD
"""F as a share of the first loss."""
_OFFSET_SD = 0.06
"""Sd of d, nats."""
_LEVEL_SD = 1.0
"""Sd of L0 about the first known loss: the losses themselves determine it."""
_HELD_OUT_SD = 0.02
"""Nats by which the curve misses a held-out loss, because of the order of the rows and the learning rate's course."""
_TRAINING_SD, _ROWS_SD, _STEPS = 0.03, 0.35, 50.0
"""The same for a stretch's mean training loss, and the addition for few steps: _ROWS_SD/√steps, as measured."""
_EPOCH_SD = 0.1
"""Addition for each epoch before, since the model has seen the rows."""
_OTHER_SD = 0.02
"""Addition for another job's losses."""
_HUBER, _ROUNDS = 2.5, 4
"""Standard deviations above which a loss counts less, and rounds of weighting."""
_INDEPENDENT = 8
"""Losses of one curve have common errors: together they count as at most this many."""
_MOST_LOSS = 1e4
"""Nats per token: a higher loss is not that of a model that trains."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Steps in one setting.

    Example:
        >>> Stretch("full", steps=50.0, efficiency=Efficiency(1.0, 0.0), loss=2.9).steps
        50.0
    """

    method: str
    """Settings of the same method share the error of their efficiencies."""
    steps: float
    efficiency: Efficiency
    loss: float | None = None
    """Mean training loss; None: unknown, or not trained yet."""
    epoch: float = 0.0
    """Passes over the rows before it."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A held-out loss, after so many of the stretches.

    Example:
        >>> HeldOut(after=0, loss=3.5).loss
        3.5
    """

    after: int
    loss: float


@dataclass(frozen=True, slots=True)
class LossHistory:
    """The losses of one job.

    Example:
        >>> LossHistory(held_out=(HeldOut(0, 3.5),)).stretches
        ()
    """

    stretches: tuple[Stretch, ...] = ()
    held_out: tuple[HeldOut, ...] = ()


@dataclass(frozen=True, slots=True)
class Prediction:
    """An expected held-out loss, with its band. Estimated.

    Example:
        >>> Prediction(loss=2.87, low=2.85, high=2.89).margin
        0.02
    """

    loss: float
    low: float
    high: float

    @property
    def margin(self) -> float:
        """Half the band."""
        return round((self.high - self.low) / 2, 12)


@dataclass(frozen=True, slots=True)
class LossCurve:
    """The curve of one job, fitted to its own losses and those of earlier jobs.

    Example:
        >>> full = Efficiency(1.0, 0.0)
        >>> shown = LossHistory((Stretch("full", 75.0, full, 3.0),), (HeldOut(0, 3.5),))
        >>> curve = LossCurve.fit(shown)
        >>> curve.predict([Stretch("full", 75.0, full)]).loss < curve.predict([]).loss < 3.1
        True
    """

    draws: "_Draws"
    weights: Floats
    """(draws,), their sum 1."""
    mean: Floats
    """(draws, 3): L0, F, d."""
    covariance: Floats
    """(draws, 3, 3)."""
    x: Floats
    """(draws,) full-equivalent steps done."""
    relative: bool
    """Whether no loss is known yet: predictions are then shares of the first loss."""
    _history: LossHistory = field(default_factory=LossHistory)

    @classmethod
    def fit(cls, own: LossHistory, others: Sequence[LossHistory] = ()) -> "LossCurve":
        """Fit the curve to the losses of `own` so far. others: earlier jobs of the same model and data."""
        methods = sorted({s.method for h in (own, *others) for s in h.stretches} - {"full"})
        draws = _Draws.of(tuple(methods))
        seen = [_observe(draws, history, i > 0) for i, history in enumerate((own, *others))]
        rows = np.concatenate([s.rows for s in seen], axis=1)
        loss = np.concatenate([s.loss for s in seen])
        sd = np.concatenate([s.sd for s in seen])
        first = _first_loss(own, others)
        weights, mean, covariance = _posterior(rows, loss, sd, first or 1.0, known=first is not None)
        return cls(draws, weights, mean, covariance, seen[0].x, first is None, own)

    def predict(self, ahead: Sequence[Stretch]) -> Prediction:
        """The held-out loss after the stretches ahead."""
        x = self.x + sum((self.draws.full_steps(s) for s in ahead), np.zeros_like(self.x))
        shape = self.draws.shape(x)
        mean = self.mean[:, 0] - np.maximum(self.mean[:, 1], 0.0) * shape
        row = np.stack([np.ones_like(shape), -shape], axis=1)
        spread = np.einsum("si,sij,sj->s", row, self.covariance[:, :2, :2], row)
        extra = 0.0 if self.relative else _HELD_OUT_SD
        loss = float(self.weights @ mean)
        variance = float(self.weights @ (spread + (mean - loss) ** 2)) + extra**2
        margin = _Z * math.sqrt(max(variance, 0.0))
        return Prediction(loss, max(loss - margin, 0.0), loss + margin)

    def fall(self, stretch: Stretch) -> Prediction:
        """The fall of the held-out loss over one stretch from here, as `loss`; the band is that of the fall alone."""
        before, after = self.x, self.x + self.draws.full_steps(stretch)
        span = self.draws.shape(after) - self.draws.shape(before)
        falls = np.maximum(self.mean[:, 1], 0.0) * span
        loss = float(self.weights @ falls)
        spread = self.weights @ (self.covariance[:, 1, 1] * span**2 + (falls - loss) ** 2)
        margin = _Z * math.sqrt(max(float(spread), 0.0))
        return Prediction(loss, max(loss - margin, 0.0), loss + margin)

    def efficiency(self, method: str, prior: Efficiency) -> Efficiency:
        """The current estimate of the worth of a step of a setting; the prior's if its method has not run."""
        if prior.sd <= 0 or method not in self.draws.methods:
            return prior
        z = self.draws.z[:, self.draws.methods.index(method)]
        mean = float(self.weights @ z)
        sd = math.sqrt(max(float(self.weights @ (z - mean) ** 2), 0.0))
        return Efficiency(prior.median * math.exp(prior.sd * mean), prior.sd * min(sd, 1.0))


@dataclass(frozen=True, eq=False)
class _Draws:
    """Fixed draws from the prior of the parameters in which the losses are not linear."""

    x0: Floats
    b: Floats
    z: Floats
    """(draws, methods + 1): error of a method's efficiency, in prior sds; the last one is for methods that have not run yet."""
    methods: tuple[str, ...]

    @classmethod
    def of(cls, methods: tuple[str, ...]) -> "_Draws":
        z = _normal_draws(3 + len(methods))
        return cls(_X0 * np.exp(_X0_SD * z[:, 0]), _B * np.exp(_B_SD * z[:, 1]), z[:, 2:], methods)

    def full_steps(self, stretch: Stretch) -> Floats:
        """(draws,) full steps that a stretch is worth."""
        worth = stretch.efficiency
        steps = stretch.steps if math.isfinite(stretch.steps) else 0.0
        most = max(steps, 0.0) * max(worth.median, 0.0)
        if worth.sd <= 0:
            return np.full(len(self.x0), most)
        column = self.methods.index(stretch.method) if stretch.method in self.methods else -1
        return most * np.exp(worth.sd * self.z[:, column])

    def shape(self, x: Floats) -> Floats:
        """(draws,) share of the whole fall that x full steps bring."""
        fallen: Floats = -np.expm1(-self.b * np.log1p(x / self.x0))
        return fallen

    def mean_shape(self, x: Floats, span: Floats) -> Floats:
        """(draws,) the mean of `shape` over [x, x + span], by Simpson's rule in √x, since the curve bends at its beginning."""
        low, high = np.sqrt(x), np.sqrt(x + span)
        total = np.zeros_like(x)
        for node, weight in zip(np.linspace(0.0, 1.0, 9), (1, 4, 2, 4, 2, 4, 2, 4, 1), strict=True):
            root = low + (high - low) * node
            total += weight / 24 * self.shape(root**2) * 2 * root * (high - low)
        mean: Floats = np.where(span > 1e-9, total / np.maximum(span, 1e-9), self.shape(x))
        return mean


@lru_cache(maxsize=8)
def _normal_draws(columns: int) -> Floats:
    """(draws, columns) normal quantiles of an additive recurrence, which fills the cube evenly."""
    root = 2.0
    for _ in range(64):
        root = (1 + root) ** (1 / (columns + 1))
    steps = root ** -np.arange(1, columns + 1)
    uniform = (0.5 + np.outer(np.arange(1, _DRAWS + 1), steps)) % 1.0
    inverse = np.vectorize(NormalDist().inv_cdf)
    quantiles: Floats = inverse(np.clip(uniform, 1e-6, 1 - 1e-6))
    return quantiles


@dataclass(frozen=True, slots=True)
class _Seen:
    """Losses of one job, as rows that are linear in (L0, F, d)."""

    rows: Floats
    """(draws, losses, 3)."""
    loss: Floats
    sd: Floats
    x: Floats
    """(draws,) full steps at its end."""


def _observe(draws: _Draws, history: LossHistory, other: bool) -> _Seen:
    more = _OTHER_SD if other else 0.0
    rows: list[Floats] = []
    loss: list[float] = []
    sd: list[float] = []
    x = np.zeros(len(draws.x0))

    def add(shape: Floats, value: float | None, training: float, deviation: float) -> None:
        if _is_loss(value):
            rows.append(np.stack([np.ones_like(shape), -shape, np.full_like(shape, training)], axis=1))
            loss.append(float(value or 0.0))
            sd.append(math.hypot(deviation, more))

    for i in range(len(history.stretches) + 1):
        for held in history.held_out:
            if held.after == i:
                add(draws.shape(x), held.loss, 0.0, _HELD_OUT_SD)
        if i == len(history.stretches):
            break
        stretch = history.stretches[i]
        span = draws.full_steps(stretch)
        few = _ROWS_SD / math.sqrt(max(stretch.steps, 1.0)) if math.isfinite(stretch.steps) else 1.0
        deviation = math.hypot(_TRAINING_SD, few) + _EPOCH_SD * max(stretch.epoch, 0.0)
        add(draws.mean_shape(x, span), stretch.loss, 1.0, deviation)
        x = x + span
    count = len(loss)
    stacked = np.stack(rows, axis=1) if rows else np.zeros((len(x), 0, 3))
    wider = math.sqrt(max(count / _INDEPENDENT, 1.0))
    return _Seen(stacked, np.array(loss), np.array(sd) * wider, x)


def _is_loss(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and 0 <= value <= _MOST_LOSS


def _first_loss(own: LossHistory, others: Sequence[LossHistory]) -> float | None:
    """The loss before training, or the known one nearest to it."""
    for history in (own, *others):
        held = sorted(((h.after, h.loss) for h in history.held_out if _is_loss(h.loss)), key=lambda h: h[0])
        if held and held[0][0] == 0:
            return held[0][1]
        for stretch in history.stretches:
            if _is_loss(stretch.loss):
                return stretch.loss
        if held:
            return held[0][1]
    return None


def _posterior(
    rows: Floats, loss: Floats, sd: Floats, first: float, *, known: bool
) -> tuple[Floats, Floats, Floats]:
    """(weights, means, covariances) of the draws; outliers are weighted less in a few rounds."""
    scale = max(first, 1e-3)
    prior_mean = np.array([first, _FALL * scale, 0.0])
    prior_sd = np.array([_LEVEL_SD * scale if known else 1e-9, _FALL_SD * scale, _OFFSET_SD])
    deviation = sd.copy()
    for _ in range(_ROUNDS):
        weights, mean, covariance = _condition(rows, loss, deviation, prior_mean, prior_sd)
        if not len(loss):
            break
        clipped = np.maximum(mean, np.array([-np.inf, 0.0, -np.inf]))
        expected = np.einsum("s,sni,si->n", weights, rows, clipped)
        off = np.abs(loss - expected) / sd
        deviation = sd * np.sqrt(np.maximum(off / _HUBER, 1.0))
    return weights, mean, covariance


def _condition(
    rows: Floats, loss: Floats, sd: Floats, prior_mean: Floats, prior_sd: Floats
) -> tuple[Floats, Floats, Floats]:
    """The exact posterior of (L0, F, d) for each draw, and how well the draw explains the losses."""
    count = len(rows)
    precision = np.diag(prior_sd**-2.0)
    if not len(loss):
        covariance = np.broadcast_to(np.diag(prior_sd**2), (count, 3, 3))
        return np.full(count, 1 / count), np.broadcast_to(prior_mean, (count, 3)), covariance
    scaled = rows / sd[None, :, None]
    target = loss / sd
    gram = precision + np.einsum("sni,snj->sij", scaled, scaled)
    right = precision @ prior_mean + np.einsum("sni,n->si", scaled, target)
    covariance = np.linalg.inv(gram)
    mean = np.einsum("sij,sj->si", covariance, right)
    miss = target[None, :] - np.einsum("sni,si->sn", scaled, mean)
    moved = (mean - prior_mean) / prior_sd
    log = -0.5 * ((miss**2).sum(axis=1) + (moved**2).sum(axis=1) + np.linalg.slogdet(gram)[1])
    weights = np.exp(log - log.max())
    return weights / weights.sum(), mean, covariance
