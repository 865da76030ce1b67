"""What the planner is told of the grid: by the record of the provider whose forecast is taken, also after a restart."""

from datetime import timedelta
from pathlib import Path

import pytest
from support.manual_clock import ManualClock
from support.provider import T0, ZONE, Provider, source

from carbonsched.config import Config
from carbonsched.errors import FeedError
from carbonsched.feeds.chain import Chain
from carbonsched.model.grid import Forecast, ForecastPoint, Kind, Reading
from carbonsched.supervisor.estimates.grid_outlook import GridOutlook
from carbonsched.supervisor.forecast_file import ForecastFile
from carbonsched.supervisor.grid_watch import GridWatch

HOUR = timedelta(hours=1)
CONFIG = Config.parse({"feeds": [{"provider": "static", "country": "DEU"}]})


def real(hour: int) -> float:
    return 300.0 + 8 * (hour % 24) + 3 * (hour * 7 % 13)


def tell(feed: Provider, hour: int, factor: float) -> None:
    """The past two days as they were, and the next two times the factor."""
    rows = (
        Reading(start=T0 + h * HOUR, end=T0 + (h + 1) * HOUR, g_per_kwh=real(h), source=source(feed.name))
        for h in range(hour - 47, hour + 1)
    )
    points = tuple(
        ForecastPoint(start=T0 + h * HOUR, end=T0 + (h + 1) * HOUR, g_per_kwh=real(h) * factor)
        for h in range(hour, hour + 48)
    )
    said = Forecast(issued_at=T0 + hour * HOUR, source=source(feed.name, Kind.FORECAST), points=points)
    feed.gives(*rows, forecast=said)


def run(path: Path, clock: ManualClock, feeds: dict[Provider, float], hours: range) -> GridOutlook:
    chain = Chain(tuple(feeds), ZONE, clock)
    watch = GridWatch(chain, clock, ForecastFile(path))
    for hour in hours:
        clock.advance((T0 + hour * HOUR - clock.now()).total_seconds())
        for feed, factor in feeds.items():
            tell(feed, hour, factor)
        chain.poll_due()
        watch.poll_archive()
    return GridOutlook(watch, lambda: CONFIG)


def ahead(outlook: GridOutlook) -> tuple[float, float]:
    """(mean of expected over real, mean width of the band) of the hours 6 to 40."""
    slots = outlook.forecast().slots
    now = round((outlook.watch.clock.now() - T0) / HOUR)
    rows = [s for s in slots if 6 * 3600 <= s.start_s < 40 * 3600]
    ratios = [s.g_per_kwh / real(now + int(s.start_s // 3600)) for s in rows]
    widths = [(s.high - (s.low or 0.0)) / s.g_per_kwh for s in rows]
    return sum(ratios) / len(rows), sum(widths) / len(rows)


def test_what_was_learned_outlives_a_restart_and_no_provider_pays_for_anothers_errors(tmp_path: Path) -> None:
    clock, a, b = ManualClock(T0), Provider("a", every_s=60.0), Provider("b", every_s=60.0)
    learned = run(tmp_path / "f", clock, {a: 1.3}, range(24 * 8))
    ratio, width = ahead(learned)
    assert ratio == pytest.approx(1, abs=0.06)  # its bias is known
    assert width < 0.2
    again = run(tmp_path / "f", clock, {a: 1.3}, range(24 * 8 - 1, 24 * 8))
    assert ahead(again) == pytest.approx((ratio, width), abs=0.003)
    fresh = run(tmp_path / "other", clock, {a: 1.3}, range(24 * 8, 24 * 8 + 1))
    assert ahead(fresh)[1] == pytest.approx(0.3, abs=0.02)  # nothing is known of it
    # a's forecast ends: b's, which is right, is taken as it is
    chain = Chain([a, b], ZONE, clock)
    watch = GridWatch(chain, clock, ForecastFile(tmp_path / "f"))
    a.fails(FeedError("a: HTTP 500"))
    tell(b, 24 * 8, 1.0)
    chain.poll_due()
    ratio, width = ahead(GridOutlook(watch, lambda: CONFIG))
    assert ratio == pytest.approx(1, abs=0.03)
    assert width == pytest.approx(0.3, abs=0.02)


def test_of_two_that_are_blended_the_past_teaches_as_one(tmp_path: Path) -> None:
    """Each is off by 15%, one up where the other is down: their mean is right, and earns the band of one that is."""
    clock = ManualClock(T0)
    feeds = [Provider("a", every_s=60.0), Provider("b", every_s=60.0, local=True)]
    chain = Chain(feeds, ZONE, clock)
    chain.forecasts_wanted = 2
    watch = GridWatch(chain, clock, ForecastFile(tmp_path / "f"))
    for hour in range(24 * 7):
        clock.advance((T0 + hour * HOUR - clock.now()).total_seconds())
        sign = 1 if hour * 7 % 5 < 3 else -1
        for feed, off in zip(feeds, (0.15, -0.15), strict=True):
            tell(feed, hour, 1 + sign * off)
        chain.poll_due()
        watch.poll_archive()
    outlook = GridOutlook(watch, lambda: CONFIG)
    ratio, width = ahead(outlook)
    chain.forecasts_wanted = 1
    _, alone = ahead(outlook)
    assert ratio == pytest.approx(1, abs=0.02)
    assert width < 0.7 * alone
