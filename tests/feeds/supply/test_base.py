"""The site's own supply: what its feeds are told, what a kWh of it emits, and which of its readings are believed."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.http_server import Reply, serve
from support.manual_clock import ManualClock

from carbonsched.config import SUPPLIES, Config
from carbonsched.errors import InputError
from carbonsched.feeds.base import Site, Values
from carbonsched.feeds.http import HttpTransport
from carbonsched.feeds.supply.base import supply_gates
from carbonsched.feeds.supply.chain import SupplyChain
from carbonsched.feeds.supply.factory import build_supply
from carbonsched.model.grid import Kind, Source, SupplyReading

NOW = datetime(2026, 3, 12, 10, 22, tzinfo=UTC)
ROOF = {"provider": "static", "share": 0.5, "kind": "solar", "source": "the roof"}


def built(
    clock: ManualClock, *tables: dict[str, Any], basis: str = "average-lifecycle", folder: str = "/"
) -> SupplyChain:
    feeds = [{"provider": "static", "g_per_kwh": 300, "basis": basis, "source": "a bill"}]
    config = Config.parse(
        {"zone": {"name": "XX", "basis": basis}, "feeds": feeds, "supply": list(tables)}, folder=Path(folder)
    )
    site = Site(config.zone, clock, Path("/nowhere"), HttpTransport(backoff_s=0.01))
    chain = build_supply(config.supply, site)
    assert chain is not None
    chain.poll_due()
    return chain


def now(chain: SupplyChain) -> SupplyReading:
    reading = chain.reading_at(NOW)
    assert reading is not None
    return reading


@pytest.mark.parametrize(
    ("keys", "basis", "g_per_kwh", "word"),
    [
        ({"kind": "solar"}, "average-lifecycle", 44.5, "solar; 44.5 g/kWh: lifecycle, IPCC AR5 A.III.2"),
        ({"kind": "wind"}, "average-lifecycle", 11.0, "wind; 11 g/kWh: lifecycle, IPCC AR5 A.III.2"),
        ({"kind": "solar"}, "average-direct", 0.0, "solar; 0 g/kWh: direct, IPCC AR5 A.III.2"),
        ({"kind": "battery", "g_per_kwh": 90}, "marginal-direct", 90.0, "battery; 90 g/kWh: the roof"),
        ({"kind": "solar", "g_per_kwh": 20}, "average-lifecycle", 20.0, "solar; 20 g/kWh: the roof"),
        ({"kind": None, "g_per_kwh": 20}, "average-lifecycle", 20.0, "20 g/kWh: the roof"),
    ],
)
def test_what_a_kwh_emits_and_on_whose_word(
    keys: dict[str, Any], basis: str, g_per_kwh: float, word: str
) -> None:
    reading = now(
        built(ManualClock(NOW), {k: v for k, v in (ROOF | keys).items() if v is not None}, basis=basis)
    )
    assert (reading.amount, reading.unit, reading.g_per_kwh) == (0.5, "share", g_per_kwh)
    assert reading.source.note.removeprefix("the roof; ") == word
    assert (reading.source.kind, reading.source.provider, reading.source.basis) == (
        Kind.STATIC,
        "static",
        None,
    )


@pytest.mark.parametrize(
    ("change", "field", "problem"),
    [
        ({"kind": None}, "supply[0].g_per_kwh", "is missing"),
        ({"kind": "battery"}, "supply[0].g_per_kwh", "of a battery is not known"),
        ({"kind": "contract"}, "supply[0].g_per_kwh", "of a contract is not known"),
        ({"kind": "sunny"}, "supply[0].kind", "solar"),
        ({"source": None}, "supply[0].source", "is missing"),
        ({"source": " "}, "supply[0].source", "is empty"),
        ({"share": 1.1}, "supply[0].share", "must be 1 or less"),
        ({"share": float("nan")}, "supply[0].share", "finite"),
        ({"share": None}, "supply[0].share", "is missing"),
        ({"share": None, "kw": -1}, "supply[0].kw", "must be 0 or more"),
        ({"share": None, "kw": float("inf")}, "supply[0].kw", "finite"),
        ({"share": None, "kw": 1e300}, "supply[0].kw", "must be 1000000 or less"),
        ({"kw": 2.0}, "supply[0].share", "stands beside kw"),
        ({"unit": "kw"}, "supply[0].unit", "is kw, but share is given"),
        ({"g_per_kwh": 3000}, "supply[0].g_per_kwh", "must be 0 to 2000"),
        ({"provider": "sun"}, "supply[0].provider", "'prometheus', 'replay' or 'static'"),
        ({"query": "up"}, "supply[0].query", "is not a key of provider"),
    ],
)
def test_a_key_that_is_wrong_is_named(change: dict[str, Any], field: str, problem: str) -> None:
    with pytest.raises(InputError) as told:
        built(ManualClock(NOW), {k: v for k, v in (ROOF | change).items() if v is not None})
    where = told.value.field
    assert (where, problem in told.value.problem) == (field, True), str(told.value)


@pytest.mark.parametrize("provider", sorted(SUPPLIES.built_in))
def test_no_provider_guesses_what_a_kwh_of_a_marginal_basis_emits(provider: str, tmp_path: Path) -> None:
    (tmp_path / "roof.csv").write_text("datetime,share\n2026-01-01T00:00Z,0.5\n2026-01-01T01:00Z,0.5\n")
    keys = {
        "static": ROOF,
        "replay": {"provider": "replay", "file": "roof.csv", "kind": "solar"},
        "prometheus": {"provider": "prometheus", "url": "http://127.0.0.1:9", "query": "x", "kind": "solar"},
    }[provider]
    with pytest.raises(InputError) as told:
        built(ManualClock(NOW), keys, basis="marginal-direct", folder=str(tmp_path))
    assert told.value.field == "supply[0].g_per_kwh"


def test_two_supplies_of_one_name_are_refused() -> None:
    with pytest.raises(InputError, match=r"supply\[1\].name"):
        built(ManualClock(NOW), ROOF, ROOF)


def test_a_recording_is_played_back_in_its_unit(tmp_path: Path) -> None:
    (tmp_path / "roof.csv").write_text("datetime,kw\n2026-01-01T00:00Z,1.5\n2026-01-01T01:00Z,0\n")
    keys = {
        "provider": "replay",
        "file": "roof.csv",
        "unit": "kw",
        "kind": "solar",
        "hour_s": 60,
        "label": "made up",
    }
    chain = built(ManualClock(NOW), keys | {"anchor": "2026-03-12T10:21:30Z"}, folder=str(tmp_path))
    reading = now(chain)
    assert (reading.amount, reading.unit, reading.end) == (1.5, "kw", NOW + timedelta(seconds=30))
    assert reading.source.note == "made up; solar; 44.5 g/kWh: lifecycle, IPCC AR5 A.III.2"
    assert reading.source.time_compression == 60


@pytest.mark.parametrize(
    ("text", "field", "problem"),
    [
        ("datetime,kw\n2026-01-01T00:00Z,1\n2026-01-01T01:00Z,2\n", "unit", "tells kw"),
        ("datetime,kw\n2026-01-01T00:00Z,1\n2026-01-01T01:00Z,2e6\n", "roof.csv", "above 1e+06"),
        ("datetime,share\n2026-01-01T00:00Z,0.1\n2026-01-01T01:00Z,1.2\n", "line 3", "above 1"),
        ("datetime,share\n2026-01-01T00:00Z,-0.1\n2026-01-01T01:00Z,1\n", "line 2", "0 or more"),
        ("datetime,share\n2026-01-01T00:00Z,nan\n2026-01-01T01:00Z,1\n", "line 2", "0 or more"),
        ("datetime,watts\n2026-01-01T00:00Z,1\n2026-01-01T01:00Z,1\n", "line 1", "header"),
    ],
)
def test_a_recording_that_is_none_is_refused(tmp_path: Path, text: str, field: str, problem: str) -> None:
    (tmp_path / "roof.csv").write_text(text)
    with pytest.raises(InputError) as told:
        built(
            ManualClock(NOW),
            {"provider": "replay", "file": "roof.csv", "kind": "solar"},
            folder=str(tmp_path),
        )
    assert (field in told.value.field, problem in told.value.problem) == (True, True), str(told.value)


@pytest.mark.parametrize(
    ("unit", "said", "why"),
    [
        ("share", "1.2", "a share lies between 0 and 1"),
        ("share", "-0.2", "a share lies between 0 and 1"),
        ("kw", "-3", "a power lies between 0 and 1e+06 kW"),
        ("kw", "1e300", "a power lies between 0 and 1e+06 kW"),
        ("kw", "NaN", "finite"),
    ],
)
def test_what_no_supply_gives_is_refused_and_the_next_feed_asked(unit: str, said: str, why: str) -> None:
    at = NOW.replace(minute=20).timestamp()
    data = {"resultType": "vector", "result": [{"metric": {}, "value": [at, said]}]}
    with serve(lambda _: Reply(json.dumps({"status": "success", "data": data}).encode())) as server:
        keys = {"provider": "prometheus", "url": server.url, "query": "pv", "kind": "solar", "unit": unit}
        chain = built(ManualClock(NOW), keys, ROOF)
    first, second = chain.status()
    assert (first.state, second.state) == ("failing", "ok")
    assert why in (first.error or "")
    assert now(chain).source.provider == "static"


def test_a_power_of_prometheus_holds_until_it_is_too_old() -> None:
    at = NOW.replace(minute=20).timestamp()
    data = {"resultType": "vector", "result": [{"metric": {}, "value": [at, "0.8"]}]}
    clock = ManualClock(NOW)
    with serve(lambda _: Reply(json.dumps({"status": "success", "data": data}).encode())) as server:
        keys = {"provider": "prometheus", "url": server.url, "query": "pv", "kind": "solar", "unit": "kw"}
        chain = built(clock, keys | {"max_age": "10m"})
    reading = now(chain)
    assert (reading.amount, reading.source.kind) == (0.8, Kind.ACTUAL)
    assert len(reading.source.body_sha256 or "") == 64
    until = chain.holds_until(reading)
    assert until == reading.end + timedelta(minutes=10)
    clock.advance(600)
    held = chain.reading_at(clock.now())
    assert held is not None
    assert (held.source.kind, chain.holds_until(held)) == (Kind.ESTIMATED, until)
    clock.advance(600)
    assert chain.reading_at(clock.now()) is None
    view = chain.view(1.0)
    assert (view.share, view.kw) == (None, None)
    assert "no feed knows the supply now" in (view.reason or "")


@pytest.mark.parametrize(
    ("kw", "box_kw", "share"), [(0.5, 2.0, 0.25), (3.0, 2.0, 1.0), (0.0, 0.0, 0.0), (0.5, None, None)]
)
def test_grid_shows_the_share_of_a_power_at_what_the_box_draws(
    kw: float, box_kw: float | None, share: float | None
) -> None:
    keys = {k: v for k, v in ROOF.items() if k != "share"} | {"kw": kw}
    view = built(ManualClock(NOW), keys).view(box_kw)
    assert (view.share, view.kw, view.provider, view.kind) == (share, kw, "static", Kind.STATIC)


@dataclass
class Mistaken:
    """A plugin's feed that answers what is no supply."""

    answer: Any
    name: str = "sun"
    zone: str = "XX"
    every_s: float = 60.0
    max_age_s: float = 60.0
    local: bool = False

    def poll(self) -> Values[SupplyReading]:
        return Values((self.answer,))


@pytest.mark.parametrize("g_per_kwh", [-1.0, 1e6])
def test_a_plugins_factor_is_held_to_what_burns(g_per_kwh: float) -> None:
    source = Source(provider="sun", zone="XX", kind=Kind.ACTUAL, fetched_at=NOW)
    said = SupplyReading(
        start=NOW,
        end=NOW + timedelta(minutes=5),
        amount=0.5,
        unit="share",
        g_per_kwh=g_per_kwh,
        source=source,
    )
    chain = SupplyChain([Mistaken(said)], ManualClock(NOW), supply_gates())
    chain.poll_due()
    assert chain.reading_at(NOW) is None
    assert "an intensity lies between 0 and 2000" in (chain.status()[0].error or "")
