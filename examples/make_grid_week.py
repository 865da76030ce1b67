"""Make examples/grid-week.csv: a SYNTHETIC week of grid carbon intensity, hour by hour, for demonstrations.

    python examples/make_grid_week.py

No grid ever looked like this: it is a sum of a residual load with an evening peak, a sun that shines from six to six,
a wind that comes and goes over days, and noise, clipped to 110…540 g/kWh. The forecast column errs as forecasts do:
too smooth, and off by a slowly wandering few per cent. The seed is fixed, so the file never changes. Standard library.
"""

import csv
import math
import random
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

START = datetime(2026, 3, 2, tzinfo=UTC)
HOURS = 7 * 24
LOWEST, HIGHEST = 110.0, 540.0


def actual(rng: random.Random) -> list[float]:
    """Grams per kWh for each hour of the week."""
    values: list[float] = []
    noise = 0.0
    for hour in range(HOURS):
        day = hour % 24
        sun = max(0.0, math.sin((day - 6) / 12 * math.pi)) if 6 <= day <= 18 else 0.0
        evening = math.exp(-(((day - 20) / 2.6) ** 2))
        wind = 0.5 + 0.5 * math.sin(2 * math.pi * (hour - 8) / 61)
        noise = 0.7 * noise + rng.gauss(0, 11)
        value = 365 - 235 * sun + 135 * evening - 70 * wind + noise
        values.append(min(HIGHEST, max(LOWEST, value)))
    return values


def forecast(values: list[float], rng: random.Random) -> list[float]:
    """What a provider might have said of each hour: neighbours blended in, times a wandering error."""
    said: list[float] = []
    error = 0.0
    for hour in range(HOURS):
        before, after = values[max(0, hour - 1)], values[min(HOURS - 1, hour + 1)]
        error = 0.85 * error + rng.gauss(0, 0.035)
        said.append((0.25 * before + 0.5 * values[hour] + 0.25 * after) * (1 + error))
    return said


def main(arguments: list[str]) -> None:
    path = Path(arguments[0]) if arguments else Path(__file__).parent / "grid-week.csv"
    rng = random.Random(20260302)  # noqa: S311 - a curve, not a secret
    values = actual(rng)
    said = forecast(values, rng)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["datetime", "g_per_kwh", "forecast_g_per_kwh"])
        for hour, (value, guess) in enumerate(zip(values, said, strict=True)):
            at = (START + timedelta(hours=hour)).strftime("%Y-%m-%dT%H:%M:%SZ")
            writer.writerow([at, f"{value:.1f}", f"{guess:.1f}"])
    print(f"{HOURS} synthetic hours in {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
