"""Blends the past and the provider into one expectation, with weights and errors learned from what came.

In logarithms about the mean of the last week, a forecast for `target` made at `origin` is a weighted sum of: the same
time yesterday, the two days before, the mean of the same time of the week, what is measured at the origin, what those
predictors said for the origin itself (so that a present miss is carried forward), and the provider's forecast for both
times where there is one. Weights differ by horizon. They are learned by ridge regression on forecasts that could have
been made in the past weeks, shrunk towards plain persistence (or the provider) with the present miss fading over a
quarter of a day; with little history they stay there. The residuals of the same regression give bias and quantiles.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from carbonsched.plan.forecasting.provider_forecast import (
    NO_FORECAST,
    Floats,
    ForecastHistory,
    ProviderForecast,
)

UNKNOWN_ERROR = 0.15
"""Relative error used for the quantiles if none has been measured."""
BINS = (0.0, 1 / 24, 3 / 24, 6 / 24, 12 / 24, 1.0, 2.0, 4.0)
"""Horizons, in days, that have their own weights and errors."""
_FADE = 0.8
"""Days after which half of a present error is carried on. Errors of some hours fade fast, those of the weather slowly, so the fade is 1/(1
+ h/_FADE). With it the plain weights are within a percent of those that fit all of six grids."""
_SHRINK = 1000.0
"""Weight of the plain weights, in forecasts: four weeks contain few changes of the weather."""
_KEPT = 2000
"""Errors kept per horizon; more would not move a 95% quantile."""
_ENOUGH = 20
"""Errors, or forecasts, from which on a horizon has its own quantiles and weights: one in twenty is the 95% quantile."""
_LEAST = 1.0
"""g/kWh below which logarithms are not taken."""
_ORIGINS = 160
"""Past times from which forecasts are made for learning: about six per day of four weeks."""
_WEEK = 7
"""Days."""


@dataclass(frozen=True, slots=True)
class ForecastErrors:
    """Relative errors actual/forecast − 1 by horizon.

    Example:
        >>> float(ForecastErrors().highs(np.array([3600.0]), quantile=0.95)[0])
        0.15
    """

    day_s: float = 86_400.0
    by_bin: tuple[tuple[float, ...], ...] = ((),) * len(BINS)
    _levels: dict[float, Floats] = field(default_factory=dict, compare=False, repr=False)
    """Cache of quantiles by bin: a job needs the same two in every plan."""

    def highs(self, horizon_s: Floats, quantile: float) -> Floats:
        """Relative error that is not exceeded with probability `quantile`, at least 0; horizon_s: (n,) seconds. From the errors at each
        horizon, else at the nearest shorter one with enough errors, else UNKNOWN_ERROR."""
        return np.maximum(self._at(horizon_s, quantile, UNKNOWN_ERROR), 0.0)

    def lows(self, horizon_s: Floats, quantile: float) -> Floats:
        """Relative error that is exceeded with probability `quantile`, at most 0."""
        return np.minimum(self._at(horizon_s, 1 - quantile, -UNKNOWN_ERROR), 0.0)

    def _at(self, horizon_s: Floats, quantile: float, unknown: float) -> Floats:
        if quantile not in self._levels:
            out: list[float] = []
            for errors in self.by_bin:
                if len(errors) >= _ENOUGH:
                    out.append(
                        float(np.quantile(errors, quantile, method="higher" if quantile > 0.5 else "lower"))
                    )
                else:
                    out.append(out[-1] if out else unknown)
            self._levels[quantile] = np.array(out)
        return self._levels[quantile][_bin(horizon_s / self.day_s)]


@dataclass(frozen=True, slots=True)
class ReadingHistory:
    """Readings up to now: ascending start times and values. Each holds until the next, but not across long gaps.

    Example:
        >>> past = ReadingHistory(at=np.array([0.0, 3600.0]), value=np.array([100.0, 200.0]))
        >>> float(np.exp(past.logs(np.array(5000.0))).round(1))
        200.0
    """

    at: Floats
    value: Floats
    day_s: float = 86_400.0
    of_provider: NDArray[np.bool_] | None = None
    """Which readings the forecast's provider itself measured or estimated; None: all."""

    def logs(self, when: Floats) -> Floats:
        """ln of the value that holds at `when` (any shape); nan if no reading is near."""
        if not len(self.at):
            return np.full(np.shape(when), np.nan)
        which, near = self._which(when)
        out: Floats = np.where(near, np.log(np.maximum(self.value[which], _LEAST)), np.nan)
        return out

    def is_comparable(self, when: Floats) -> NDArray[np.bool_]:
        """Whether the reading at `when` may be compared with the provider's forecast: it is the provider's own, and no forecast."""
        if self.of_provider is None or not len(self.at):
            return np.ones(np.shape(when), dtype=bool)
        return self.of_provider[self._which(when)[0]]

    def _which(self, when: Floats) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """(the reading that holds at `when`, whether it is near)."""
        last = len(self.at) - 1
        i = np.searchsorted(self.at, when, side="right") - 1
        before, after = np.clip(i, 0, last), np.clip(i + 1, 0, last)
        hold = self.day_s / 12
        old = np.where(i >= 0, when - self.at[before], np.inf)
        new = np.where(i < last, self.at[after] - when, np.inf)
        return np.where(old <= hold, before, after), np.minimum(old, new) <= hold


