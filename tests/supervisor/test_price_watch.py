"""What a kWh costs, as it is metered, watched and shown."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.rig import ME, START, Rig, checked, spec

from carbonsched.errors import InputError
from carbonsched.model.base import rfc3339
from carbonsched.report import build
from carbonsched.report.html import page


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


def weighing(folder: Path) -> Rig:
    """One intensity; a dear hour and then a cheap one, a day of 24 minutes, known ahead."""
    hours = "".join(f"2026-01-01T{h:02}:00:00Z,{0.40 if h < 6 else 0.04}\n" for h in range(24))
    return Rig(folder, extra=with_prices(folder, hours, hour_s=20.0) | {"plan": {"horizon": "24h"}})


def test_energy_grams_and_money_expected_are_of_the_same_joules_by_the_prices_of_their_time(
    tmp_path: Path,
) -> None:
    """A constant intensity is one slot of two days, of which no single price holds; a box that idles draws while it waits."""
    hours = [f"2026-01-0{1 + h // 24}T{h % 24:02}:00:00Z,{0.20 if h < 24 else -0.20}\n" for h in range(60)]
    anchor = rfc3339(START - timedelta(hours=24))
    carbon = {"may_pause": True, "deadline": 40000.0, "budget_g": 1000.0}
    rig = Rig(
        tmp_path, extra=with_prices(tmp_path, "".join(hours), hour_s=3600.0, anchor=anchor) | {"pue": 1.5}
    )
    rig.run(3)
    for weighed in (None, 0.5):
        told = rig.service.explain(spec(**carbon, eur_per_kg=weighed), ME, checked())
        assert told.action == "train"
        assert told.g == pytest.approx(told.energy_j / 3.6e6 * 1.5 * 400.0)
        assert told.eur == pytest.approx(told.energy_j / 3.6e6 * 1.5 * -0.20)


def test_the_energy_expected_has_that_of_waits_as_its_grams_have(tmp_path: Path) -> None:
    rows = "".join(f"2026-01-01T{h:02}:00:00Z,{0.40 if h < 6 else 0.04}\n" for h in range(24))
    rig = Rig(tmp_path, extra=with_prices(tmp_path, rows, hour_s=20.0) | {"plan": {"horizon": "24h"}})
    rig.run(3)
    rig.supervisor.metering.idle_w.update(dict.fromkeys(rig.supervisor.metering.idle_w, 5.0))
    carbon = {"may_pause": True, "deadline": 400.0, "budget_g": 1000.0}
    told = rig.service.explain(spec(**carbon, eur_per_kg=0.5), ME, checked())
    assert told.action == "wait"
    assert told.g == pytest.approx(told.energy_j / 3.6e6 * 400.0)


def test_a_job_that_weighs_money_waits_for_the_cheap_hours_and_what_it_cost_is_known(
    tmp_path: Path,
) -> None:
    rig = weighing(tmp_path)
    carbon = {"may_pause": True, "deadline": 400.0, "budget_g": 1000.0}
    told = rig.service.explain(spec(**carbon, eur_per_kg=0.5), ME, checked())
    assert told.action == "wait"
    assert told.eur is not None
    assert 0 < told.eur < 0.001
    assert told.money is not None
    assert "EUR/kWh, from 0.4" in told.money
    plain = rig.service.explain(spec(**carbon), ME, checked())
    assert (plain.action, plain.money) == ("train", None)
    assert plain.eur is not None
    assert plain.eur > told.eur

    job = rig.running(spec(**carbon, eur_per_kg=0.5))
    job.ready(0)
    rig.run(2)
    directive = job.control()
    assert directive["action"] == "wait", directive["reason"]
    assert "and 0.04 EUR/kWh, now 0.4" in directive["reason"]
    while job.control()["action"] == "wait" and rig.clock.now() < START + timedelta(seconds=200):
        rig.run(1)
    begun = (rig.clock.now() - START).total_seconds()
    assert 118 <= begun <= 130, "the cheap hours begin after two minutes"
    for k in range(4):
        for _ in job.play(k) if k else ():
            pass
        if not k:
            rig.run(20)
            job.done(0, job.control()["rho"], 20.0)
            rig.run(1)
    job.finish()
    rig.supervisor.flush()
    trained = [row for row in rig.ledger.rows(job.id) if row["segment"] in (1, 2, 3)]
    assert trained
    assert {row["eur_per_kwh"] for row in trained} == {0.04}
    assert rig.ledger.verify().ok
    report = build(rig.ledger, job.id, now=rig.clock.now())
    assert report.money is not None
    rows = list(rig.ledger.rows(job.id))
    assert report.money.eur == pytest.approx(sum(row["eur"] for row in rows))
    assert job.show().eur == pytest.approx(report.money.eur)
    assert report.money.segments[2] == pytest.approx(sum(row["eur"] for row in rows if row["segment"] == 2))
    assert report.money.jobs == {job.id: report.money.eur}
    assert (report.money.unknown_kwh, report.money.estimated) == (0.0, False)
    [source] = report.money.prices
    assert (source.provider, source.kind, source.eur) == ("replay", "actual", report.money.eur)
    html = page(report, rig.ledger)
    assert "Where the prices came from" in html
    assert "Cost, EUR" in html


def test_a_worth_of_a_kg_needs_prices(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    for ask in (
        lambda: rig.service.submit(spec(eur_per_kg=1.0), ME),
        lambda: rig.service.explain(spec(eur_per_kg=1.0), ME, checked()),
    ):
        with pytest.raises(InputError) as refused:
            ask()
        assert str(refused.value) == (
            "carbon.eur_per_kg: weighs prices, and the daemon's config has none; "
            "add [[prices]] to it and start the daemon anew, or drop the key"
        )
    with pytest.raises(InputError, match="eur_per_kg"):
        spec(objective="min-carbon", rho_mean=0.7, deadline="36h", budget_g=None, eur_per_kg=1.0)
    with pytest.raises(InputError, match="eur_per_kg"):
        spec(eur_per_kg=-1.0)
