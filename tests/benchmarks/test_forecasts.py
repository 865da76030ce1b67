"""The benchmark of blended forecasts, on a year of its own making."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import forecasts


def test_it_prints_a_table_whose_figures_are_mean_absolute_errors() -> None:
    n = 24 * 60
    actual = 300 + 80 * np.sin(2 * np.pi * np.arange(n) / 24)
    news, noise = forecasts.shared_news(n, 0.0, 1)
    asked = forecasts.Pair(
        "made", actual, forecasts.near(actual, news, 0.05), forecasts.flat(actual, noise, 0.12)
    )
    found = forecasts.table(asked, days=2)
    for errors in found.values():
        assert all(0 < error < 40 for error in errors)
    assert found["first alone"][0] < found["second alone"][0]  # near, soon
    assert found["second alone"][6] < found["first alone"][6]  # flat, later
    assert np.mean(found["blend"]) < min(np.mean(found["first alone"]), np.mean(found["second alone"]))


def test_the_column_of_a_trace_ends_at_midnight_and_the_week_is_known_by_then(tmp_path: Path) -> None:
    rows = "".join(
        f"2024-{1 + d // 28:02}-{1 + d % 28:02}T{h:02}:00:00Z,{100 + d},{200 + h}\n"
        for d in range(20)
        for h in range(24)
    )
    (tmp_path / "t.csv").write_text("datetime,g_per_kwh,forecast_g_per_kwh\n" + rows)
    made = forecasts.day_ahead_and_week(tmp_path / "t.csv")
    t = 24 * 10 + 20
    assert made.first[t, :4].tolist() == [220, 221, 222, 223]
    assert np.isnan(made.first[t, 4:]).all()
    assert made.second[t, 0] == pytest.approx(
        np.mean([103 + d for d in range(7)])
    )  # of 20 h: the days 3 to 9
