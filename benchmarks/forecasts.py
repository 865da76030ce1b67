"""Measures what blending two providers' forecasts brings: errors of each, of their mean and of the blend, by horizon.

    python -m benchmarks.forecasts --traces DIR [--days 60]

What came is real: a year of hourly averages. Issued forecasts of two providers for one place are not to be had, so these are made: `near` errs
little soon and much later (news decays), `flat` alike at every horizon. What two forecasts err in common is `shared`. The pair
`day-ahead + week` is real on both sides: the forecast column of CAISO's trace, and the mean of the same hour of seven days. Weights are learned as the daemon
learns them, from the 28 days before, for each of `--days` days of the year; errors are of those days, mean absolute in % of the mean.
"""

import argparse
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from carbonsched.feeds.trace import read_trace
from carbonsched.model.grid import Basis
from carbonsched.plan.forecasting.archive import KeptForecast, ProviderRecord, Series
from carbonsched.plan.forecasting.combination import ENOUGH, PairSums, factor, from_sums, horizon, pair
from carbonsched.plan.forecasting.scores import EDGES_H, HORIZONS

Floats = NDArray[np.float64]
Issued = Floats
"""(origins, hours ahead): g/kWh that was forecast at each hour for those that follow."""

HOUR_MS = 3_600_000
AHEAD = 96
LEARNED_DAYS = 28
RECEIVED_MS = 60_000
"""A forecast is received a minute before the first hour that it tells."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two forecasts of one trace.

    Example::

        pair = next(pairs(Path("traces")))
        print(pair.name, table(pair, days=10))
    """

    name: str
    actual: Floats
    first: Issued
    second: Issued


def near(actual: Floats, news: Floats, sigma: float, fade: float = 0.97) -> Issued:
    """Errors are the news since the issue: of `news` (n,), each hour's fades by `fade` an hour. They grow and level off."""
    return _windows(actual) * np.exp(_news(news, sigma, fade))


def flat(actual: Floats, noise: Floats, sigma: float, fade: float = 0.9) -> Issued:
    """A model's error: of each hour, the same whenever it is forecast."""
    error = np.zeros(len(noise))
    for t in range(1, len(noise)):
        error[t] = fade * error[t - 1] + np.sqrt(1 - fade**2) * noise[t]
    return _windows(actual * np.exp(sigma * error))


def _windows(values: Floats) -> Issued:
    return np.lib.stride_tricks.sliding_window_view(values, AHEAD)


def _news(news: Floats, sigma: float, fade: float) -> Issued:
    ahead = np.lib.stride_tricks.sliding_window_view(news, AHEAD)
    error = np.zeros(ahead.shape)
    error[:, 0] = sigma * ahead[:, 0]
    for h in range(1, AHEAD):
        error[:, h] = fade * error[:, h - 1] + sigma * ahead[:, h]
    return error


def shared_news(n: int, shared: float, seed: int) -> tuple[Floats, Floats]:
    """Two series of standard normal news whose correlation is `shared`."""
    one, two = np.random.default_rng(seed).normal(size=(2, n))
    return one, shared * one + np.sqrt(1 - shared**2) * two


def pairs(traces: Path) -> Iterator[Pair]:
    """All that are measured."""
    actual = np.array(read_trace(traces / "es-2022-direct.csv").g_per_kwh)
    for seed, shared in enumerate((0.0, 0.5, 0.9)):
        a, b = shared_news(len(actual), shared, seed)
        yield Pair(
            f"ES direct, near + flat, {shared:g} shared", actual, near(actual, a, 0.05), flat(actual, b, 0.12)
        )
        yield Pair(
            f"ES direct, two near, {shared:g} shared", actual, near(actual, a, 0.05), near(actual, b, 0.05)
        )
    a, b = shared_news(len(actual), 0.5, 7)
    yield Pair("ES direct, near + one twice as wrong", actual, near(actual, a, 0.05), near(actual, b, 0.1))
    yield Pair(
        "ES direct, near + one 30% too high", actual, near(actual, a, 0.05), 1.3 * near(actual, b, 0.05)
    )
    yield day_ahead_and_week(traces / "caiso-2019-2020-with-forecast.csv")


