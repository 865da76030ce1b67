"""Learns what a segment costs from the meter: E(ρ) = E0·(c0 + (1−c0)·ρ) joules per step, seconds likewise.

Each of the two is a line in ρ, fitted as α·(c + (1−c)ρ) + β·(1−ρ) with c the prior's c0: α is the scale, β what bends
the prior's shape. The prior stands in as pseudo-observations of α (weak: the first metered segment decides the scale)
and of β (firm: only a ρ that varies can tell the shape, and until it has, `slope_known` is False). Iteratively
reweighted least squares with Huber's weights keeps a noisy neighbour or a throttled board from moving the line.

`EnergyFit` is a value: `observe` returns a new one, so a restarted daemon refits from its ledger.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from carbonsched.plan.problem import EnergyModel

Floats = NDArray[np.float64]

_HUBER = 1.345
"""Standard deviations beyond which a residual counts linearly: 95% efficient for normal noise (Huber 1964)."""
_MAD = 1.4826
"""Standard deviation of normal noise over its median absolute deviation."""
_MOST_ROUNDS = 30
"""Of reweighting; it converges in a few."""
_SIGMA = 0.25
"""Relative sd of a segment's joules before any segment was metered."""
_SCALE_SD = 1.0
"""Relative sd of the prior's scale: rated figures are off by a factor, not by a percentage."""
_SHAPE_SD = 0.15
"""Sd of the prior's c0."""
_NOISE = 0.03
"""Relative sd of a segment's joules before any is known, worth `_NOISE_COUNT` segments."""
_NOISE_COUNT = 3.0
_SPREAD = 0.1
"""ρ must have varied by this much, between two segments at least, before the slope counts as known."""
_PEAK = 1.25
"""watts_high over the highest mean power of a segment: power within a segment swings by about a tenth."""
_RHO_MEAN = (0.4, 0.7, 1.0)
"""Where the one sigma of an EnergyModel is taken: the root mean square over the usual range of ρ."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One metered segment; joules and seconds without the overhead, None where it was not known.

    Example:
        >>> Observation(rho=0.6, steps=50, joules=4200.0, seconds=39.0).joules
        4200.0
    """

    rho: float
    steps: int
    joules: float | None
    seconds: float
    overhead_j: float | None = None
    overhead_s: float | None = None
    clock: int | None = None
    """MHz that the board was locked at; None: its own clock."""


@dataclass(frozen=True, slots=True)
class FittedLine:
    """y(ρ) = full·(c0 + (1−c0)·ρ) with its uncertainty.

    Example:
        >>> line = EnergyFit.prior(seconds_full=1.0, watts=100.0, c0=0.5).energy_line()
        >>> line.at(1.0), line.at(0.5)
        (100.0, 75.0)
    """

    full: float
    c0: float
    noise: float
    """Relative sd of one segment about the line."""
    basis_c0: float
    covariance: tuple[float, float, float]
    """Of (α, β): var α, cov, var β."""

    def at(self, rho: float) -> float:
        """Joules, or seconds, per step at ρ."""
        return self.full * (self.c0 + (1 - self.c0) * rho)

    def sigma_at(self, rho: float) -> float:
        """Relative sd of the next segment at ρ: noise and what the line itself is unsure of."""
        value = self.at(rho)
        if value <= 0:
            return 1.0
        u, v = self.basis_c0 + (1 - self.basis_c0) * rho, 1 - rho
        aa, ab, bb = self.covariance
        line = max(aa * u * u + 2 * ab * u * v + bb * v * v, 0.0)
        return math.sqrt(self.noise**2 + line / value**2)


