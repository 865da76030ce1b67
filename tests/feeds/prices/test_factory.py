"""Chains of prices: who is believed, what a tariff is called, and what is refused."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.canned import Canned
from support.manual_clock import ManualClock

from carbonsched.config import PRICES, Config
from carbonsched.errors import InputError
from carbonsched.feeds.base import Site
from carbonsched.feeds.prices.factory import build_prices
from carbonsched.feeds.value_chain import ValueChain
from carbonsched.feeds.zone import Zone
from carbonsched.model.grid import Kind, Price

NOW = datetime(2026, 11, 28, 12, 20, tzinfo=UTC)
HOUR = timedelta(hours=1)
LICENCE = "CC BY 4.0 from Bundesnetzagentur | SMARD.de"


def prices(*sources: dict[str, Any], zone: str = "DE", **changes: Any) -> tuple[ValueChain[Price], Canned]:
    """A chain on a network that answers as Energy-Charts: hours until 12:00, then quarters, until 13:00; the rest is null."""
    network = Canned()
    first = NOW - timedelta(hours=3, minutes=20)
    axis = [*(first + i * HOUR for i in range(3)), *(first + 3 * HOUR + i * HOUR / 4 for i in range(8))]
    network.document = {
        "unix_seconds": [round(at.timestamp()) for at in axis],
        "price": [90.0, -500.0, 80.0, 10.0, 20.0, 30.0, 40.0, None, None, None, None],
        "unit": "EUR / MWh",
        "license_info": LICENCE,
    } | changes
    built = build_prices(
        [PRICES.model(one["provider"]).model_validate(one) for one in sources],
        Site(Zone(name=zone), ManualClock(NOW), Path("/nowhere"), network),
    )
    assert built is not None
    built.poll_due()
    return built, network


MARKET = {"provider": "energy-charts"}
TARIFF = {"provider": "static", "name": "tariff", "eur_per_kwh": 0.31, "source": "contract of 2026"}


def test_the_market_s_price_holds_now_and_is_known_ahead_with_its_licence() -> None:
    chain, _ = prices(MARKET, TARIFF)
    now = chain.reading_at(NOW)
    assert now is not None
    assert (now.eur_per_kwh, now.source.kind, now.source.zone) == (0.02, Kind.ACTUAL, "DE-LU")
    assert now.source.note == LICENCE
    assert now.source.body_sha256
    assert now.source.basis is None
    assert [p.eur_per_kwh for p in chain.ahead(NOW + 6 * HOUR)] == [0.02, 0.03, 0.04]
    below_zero = chain.reading_at(NOW - 2 * HOUR)
    assert below_zero is not None
    assert below_zero.eur_per_kwh == -0.5
    assert below_zero.end - below_zero.start == HOUR


def test_what_no_market_pays_is_refused_and_the_next_source_stands_in() -> None:
    chain, network = prices(MARKET, TARIFF, price=[20_000.0] * 11)
    now = chain.reading_at(NOW)
    assert now is not None
    assert (now.eur_per_kwh, now.source.kind, now.source.note) == (0.31, Kind.FALLBACK, "contract of 2026")
    error = chain.status()[0].error
    assert error is not None
    assert "a price lies between -1 and 10" in error
    network.document["unit"] = "EUR/kWh"
    chain._slots[0].due_s = 0.0
    chain.poll_due()
    assert "not in EUR / MWh" in (chain.status()[0].error or "")


def test_a_tariff_is_the_source_where_nothing_stands_before_it() -> None:
    chain, _ = prices(TARIFF)
    now = chain.reading_at(NOW)
    assert now is not None
    assert (now.eur_per_kwh, now.source.kind) == (0.31, Kind.STATIC)
    assert chain.ahead(NOW + 48 * HOUR)[0].eur_per_kwh == 0.31


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([{"provider": "energy-charts"}], "prices[0].zone: is missing"),
        ([{"provider": "entso-e", "zone": "FR"}], "prices[0].token_file: is missing"),
        ([{"provider": "entso-e", "zone": "Atlantis", "token_env": "T"}], "prices[0].zone: 'Atlantis' is no bidding zone"),
        ([{"provider": "energi-data-service"}], "prices[0].price_area"),
        ([TARIFF, TARIFF], "prices[1].name: 'tariff' is taken"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_said_in_one_line_with_its_key(
    given: list[dict[str, Any]], said: str
) -> None:
    with pytest.raises(InputError) as refused:
        prices(*given, zone="unknown")
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"provider": "neso"}, "prices[0].provider"),
        ({"provider": "static", "eur_per_kwh": 0.3}, "prices[0].source"),
        ({"provider": "static", "eur_per_kwh": 31.0, "source": "ct"}, "prices[0].eur_per_kwh"),
        ({"provider": "energy-charts", "basis": "average-direct"}, "prices[0].basis"),
        ({"provider": "energi-data-service", "price_area": "DK3"}, "prices[0].price_area"),
    ],
)
def test_a_table_that_is_wrong_is_refused_by_the_config(table: dict[str, Any], said: str) -> None:
    feed = {"provider": "static", "country": "DEU"}
    with pytest.raises(InputError) as refused:
        Config.parse({"feeds": [feed], "prices": [table]})
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_no_prices_is_no_chain() -> None:
    assert build_prices([], Site(Zone(), ManualClock(NOW), Path("/nowhere"))) is None


def test_a_recording_is_played_back_and_known_ahead_as_a_market_s_day_is(tmp_path: Path) -> None:
    file = tmp_path / "prices.csv"
    rows = [f"2026-01-01T{h:02}:00:00Z,{-0.1 + h / 100}" for h in range(24)]
    file.write_text("datetime,eur_per_kwh\n" + "\n".join(rows) + "\n")
    keys = {"provider": "replay", "file": str(file), "hour_s": 60.0, "anchor": NOW - timedelta(minutes=5)}
    built = build_prices(
        [PRICES.model("replay").model_validate(keys)], Site(Zone(name="DE"), ManualClock(NOW), tmp_path)
    )
    assert built is not None
    built.poll_due()
    now = built.reading_at(NOW)
    assert now is not None
    assert (now.eur_per_kwh, now.source.time_compression) == (pytest.approx(-0.05), 60.0)
    ahead = built.ahead(NOW + timedelta(hours=24))
    assert len(ahead) == 37
    assert ahead[1].eur_per_kwh == pytest.approx(-0.04)
    file.write_text("datetime,eur_per_kwh\n2026-01-01T00:00:00Z,31\n2026-01-01T01:00:00Z,30\n")
    with pytest.raises(InputError, match=r"line 2: eur_per_kwh is 31, above 10; write EUR per kWh"):
        build_prices([PRICES.model("replay").model_validate(keys)], Site(Zone(), ManualClock(NOW), tmp_path))
