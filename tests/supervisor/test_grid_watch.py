"""Feeds that fail and come back, as the journal tells of them; forecasts that are remembered and scored."""

from pathlib import Path

import pytest
from support.manual_clock import ManualClock
from support.provider import T0, ZONE, Provider, minutes, reading, source
from support.rig import Rig

from carbonsched.errors import FeedError
from carbonsched.feeds.base import Site
from carbonsched.feeds.chain import Chain
from carbonsched.feeds.replay import ReplaySettings
from carbonsched.model.grid import Forecast, ForecastPoint, Kind
from carbonsched.supervisor.forecast_file import ForecastFile
from carbonsched.supervisor.grid_watch import GridWatch


def told(watch: GridWatch) -> list[tuple[str, str, str | None]]:
    return [(status.name, status.state, status.error) for status in watch.changes()]


def test_each_change_of_a_feeds_state_is_told_once_with_its_reason() -> None:
    clock = ManualClock(T0)
    first, second = Provider("first", reading(0, 100)), Provider("second", reading(0, 300, length=600))
    watch = GridWatch(chain := Chain([first, second], ZONE, clock), clock)
    assert told(watch) == []
    chain.poll_due()
    assert told(watch) == [("first", "ok", None), ("second", "standby", None)]
    assert told(watch) == []
    first.fails(FeedError("first: HTTP 500"))
    clock.advance(300)
    chain.poll_due()
    assert told(watch) == [("first", "failing", "first: HTTP 500"), ("second", "ok", None)]
    first.gives(reading(0, 100))
    clock.advance(10)
    chain.poll_due()
    assert told(watch) == []  # once a minute at most
    clock.advance(60)
    assert told(watch) == [("first", "ok", None), ("second", "standby", None)]