@dataclass(frozen=True, slots=True)
class EnergyFit:
    """The prior and every metered segment; `model()` is what the planner takes.

    Example:
        >>> fit = EnergyFit.prior(seconds_full=1.0, watts=100.0)
        >>> fit = fit.observe(0.5, steps=50, joules=6000.0, seconds=40.0)
        >>> round(fit.model().joules(0.5, steps=50))
        6000
    """

    seconds_full: float
    """Prior seconds of a step at ρ = 1."""
    watts: float
    """Prior mean power, W."""
    c0: float = 1 / 3
    """Prior share of a step that does not depend on ρ: the forward pass."""
    rated_watts: float | None = None
    """Upper bound of the power, e.g. the board's limit; None: _PEAK over what is seen."""
    observations: tuple[Observation, ...] = ()

    @classmethod
    def prior(
        cls,
        seconds_full: float,
        watts: float,
        c0: float = 1 / 3,
        *,
        rated_watts: float | None = None,
    ) -> "EnergyFit":
        """From FLOPs over the board's speed, or the importance pass, and the board's or host's power."""
        if not (seconds_full > 0 and watts >= 0 and 0 <= c0 <= 1):
            raise ValueError("a prior needs seconds_full above 0, watts at least 0 and c0 in 0..1")
        return cls(seconds_full, watts, c0, rated_watts)

    def observe(
        self,
        rho: float,
        steps: int,
        joules: float | None,
        seconds: float,
        overhead_j: float | None = 0.0,
        overhead_s: float | None = 0.0,
        clock: int | None = None,
    ) -> "EnergyFit":
        """With one more segment: `steps` steps at ρ took `joules` J in `seconds` s, the overhead apart.

        `joules` None: the energy was not known; the seconds still count. A segment without steps tells nothing. One at a
        locked clock tells of that clock alone: the lines are those of the board's own.
        """
        if steps <= 0 or not (seconds > 0) or not math.isfinite(seconds) or not math.isfinite(rho):
            return self
        if joules is not None and not (joules >= 0 and math.isfinite(joules)):
            joules = None
        one = Observation(rho, steps, joules, seconds, overhead_j, overhead_s, clock)
        return replace(self, observations=(*self.observations, one))

    def energy_line(self) -> FittedLine:
        """Joules per step."""
        known = [
            (o.rho, o.joules / o.steps) for o in self._at_own_clock if o.joules is not None and o.joules > 0
        ]
        return _fit(known, self.seconds_full * self.watts, self.c0)

    def seconds_line(self) -> FittedLine:
        """Seconds per step."""
        return _fit([(o.rho, o.seconds / o.steps) for o in self._at_own_clock], self.seconds_full, self.c0)

    def at_clock(self, clock: int) -> tuple[float, float] | None:
        """Joules and seconds of steps at a locked clock, over those that the same steps take at the board's own; None: not metered."""
        there = [o for o in self.observations if o.clock == clock and o.joules]
        if not there or not self._at_own_clock:
            return None
        joules, seconds = self.energy_line(), self.seconds_line()
        return (
            sum(o.joules or 0.0 for o in there) / sum(joules.at(o.rho) * o.steps for o in there),
            sum(o.seconds for o in there) / sum(seconds.at(o.rho) * o.steps for o in there),
        )

    @property
    def _at_own_clock(self) -> list[Observation]:
        return [o for o in self.observations if o.clock is None]

    def model(self) -> EnergyModel:
        """The fitted lines as the planner takes them; the overhead is the median of those metered, the tail 0."""
        joules, seconds = self.energy_line(), self.seconds_line()
        extra_j = [o.overhead_j for o in self.observations if o.overhead_j is not None]
        extra_s = [o.overhead_s for o in self.observations if o.overhead_s is not None]
        rhos = [o.rho for o in self._at_own_clock if o.joules is not None]
        sigma = math.sqrt(sum(joules.sigma_at(r) ** 2 for r in _RHO_MEAN) / len(_RHO_MEAN))
        return EnergyModel(
            joules_full=joules.full,
            joules_c0=joules.c0,
            seconds_full=seconds.full,
            seconds_c0=seconds.c0,
            overhead_j=_median(extra_j),
            overhead_s=_median(extra_s),
            sigma=min(sigma, 1.0) if rhos else _SIGMA,
            watts_high=self._watts_high(),
            slope_known=len(rhos) > 1 and max(rhos) - min(rhos) >= _SPREAD,
        )

    def _watts_high(self) -> float:
        means = [o.joules / o.seconds for o in self.observations if o.joules is not None]
        return max(_PEAK * max(means, default=self.watts), self.rated_watts or 0.0)


def _median(values: list[float]) -> float:
    """The median, for one slow checkpoint must not count for all; 0 before anything was metered."""
    return float(np.median(values)) if values else 0.0


def _fit(points: list[tuple[float, float]], full: float, c0: float) -> FittedLine:
    """Robust line through (ρ, y) with the prior as pseudo-observations; y > 0, relative noise."""
    if not points:
        scale = max(full, 1e-12)
        prior = ((_SCALE_SD * scale) ** 2, 0.0, (_SHAPE_SD * scale) ** 2)
        return FittedLine(full, c0, _NOISE, c0, prior)
    rho: Floats = np.array([r for r, _ in points])
    y: Floats = np.array([v for _, v in points])
    shape = c0 + (1 - c0) * rho
    design = np.column_stack((shape, 1 - rho))
    scale = float(np.median(y / shape))
    noise = _NOISE
    weight = np.ones(len(y))
    theta = np.array([scale, 0.0])
    covariance = np.eye(2)
    for _ in range(_MOST_ROUNDS):
        # relative noise: each residual counts against the fitted value, not against the outlier itself
        level = np.maximum(design @ theta, 0.05 * scale)
        precision = weight / (noise * level) ** 2
        pull = np.diag([1 / (_SCALE_SD * scale) ** 2, 1 / (_SHAPE_SD * scale) ** 2])
        normal = design.T @ (design * precision[:, None]) + pull
        right = design.T @ (precision * y) + pull @ np.array([scale, 0.0])
        covariance = np.linalg.inv(normal)
        new = covariance @ right
        residual = (y - design @ new) / np.maximum(design @ new, 0.05 * scale)
        spread = _MAD * float(np.median(np.abs(residual)))
        free = max(len(y) - 2, 0)
        noise = max(math.sqrt((_NOISE_COUNT * _NOISE**2 + free * spread**2) / (_NOISE_COUNT + free)), 1e-4)
        size = np.abs(residual) / (_HUBER * noise)
        weight = np.where(size <= 1, 1.0, 1 / np.maximum(size, 1e-12))
        done = bool(np.all(np.abs(new - theta) <= 1e-9 * scale))
        theta = new
        if done:
            break
    top = max(float(theta[0]), 1e-12)
    # (α, β) → c0 = c + β/α, kept to what a step can be
    bent = min(max(c0 + float(theta[1]) / top, 0.0), 1.0)
    return FittedLine(
        top, bent, noise, c0, (float(covariance[0, 0]), float(covariance[0, 1]), float(covariance[1, 1]))
    )