@dataclass(frozen=True, slots=True)
class Blend:
    """Weights (bins, features) without and with a provider's forecast, and the errors they would have made.

    Example::

        blend = Blend.learn(past)
        g_per_kwh, has_provider = blend.expect(now, ahead, past, NO_FORECAST)
    """

    day_s: float
    without_provider: Floats
    with_provider: Floats
    bias: Floats
    """(2, bins): mean of actual/forecast, without and with a provider."""
    errors_without_provider: ForecastErrors
    errors_with_provider: ForecastErrors

    @classmethod
    def plain(cls, day_s: float = 86_400.0) -> "Blend":
        """The weights before anything is learned: persistence or the provider, with a fading present error."""
        fade = 1 / (1 + np.array([0.5 / 24, 2 / 24, 4.5 / 24, 9 / 24, 0.75, 1.5, 3.0, 5.5]) / _FADE)
        nothing = np.zeros_like(fade)
        whole = np.ones_like(fade)
        # near, yesterday and the week in halves; far, more of the week: a grid that repeats itself is met exactly
        yesterday, before, weekly = 0.25 + 0.25 * fade, 0.2 - 0.2 * fade, 0.55 - 0.05 * fade
        without_provider = np.stack([yesterday, before, weekly, fade, -0.5 * fade, -0.5 * fade], axis=1)
        with_provider = np.stack([nothing, nothing, nothing, fade, nothing, nothing, whole, -fade], axis=1)
        return cls(
            day_s,
            without_provider,
            with_provider,
            np.ones((2, len(BINS))),
            ForecastErrors(day_s),
            ForecastErrors(day_s),
        )

    @classmethod
    def learn(
        cls, past: ReadingHistory, provider: ProviderForecast | ForecastHistory = NO_FORECAST
    ) -> "Blend":
        """Learn from forecasts that could have been made up to the last reading; `provider`: its forecasts as issued."""
        blend = cls.plain(past.day_s)
        day = past.day_s
        if len(past.at) < 2 * _ENOUGH or past.at[-1] - past.at[0] < 2 * day:
            return blend
        now, first = float(past.at[-1]), float(past.at[0]) + day
        ahead = (
            np.concatenate(
                ((np.arange(12) + 0.5) / 24, np.arange(13.5, 48, 3) / 24, np.arange(50, 168, 10) / 24)
            )
            * day
        )
        origins = np.linspace(first, now, _ORIGINS, endpoint=False)
        origin = np.repeat(origins, len(ahead))
        target = (origins[:, None] + ahead[None, :]).ravel()
        real = past.logs(target)
        keep = (target <= now) & ~np.isnan(real)
        origin, target, real = origin[keep], target[keep], real[keep]
        x, mean, has_provider = _features(past, provider, origin, target)
        usable = ~np.isnan(past.logs(origin))
        y = real - mean
        where = _bin((target - origin) / day)
        return blend._fitted(x, y, where, usable, has_provider & usable & past.is_comparable(target))

    def _fitted(
        self,
        x: Floats,
        y: Floats,
        where: NDArray[np.intp],
        alone: NDArray[np.bool_],
        with_provider: NDArray[np.bool_],
    ) -> "Blend":
        weights, errors = (
            [self.without_provider.copy(), self.with_provider.copy()],
            [list(self.errors_without_provider.by_bin), list(self.errors_with_provider.by_bin)],
        )
        bias = self.bias.copy()
        for b in range(len(BINS)):
            for i, rows in enumerate((alone & (where == b), with_provider & (where == b))):
                if rows.sum() < _ENOUGH:
                    continue
                columns = weights[i].shape[1]
                a, goal, prior = x[rows, :columns], y[rows], weights[i][b]
                spread = float(np.mean(a * a)) + 1e-9
                pull = _SHRINK * spread * np.eye(columns)
                fit = prior + np.linalg.solve(a.T @ a + pull, a.T @ (goal - a @ prior))
                weights[i][b] = fit
                ratio = np.exp(np.clip(goal - a @ fit, -2.0, 2.0))
                bias[i, b] = float(np.clip(ratio.mean(), 0.8, 1.25))
                errors[i][b] = tuple((ratio / bias[i, b] - 1)[-_KEPT:].tolist())
        return replace(
            self,
            without_provider=weights[0],
            with_provider=weights[1],
            bias=bias,
            errors_without_provider=ForecastErrors(self.day_s, tuple(errors[0])),
            errors_with_provider=ForecastErrors(self.day_s, tuple(errors[1])),
        )

    def expect(
        self, now: float, ahead: Floats, past: ReadingHistory, provider: ProviderForecast
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """(g/kWh expected at now + ahead, whether the provider's forecast is in it); nan if nothing is known."""
        x, mean, has_provider = _features(past, provider, np.full(len(ahead), now), now + ahead)
        b = _bin(ahead / self.day_s)
        without = np.einsum("ij,ij->i", x[:, :6], self.without_provider[b])
        within = np.einsum("ij,ij->i", x, self.with_provider[b])
        log = mean + np.clip(np.where(has_provider, within, without), -2.5, 2.5)
        bias = np.where(has_provider, self.bias[1][b], self.bias[0][b])
        return np.exp(log) * bias, has_provider


def _bin(days: Floats) -> NDArray[np.intp]:
    return np.maximum(np.searchsorted(np.array(BINS), days, side="right") - 1, 0)


def _features(
    past: ReadingHistory, provider: ProviderForecast | ForecastHistory, origin: Floats, target: Floats
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """((n, 8) predictors about the mean, (n,) ln mean of the week before the origin, (n,) whether there is a provider's forecast)."""
    mean = _week_mean(past, origin)
    here = past.logs(origin)
    yesterday, before = _same_time(past, origin, target)
    weekly = _same_week_time(past, origin, target)
    unique, back = np.unique(origin, return_inverse=True)
    old, _ = _same_time(past, unique, unique)
    old_week = _same_week_time(past, unique, unique)
    then, _ = provider.at(target, origin)
    now, _ = provider.at(unique, unique)
    has_provider = ~np.isnan(then)
    log_then = np.log(np.maximum(then, _LEAST))
    log_now = np.log(np.maximum(now, _LEAST))[back]
    nowhere = np.isnan(mean)
    mean = np.where(nowhere, np.where(has_provider, log_then, np.nan), mean)
    columns = [yesterday, before, weekly, here, old[back], old_week[back], log_then, log_now]
    x = np.stack([np.nan_to_num(c - mean, nan=0.0) for c in columns], axis=1)
    # without a present error there is none to carry on
    x[:, 3:6][np.isnan(here)] = 0.0
    missing = np.isnan(log_now) | np.isnan(here)
    x[missing, 7] = x[missing, 3]
    return x, mean, has_provider


def _same_time(past: ReadingHistory, origin: Floats, target: Floats) -> tuple[Floats, Floats]:
    """ln of (the last same time of day before the origin, the mean of the two before that)."""
    first = np.floor((target - origin) / past.day_s) + 1
    moments = target[:, None] - (first[:, None] + np.arange(3)[None, :]) * past.day_s
    logs = past.logs(moments)
    return logs[:, 0], _mean(logs[:, 1:], logs[:, 0])


def _same_week_time(past: ReadingHistory, origin: Floats, target: Floats) -> Floats:
    """ln of the mean over up to four weeks before the origin; the same time of the last days if there is no full week."""
    week = _WEEK * past.day_s
    first = np.floor((target - origin) / week) + 1
    moments = target[:, None] - (first[:, None] + np.arange(4)[None, :]) * week
    yesterday, before = _same_time(past, origin, target)
    return _mean(past.logs(moments), np.where(np.isnan(before), yesterday, before))


def _mean(columns: Floats, instead: Floats) -> Floats:
    known = ~np.isnan(columns)
    count = known.sum(axis=1)
    total = np.where(known, columns, 0.0).sum(axis=1)
    out: Floats = np.where(count > 0, total / np.maximum(count, 1), instead)
    return out


def _week_mean(past: ReadingHistory, origin: Floats) -> Floats:
    """Mean ln of the readings in the week up to each origin; nan if there are none."""
    if not len(past.at):
        return np.full(np.shape(origin), np.nan)
    sums = np.append(0.0, np.cumsum(np.log(np.maximum(past.value, _LEAST))))
    last = np.searchsorted(past.at, origin, side="right")
    first = np.searchsorted(past.at, origin - _WEEK * past.day_s, side="right")
    first = np.minimum(first, np.maximum(last - 1, 0))
    out: Floats = np.where(last > 0, (sums[last] - sums[first]) / np.maximum(last - first, 1), np.nan)
    return out
