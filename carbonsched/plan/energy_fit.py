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
"""Rounds of reweighting at most; it converges in a few."""
_SIGMA = 0.25
"""Relative sd of a segment's joules before any segment was metered."""
_SCALE_SD = 1.0
"""Relative sd of the prior's scale: rated figures may be wrong by a factor."""
_SHAPE_SD = 0.15
"""Sd of the prior's c0."""
_NOISE = 0.03
"""Relative sd of a segment's joules before any is known, worth `_NOISE_COUNT` segments."""
_NOISE_COUNT = 3.0
_SPREAD = 0.1
"""ρ must have varied by this much between at least two segments before the slope counts as known."""
_LEAST_NOISE = 1e-4
_PEAK = 1.25
"""watts_high over the highest mean power of a segment: within a segment, power varies by about a tenth."""
_RHO_MEAN = (0.4, 0.7, 1.0)
"""Where the one sigma of an EnergyModel is taken: the root mean square over the usual range of ρ."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One metered segment; joules and seconds without overhead, None if unknown.

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
class StepsSeen:
    """Steps of the current segment, which has not been metered as a whole yet.

    Example:
        >>> StepsSeen(rho=0.6, joules=50.0, seconds=0.5, sd=0.1).joules
        50.0
    """

    rho: float
    joules: float | None
    """Joules of one step; None: its power is unknown."""
    seconds: float
    sd: float
    """Relative sd of the pace."""


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
        """Relative sd of the next segment at ρ: the noise, and the uncertainty of the line itself."""
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
    """Upper bound of the power, e.g. the board's limit; None: _PEAK over the power seen."""
    observations: tuple[Observation, ...] = ()
    under_way: StepsSeen | None = None
    """Steps of the current segment; None: none yet."""
    prior_sd: float = _SCALE_SD
    """Relative sd of the prior's scale; weighs it against steps until a whole segment has been metered."""

    @classmethod
    def prior(
        cls,
        seconds_full: float,
        watts: float,
        c0: float = 1 / 3,
        *,
        rated_watts: float | None = None,
        sd: float = _SCALE_SD,
    ) -> "EnergyFit":
        """From FLOPs over the board's speed, or from the importance pass, and the power of board or host. sd: relative, of its scale."""
        if not (seconds_full > 0 and watts >= 0 and 0 <= c0 <= 1):
            raise ValueError("a prior needs seconds_full above 0, watts at least 0 and c0 in 0..1")
        return cls(seconds_full, watts, c0, rated_watts, prior_sd=sd)

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
        """Add a segment: `steps` steps at ρ took `joules` J in `seconds` s without overhead.

        `joules` None: the energy is unknown; the seconds still count. A segment without steps is ignored. A segment at a locked clock
        counts for that clock alone: the lines are those of the board's own clock.
        """
        if steps <= 0 or not (seconds > 0) or not math.isfinite(seconds) or not math.isfinite(rho):
            return self
        if joules is not None and not (joules >= 0 and math.isfinite(joules)):
            joules = None
        one = Observation(rho, steps, joules, seconds, overhead_j, overhead_s, clock)
        return replace(self, observations=(*self.observations, one))

    def with_steps(self, seen: StepsSeen | None) -> "EnergyFit":
        """Add what the current segment has shown so far; whole metered segments outweigh it."""
        return replace(self, under_way=seen)

    def energy_line(self) -> FittedLine:
        """Joules per step."""
        known = [
            (o.rho, o.joules / o.steps) for o in self._at_own_clock if o.joules is not None and o.joules > 0
        ]
        steps = self.under_way
        seen = None if steps is None or not steps.joules else (steps.rho, steps.joules, steps.sd)
        return _fit(known, self.seconds_full * self.watts, self.c0, seen, self.prior_sd)

    def seconds_line(self) -> FittedLine:
        """Seconds per step."""
        steps = self.under_way
        seen = None if steps is None else (steps.rho, steps.seconds, steps.sd)
        known = [(o.rho, o.seconds / o.steps) for o in self._at_own_clock]
        return _fit(known, self.seconds_full, self.c0, seen, self.prior_sd)

    def at_clock(self, clock: int) -> tuple[float, float] | None:
        """Joules and seconds per step at a locked clock over those at the board's own; None: not metered."""
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

    def model(self, rhos: tuple[float, ...] = _RHO_MEAN) -> EnergyModel:
        """The fitted lines for the planner; overhead is the median of the metered ones, tail 0. rhos: where the job may train; the line's
        uncertainty elsewhere does not matter to a job that stays at one ρ."""
        joules, seconds = self.energy_line(), self.seconds_line()
        extra_j = [o.overhead_j for o in self.observations if o.overhead_j is not None]
        extra_s = [o.overhead_s for o in self.observations if o.overhead_s is not None]
        seen = [o.rho for o in self._at_own_clock if o.joules is not None]
        sigma = math.sqrt(sum(joules.sigma_at(r) ** 2 for r in rhos) / len(rhos))
        return EnergyModel(
            joules_full=joules.full,
            joules_c0=joules.c0,
            seconds_full=seconds.full,
            seconds_c0=seconds.c0,
            overhead_j=_median(extra_j),
            overhead_s=_median(extra_s),
            sigma=min(sigma, 1.0) if seen else min(sigma, _SIGMA) if self.under_way else _SIGMA,
            watts_high=self._watts_high(),
            slope_known=len(seen) > 1 and max(seen) - min(seen) >= _SPREAD,
        )

    def _watts_high(self) -> float:
        means = [o.joules / o.seconds for o in self.observations if o.joules is not None]
        return max(_PEAK * max(means, default=self.watts), self.rated_watts or 0.0)