def day_ahead_and_week(path: Path) -> Pair:
    """What CarbonCast forecast of CAISO for a day, issued at midnight, and the mean of the same hour of the seven days before."""
    trace = read_trace(path)
    actual = np.array(trace.g_per_kwh)
    column = np.array([np.nan if value is None else value for value in trace.forecast or ()])
    first, second = _windows(column).copy(), np.full((len(actual) - AHEAD + 1, AHEAD), np.nan)
    for t in range(len(first)):
        first[t, 24 - t % 24 :] = np.nan
        if t >= 7 * 24:
            second[t] = np.resize(actual[t - 168 : t].reshape(7, 24).mean(axis=0), AHEAD)
    return Pair("CAISO, day-ahead + week (real)", actual, first, second)


def record(actual: Floats, issued: Issued, now: int) -> ProviderRecord:
    """What a daemon knows of a provider at hour `now`."""
    made = ProviderRecord.of(Series("x", "X", Basis.AVERAGE_DIRECT))
    for t in range(now - LEARNED_DAYS * 24, now):
        made.readings.put(t * HOUR_MS, (t + 1) * HOUR_MS, float(actual[t]))
        told = issued[t][~np.isnan(issued[t])]
        if len(told):
            at = t * HOUR_MS - RECEIVED_MS
            made.forecasts.put(
                KeptForecast(at, at, array("q", [t * HOUR_MS, HOUR_MS, len(told)]), array("f", told.tolist()))
            )
    return made


Way = Callable[[Sequence[PairSums]], Sequence[tuple[float, float]]]
"""Sums by horizon → by horizon, what the first and the second are multiplied by."""


def _always(first: float, second: float) -> Way:
    return lambda sums: [(first, second)] * len(sums)


def _blend(sums: Sequence[PairSums]) -> list[tuple[float, float]]:
    """As the daemon does."""
    return [(one.first, one.second) for one in from_sums(sums)]


def _inverse(sums: Sequence[PairSums]) -> list[tuple[float, float]]:
    """As if errors were not correlated."""
    right, found = factor(sums), []
    for one in sums:
        if right is None or one.forecasts < ENOUGH:
            found.append((1.0, 0.0))
            continue
        first, second, _ = one.squares(right)
        found.append((second / (first + second), right * first / (first + second)))
    return found


def _bias_kept(sums: Sequence[PairSums]) -> list[tuple[float, float]]:
    return [(one.first, one.second) for one in (each.weights(1.0) for each in sums)]


WAYS: dict[str, Way] = {
    "first alone": _always(1.0, 0.0),
    "second alone": _always(0.0, 1.0),
    "mean": _always(0.5, 0.5),
    "blend": _blend,
    "blend, inverse squares": _inverse,
    "blend, bias kept": _bias_kept,
}


def table(asked: Pair, days: int) -> dict[str, list[float]]:
    """Way → mean absolute error by horizon, in % of the mean; nan where nothing is forecast so far ahead."""
    starts = np.linspace((LEARNED_DAYS + 8) * 24, len(asked.first) - 24, days).astype(int) // 24 * 24
    horizons = np.array([horizon(h * HOUR_MS + RECEIVED_MS, 24 * HOUR_MS) for h in range(AHEAD)])
    sums: dict[str, Floats] = {name: np.zeros(HORIZONS) for name in WAYS}
    count, level = np.zeros(HORIZONS), np.zeros(HORIZONS)
    for start in starts.tolist():
        found = pair(record(asked.actual, asked.first, start), record(asked.actual, asked.second, start))
        first, second = asked.first[start : start + 24], asked.second[start : start + 24]
        real = _windows(asked.actual)[start : start + 24]
        known = ~np.isnan(first) & ~np.isnan(second)
        for b in range(HORIZONS):
            here = known & (horizons == b)
            count[b] += here.sum()
            level[b] += real[here].sum()
            for name, weigh in WAYS.items():
                a, other = weigh(found)[b]
                sums[name][b] += np.abs(a * first[here] + other * second[here] - real[here]).sum()
    with np.errstate(invalid="ignore"):
        return {name: (100 * total / level).tolist() for name, total in sums.items()}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--traces", type=Path, required=True, help="folder of trace CSV files")
    parser.add_argument("--days", type=int, default=60, help="days of the year that are forecast")
    options = parser.parse_args(argv)
    columns = [f"{a:g}-{b:g} h" for a, b in pairwise(EDGES_H)]
    for asked in pairs(options.traces):
        print(f"\n| {asked.name} | {' | '.join(columns)} |\n|---|{'---|' * HORIZONS}")
        for name, errors in table(asked, options.days).items():
            print(f"| {name} | {' | '.join('-' if np.isnan(e) else f'{e:.2f}' for e in errors)} |")


if __name__ == "__main__":
    main()