def test_each_place_that_the_intensity_comes_from_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A feed, its last value up to its age, the next feed, a constant, none: also where a feed answers and has nothing new."""
    caplog.set_level("INFO", "carbonsched.supervisor.grid_watch")
    clock = ManualClock(T0)
    first = Provider("first", reading(0, 100, length=10, provider="first"), every_s=60, max_age_s=600)
    second = Provider("second", every_s=60, max_age_s=300)
    constant = Provider(
        "bill", reading(-60, 7, length=180, provider="bill", kind=Kind.FALLBACK), every_s=60, local=True
    )
    second.fails(FeedError("second: HTTP 500"))
    chain = Chain([first, second, constant], ZONE, clock)
    watch = GridWatch(chain, clock)
    watch.log_source()
    assert caplog.messages == [], "nobody was asked yet"
    seen: list[tuple[int, str]] = []
    for minute in range(130):
        if minute == 40:
            second.gives(reading(40, 300, length=10, provider="second"))
        if minute == 60:
            first.gives(reading(60, 120, length=10, provider="first"))
        for _ in range(6):
            chain.poll_due()
            watch.log_source()
            clock.advance(10)
        told = [record.getMessage() for record in caplog.records if record.name.endswith("grid_watch")]
        seen += [(minute, message.removeprefix("the intensity is ")) for message in told]
        caplog.clear()
        if minute == 25:
            assert (first.polls, chain.status()[0].state) == (26, "stale"), "it answers, and has nothing new"
    too_old = "no feed before it has a value that is young enough"
    assert seen == [
        (0, "what first says"),
        (11, "the last value of first, held: there is no newer one"),
        (21, f"a constant of bill: {too_old}"),
        (42, "what second says"),  # it is asked again after a pause
        (51, "the last value of second, held: there is no newer one"),
        (56, f"a constant of bill: {too_old}"),
        (61, "what first says"),
        (71, "the last value of first, held: there is no newer one"),
        (81, f"a constant of bill: {too_old}"),
        (121, "not known: no feed has a value that is young enough"),
    ]


def test_the_journal_has_it(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.supervisor.tick()
    rig.supervisor.tick()
    noted = list(rig.ledger.history(None, kinds=("feed",)))
    assert [(row["name"], row["state"], row["error"]) for row in noted] == [("static", "ok", None)]


def wave(hour: float) -> float:
    return 300.0 + 10 * (hour % 24)


def tell(feed: Provider, hour: int, bias: float, kind: Kind = Kind.ACTUAL, zone: str = "XX") -> None:
    """It tells the hour that has passed and the one that runs, and forecasts a day with a bias."""
    points = tuple(
        ForecastPoint(start=T0 + minutes(60 * h), end=T0 + minutes(60 * (h + 1)), g_per_kwh=wave(h) + bias)
        for h in range(hour, hour + 25)
    )
    said = Forecast(
        issued_at=T0 + minutes(60 * hour), source=source(feed.name, Kind.FORECAST, zone=zone), points=points
    )
    told = source(feed.name, kind, zone=zone)
    rows = (reading(60 * h, wave(h), 60).model_copy(update={"source": told}) for h in (hour - 1, hour))
    feed.gives(*rows, forecast=said)


def watched(path: Path, clock: ManualClock, feeds: list[tuple[Provider, float]], hours: range) -> GridWatch:
    """A daemon of so many hours on that file."""
    chain = Chain([feed for feed, _ in feeds], ZONE, clock)
    watch = GridWatch(chain, clock, ForecastFile(path))
    for hour in hours:
        for feed, bias in feeds:
            tell(feed, hour, bias)
        chain.poll_due()
        watch.poll_archive()
        clock.advance(3600)
    return watch


def test_forecasts_are_scored_as_they_come_true_also_over_a_restart(tmp_path: Path) -> None:
    clock, feed = ManualClock(T0), (Provider("a"), 25.0)
    first = watched(tmp_path / "f", clock, [feed], range(30))
    [score] = first.view(24).scores
    assert (score.provider, score.forecasts, score.kept_h, score.reason) == ("a", 30, 29.0, None)
    assert score.horizons[0].bias_g_per_kwh == pytest.approx(25.0)
    assert score.horizons[0].persistence_mae_g_per_kwh == pytest.approx(0.0)
    n = score.horizons[0].n
    second = watched(tmp_path / "f", clock, [feed], range(30, 31))
    [again] = second.view(24).scores
    assert (again.forecasts, again.kept_h) == (31, 30.0)
    assert again.horizons[0].n == n + 1
    assert [one.n for one in again.horizons[5:]] == [0, 0]
    assert second.view(0).scores == ()


def test_two_providers_are_kept_and_scored_apart_and_the_forecasts_own_is_taken(tmp_path: Path) -> None:
    clock = ManualClock(T0)
    feeds = [(Provider("a"), 25.0), (Provider("b"), -40.0)]
    watch = watched(tmp_path / "f", clock, feeds, range(30))
    feeds[0][0].fails(FeedError("a: HTTP 500"))
    for hour in range(30, 60):
        tell(feeds[1][0], hour, -40.0)
        watch.chain.poll_due()
        watch.poll_archive()
        clock.advance(3600)
    a, b = watch.scores()
    assert [(one.provider, one.horizons[2].bias_g_per_kwh) for one in (a, b)] == [
        ("a", pytest.approx(25.0)),
        ("b", pytest.approx(-40.0)),
    ]
    tell(feeds[1][0], 60, -40.0)
    watch.chain.poll_due()
    forecast = watch.forecast()
    assert forecast is not None
    assert forecast.source.provider == "b"
    record = watch.record_of(forecast.source)
    assert record is not None
    assert record.series.provider == "b"
    assert len(record.forecasts.rows) == b.forecasts < 60


def test_a_provider_whose_values_are_forecasts_themselves_is_not_scored(tmp_path: Path) -> None:
    clock, (feed, _) = ManualClock(T0), (Provider("a"), 25.0)
    chain = Chain([feed], ZONE, clock)
    watch = GridWatch(chain, clock)
    for hour in range(30):
        tell(feed, hour, 25.0, Kind.FORECAST)
        chain.poll_due()
        watch.poll_archive()
        clock.advance(3600)
    [score] = watch.scores()
    assert score.reason is not None
    assert score.reason.startswith(
        "not scored yet: 29 h of forecasts kept, and the provider has told no value"
    )


def test_a_replays_horizons_are_grid_hours(tmp_path: Path) -> None:
    rows = "".join(
        f"2024-01-{1 + h // 24:02}T{h % 24:02}:00:00Z,{wave(h)},{wave(h) + 7}\n" for h in range(24 * 5)
    )
    (tmp_path / "week.csv").write_text("datetime,g_per_kwh,forecast_g_per_kwh\n" + rows)
    clock = ManualClock(T0)
    feed = ReplaySettings(
        provider="replay", file=str(tmp_path / "week.csv"), hour_s=4.0, anchor=T0 - minutes(1 / 60)
    )
    chain = Chain([feed.build(Site(ZONE, clock, tmp_path))], ZONE, clock)
    watch = GridWatch(chain, clock, ForecastFile(tmp_path / "f"))
    for _ in range(120):
        chain.poll_due()
        watch.poll_archive()
        clock.advance(1)
    [score] = watch.scores()
    assert score.kept_h == pytest.approx(29, abs=1)
    assert [one.n > 0 for one in score.horizons] == [True] * 6 + [False]
    assert score.horizons[4].bias_g_per_kwh == pytest.approx(7.0)


def test_without_any_forecast_the_view_says_where_the_planners_own_shows() -> None:
    clock = ManualClock(T0)
    chain = Chain([Provider("a", reading(0, 100))], ZONE, clock)
    chain.poll_due()
    view = GridWatch(chain, clock).view(24)
    assert view.forecast == ()
    assert "submit JOB.toml --explain" in (view.forecast_reason or "")


def blending(path: Path, zone: str, hours: int, first: float = 40.0, second: float = -40.0) -> GridWatch:
    """Two feeds of which one says too much in turn with the other, so that their mean is right."""
    clock = ManualClock(T0)
    feeds = [Provider("neso"), Provider("wattnet", local=True)]
    chain = Chain(feeds, ZONE, clock)
    chain.forecasts_wanted = 2
    watch = GridWatch(chain, clock, ForecastFile(path))
    for hour in range(hours):
        sign = 1 if hour * 7 % 5 < 3 else -1
        for feed, bias in zip(feeds, (first, second), strict=True):
            tell(feed, hour, sign * bias, zone=zone if feed.name == "wattnet" else "XX")
        chain.poll_due()
        watch.poll_archive()
        clock.advance(3600)
    for feed, bias in zip(feeds, (first, second), strict=True):
        tell(feed, hours, bias, zone=zone if feed.name == "wattnet" else "XX")
    chain.poll_due()
    return watch


def test_two_forecasts_are_blended_once_both_are_known_and_it_is_said_what_of(tmp_path: Path) -> None:
    watch = blending(tmp_path / "f", "A-XX", 130)
    used = watch.used()
    assert used.forecast is not None
    assert used.forecast.source.provider == "neso + wattnet"
    assert used.forecast.source.note == "blended, 50% neso and the rest wattnet, by horizon"
    assert [p.g_per_kwh for p in used.forecast.points[:20]] == pytest.approx(
        [wave(h) for h in range(130, 150)]
    )
    view = watch.view(24)
    assert view.forecast_source == used.forecast.source
    assert [score.provider for score in view.scores] == ["neso", "wattnet"]
    assert used.record is not None
    assert used.second is not None
    assert (used.record.series.provider, used.second.series.provider) == ("neso", "wattnet")
    watch.chain.forecasts_wanted = 1
    assert (watch.view(24).forecast_source or used.forecast.source).provider == "neso"


@pytest.mark.parametrize(
    ("zone", "hours", "biases", "why"),
    [
        ("YY", 3, (40.0, -40.0), "it is of YY"),
        ("XX/13", 3, (40.0, -40.0), "it is of XX/13"),
        ("XX", 60, (40.0, -40.0), "too few forecasts of both have come true"),
        ("XX", 110, (5.0, 80.0), "it adds nothing"),
    ],
)
def test_what_is_not_blended_says_why(
    tmp_path: Path, zone: str, hours: int, biases: tuple[float, float], why: str
) -> None:
    used = blending(tmp_path / "f", zone, hours, *biases).used()
    assert used.forecast is not None
    assert used.second is None
    assert used.forecast.source.provider == "neso"
    assert used.forecast.source.note == f"not blended with wattnet: {why}"