def _median(values: list[float]) -> float:
    """The median, so that one slow checkpoint does not count for all; 0 before anything was metered."""
    return float(np.median(values)) if values else 0.0


def _first(full: float, c0: float, seen: tuple[float, float, float] | None, prior_sd: float) -> FittedLine:
    """Before a whole segment was metered: combine the prior and the steps seen, weighted by their uncertainty."""
    scale, sd = max(full, 1e-12), prior_sd
    if seen is not None:
        rho, value, spread = seen
        ours, theirs = 1 / prior_sd**2, 1 / (spread**2 + _NOISE**2)
        told = value / max(c0 + (1 - c0) * rho, 1e-12)
        # in logarithms: ratings and first steps are wrong by factors
        scale = math.exp((ours * math.log(scale) + theirs * math.log(told)) / (ours + theirs))
        full, sd = scale, 1 / math.sqrt(ours + theirs)
    prior = ((sd * scale) ** 2, 0.0, (_SHAPE_SD * scale) ** 2)
    return FittedLine(full, c0, _NOISE, c0, prior)


def _fit(
    points: list[tuple[float, float]],
    full: float,
    c0: float,
    seen: tuple[float, float, float] | None = None,
    prior_sd: float = _SCALE_SD,
) -> FittedLine:
    """Robust line through (ρ, y) with the prior as pseudo-observations; y > 0, relative noise.

    seen: (ρ, y, relative sd) of the segment under way, one more point that counts the less the less it is known.
    """
    if not points:
        return _first(full, c0, seen, prior_sd)
    whole = len(points)
    spread = np.zeros(whole)
    if seen is not None:
        points, spread = [*points, seen[:2]], np.append(spread, seen[2])
    rho: Floats = np.array([r for r, _ in points])
    y: Floats = np.array([v for _, v in points])
    shape = c0 + (1 - c0) * rho
    design = np.column_stack((shape, 1 - rho))
    scale = float(np.median((y / shape)[:whole]))
    noise = _NOISE
    weight = np.ones(len(y))
    theta = np.array([scale, 0.0])
    covariance = np.eye(2)
    for _ in range(_MOST_ROUNDS):
        # relative noise: each residual counts against the fitted value, not against the outlier itself
        level = np.maximum(design @ theta, 0.05 * scale)
        precision = weight / ((noise**2 + spread**2) * level**2)
        pull = np.diag([1 / (_SCALE_SD * scale) ** 2, 1 / (_SHAPE_SD * scale) ** 2])
        normal = design.T @ (design * precision[:, None]) + pull
        right = design.T @ (precision * y) + pull @ np.array([scale, 0.0])
        covariance = np.linalg.inv(normal)
        new = covariance @ right
        residual = (y - design @ new) / np.maximum(design @ new, 0.05 * scale)
        apart = _MAD * float(np.median(np.abs(residual[:whole])))
        free = max(whole - 2, 0)
        variance = (_NOISE_COUNT * _NOISE**2 + free * apart**2) / (_NOISE_COUNT + free)
        noise = max(math.sqrt(variance), _LEAST_NOISE)
        size = np.abs(residual) / (_HUBER * np.sqrt(noise**2 + spread**2))
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
