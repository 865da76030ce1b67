"""What a kWh costs, as it is metered, watched and shown."""

from pathlib import Path
from typing import Any

import pytest
from support.rig import START, Rig

from carbonsched.model.base import rfc3339


def with_prices(folder: Path, rows: str, **keys: Any) -> dict[str, Any]:
    """The config's part: prices by the hour from START on, an hour of them a minute."""
    file = folder / "prices.csv"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(f"datetime,eur_per_kwh\n{rows}")
    replay = {"provider": "replay", "file": str(file), "hour_s": 60.0, "anchor": rfc3339(START)}
    return {"prices": [replay | keys]}


TWO = "2026-01-01T00:00:00Z,0.30\n2026-01-01T01:00:00Z,-0.05\n"


def test_rows_are_cut_where_the_price_changes_and_carry_it_with_its_source(tmp_path: Path) -> None:
    rig = Rig(tmp_path, extra=with_prices(tmp_path, TWO, label="synthetic") | {"pue": 1.5})
    rig.run(95)
    rig.supervisor.flush()
    rows = list(rig.ledger.rows())
    by_price = {row["eur_per_kwh"]: 0 for row in rows}
    for row in rows:
        by_price[row["eur_per_kwh"]] += row["energy_mj"]
        assert row["eur"] == pytest.approx(row["energy_mj"] / 3.6e9 * 1.5 * row["eur_per_kwh"])
        assert '"note": "synthetic"' in row["price_source"]
        assert '"provider": "replay"' in row["price_source"]
    assert by_price == {0.30: 59 * 100_000, -0.05: 35 * 100_000}
    assert rig.ledger.verify().ok
    assert sum(rig.energy().values()) == rig.metered_mj()


def test_without_prices_rows_are_what_they_were(tmp_path: Path) -> None:
    plain, priced = Rig(tmp_path / "a"), Rig(tmp_path / "b", extra=with_prices(tmp_path / "b", TWO))
    for rig in (plain, priced):
        rig.run(50)
        rig.supervisor.flush()
    before, after = list(plain.ledger.rows()), list(priced.ledger.rows())
    money = ("eur_per_kwh", "price_source", "eur")
    assert all(row[name] is None for row in before for name in money)
    gone = (*money, "hash", "prev_hash", "counter_epoch", "fetched_us")
    same = [[{k: v for k, v in row.items() if k not in gone} for row in rows] for rows in (before, after)]
    assert same[0] == same[1]
    assert plain.service.grid(24.0).prices is None


def test_what_is_known_and_how_the_sources_are_is_shown_and_journaled(tmp_path: Path) -> None:
    extra = with_prices(tmp_path, TWO)
    dead = {"provider": "energy-charts", "zone": "DE-LU", "url": "http://127.0.0.1:9", "timeout": 1.0}
    rig = Rig(tmp_path, extra={"prices": [dead, *extra["prices"]]})
    rig.run(2)
    view = rig.service.grid(24.0).prices
    assert view is not None
    assert view.now is not None
    assert (view.now.eur_per_kwh, view.now.source.provider, view.reason) == (0.30, "replay", None)
    assert [point.eur_per_kwh for point in view.ahead][:3] == [0.30, -0.05, 0.30]
    assert [(one.name, one.state) for one in view.feeds] == [("energy-charts", "failing"), ("replay", "ok")]
    noted = [entry for entry in rig.ledger.history(None, kinds=("feed",)) if entry.get("of") == "prices"]
    assert [(entry["name"], entry["state"]) for entry in noted] == [
        ("energy-charts", "failing"),
        ("replay", "ok"),
    ]


def test_an_unknown_price_is_null_with_a_reason(tmp_path: Path) -> None:
    dead = {"provider": "energy-charts", "zone": "DE-LU", "url": "http://127.0.0.1:9", "timeout": 1.0}
    rig = Rig(tmp_path, extra={"prices": [dead]})
    rig.run(12)
    view = rig.service.grid(24.0).prices
    assert view is not None
    assert (view.now, view.ahead) == (None, ())
    assert "no source knows the price now (energy-charts: " in (view.reason or "")
    assert all((row["eur_per_kwh"], row["eur"]) == (None, None) for row in rig.ledger.rows())
