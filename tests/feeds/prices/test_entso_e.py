"""Canned documents of the shape of ENTSO-E's day-ahead prices: several series for one day, and currencies."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.canned import Canned
from support.manual_clock import ManualClock
from support.providers.case import SECRET, Slot
from support.providers.prices import a44, a44_series

from carbonsched.errors import FeedError
from carbonsched.feeds.base import Site
from carbonsched.feeds.prices.entso_e import EntsoePriceSettings
from carbonsched.feeds.zone import Zone
from carbonsched.model.grid import Price

NOW = datetime(2026, 10, 3, 21, 5, tzinfo=UTC)
START = datetime(2026, 10, 3, 20, tzinfo=UTC)
EIC = "10Y1001A1001A82H"


def polled(document: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[Price, ...]:
    monkeypatch.setenv("ENTSOE_TOKEN", SECRET)
    network = Canned()
    network.raw = document
    settings = EntsoePriceSettings(provider="entso-e", zone="DE-LU", token_env="ENTSOE_TOKEN")
    return settings.build(Site(Zone(), ManualClock(NOW), Path("/nowhere"), network)).poll().readings


def slots(eur_per_mwh: list[float], step: timedelta) -> list[Slot]:
    return [Slot(START + i * step, START + (i + 1) * step, v + 200.0) for i, v in enumerate(eur_per_mwh)]


def test_the_first_sequence_is_the_coupled_auction_s_whatever_comes_first_and_its_finest_steps_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hour, quarter = timedelta(hours=1), timedelta(minutes=15)
    hours = a44_series(slots([196.0, 204.8, 150.0], hour), EIC)
    quarters = a44_series(slots([1.0, 2.0, 3.0, 4.0, 204.8, 204.8, -7.0, 8.0], quarter), EIC)
    other = a44_series(slots([180.0, 194.74, 170.0], hour), EIC, sequence="2")
    found = polled(a44(other, hours, quarters), monkeypatch)
    assert [round(p.eur_per_kwh * 1000, 2) for p in found] == [1, 2, 3, 4, 204.8, 204.8, -7, 8, 150]
    assert found[-1].end - found[-1].start == hour
    assert [p.start for p in found] == sorted({p.start for p in found})


def test_another_currency_or_cut_off_answer_is_no_price(monkeypatch: pytest.MonkeyPatch) -> None:
    step = timedelta(minutes=15)
    with pytest.raises(FeedError, match="the prices are in PLN/MWH, not in EUR/MWH"):
        polled(a44(a44_series(slots([1.0, 2.0] * 4, step), EIC, currency="PLN")), monkeypatch)
    many = a44(*[a44_series(slots([float(i) for i in range(200)], step), EIC)] * 5)
    with pytest.raises(FeedError, match="exactly 1000 rows"):
        polled(many, monkeypatch)
