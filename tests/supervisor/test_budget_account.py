"""Which grams a budget is charged: all energy at the grid's intensity, or with the site's own supply counted."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.rig import ME, Rig, spec

from carbonsched.cli.grid_supply import supplied
from carbonsched.config import Config
from carbonsched.errors import InputError
from carbonsched.ledger.settlements import Settlement
from carbonsched.model.energy import BudgetAccount
from carbonsched.model.grid import Basis, Kind
from carbonsched.power.base import Device
from carbonsched.report import build
from carbonsched.report.document import Report
from carbonsched.report.render import render

HALF = {"provider": "static", "share": 0.5, "g_per_kwh": 40, "source": "contract 17"}
FEED = {"provider": "static", "g_per_kwh": 400, "basis": "average-lifecycle", "source": "test"}
J_PER_G_LOCATION = 3.6e6 / 400
J_PER_G_ON_SITE = 3.6e6 / 220


def on_site(root: Path, account: str = "on-site", supply: dict[str, Any] | None = None) -> Rig:
    return Rig(root, extra={"budget_account": account, "supply": [supply or HALF]})


def trained(rig: Rig, seconds: float = 50) -> str:
    job = rig.running(spec(budget_g=100.0))
    job.ready(0)
    rig.run(seconds)
    rig.supervisor.flush()
    return str(job.id)


def accounts(rig: Rig) -> list[tuple[Any, Any]]:
    found = rig.ledger.history(None, kinds=("account",))
    return [(entry["budget_account"], entry["supply"]) for entry in found]


def reported(rig: Rig, job_id: str | None = None) -> Report:
    return build(rig.ledger, job_id, now=rig.clock.now())


@pytest.mark.parametrize(("account", "per_g"), [("location", J_PER_G_LOCATION), ("on-site", J_PER_G_ON_SITE)])
def test_both_accounts_are_told_and_one_is_charged(tmp_path: Path, account: str, per_g: float) -> None:
    rig = on_site(tmp_path, account)
    job_id = trained(rig)
    shown = rig.service.show(job_id, ME)
    assert shown.spent_g == pytest.approx(shown.energy_j / per_g)
    assert shown.location_g == pytest.approx(shown.energy_j / J_PER_G_LOCATION)
    assert shown.on_site_g == pytest.approx(shown.energy_j / J_PER_G_ON_SITE)
    assert rig.supervisor.runs[job_id].account.charged_g == pytest.approx(shown.spent_g)
    report = reported(rig, job_id)
    sums = report.totals
    assert (sums.spent_g, sums.location_g, sums.on_site_g, sums.supply_unknown_s) == (
        pytest.approx(shown.spent_g),
        pytest.approx(shown.location_g),
        pytest.approx(shown.on_site_g),
        0.0,
    )
    assert report.budget_accounts == (account,)
    assert report.timeline[-1].spent_g == pytest.approx(sums.spent_g)
    assert report.job is not None
    assert report.job.left_g == pytest.approx(100.0 - sums.spent_g)
    assert any(f"({account})" in note for note in report.notes if note.startswith("Two accounts"))
    assert "with the site's own supply counted" in render(report, rig.ledger, "html").replace("&#39;", "'")
    assert "on_site_grams" in render(report, rig.ledger, "csv")
    assert accounts(rig) == [(account, ["static"])]
    assert rig.ledger.verify().ok


def parts(report: Report) -> list[tuple[float, float]]:
    """(as decided, as settled) of whatever has both by the charged account."""
    sums = [
        report.totals,
        *(part.sums for part in (*report.boards, *report.methods, *report.accounts, *report.jobs)),
    ]
    found = [(each.spent_g, each.settled_g) for each in sums]
    return found + [(line.spent_g, line.settled_g) for line in report.segments]


@pytest.mark.parametrize(("account", "settled"), [("location", 500.0), ("on-site", 0.5 * 500 + 0.5 * 40)])
def test_what_was_settled_is_of_the_account_that_was_charged(
    tmp_path: Path, account: str, settled: float
) -> None:
    rig = on_site(tmp_path, account)
    job_id = trained(rig)
    before = reported(rig, job_id)
    for report in (before, reported(rig)):
        assert all(spent == as_settled for spent, as_settled in parts(report)), "to the last bit"
        assert (report.settled.spent_g, report.settled.difference_g) == (report.totals.spent_g, 0.0)
        assert all(feed.settled_g == feed.spent_g for feed in report.feeds)
    rows = list(rig.ledger.rows(job_id))
    whole = Settlement(
        start_us=min(row["start_us"] for row in rows) - 1,
        end_us=max(row["end_us"] for row in rows) + 1,
        g_per_kwh=500.0,
        provider="neso",
        zone=rows[0]["zone"],
        zones=(rows[0]["zone"],),
        basis=Basis(rows[0]["basis"]),
        kind=Kind.ACTUAL,
        note="",
        issued_at=None,
        fetched_at="2026-11-21T10:00:00.000000Z",
        body_sha256=None,
        was=(400.0, "static", Kind.STATIC),
    )
    rig.ledger.note(None, "settled", whole.detail(), "daemon", rig.clock.now())
    after = reported(rig, job_id)
    assert after.totals.spent_g == before.totals.spent_g
    assert after.settled.spent_g == pytest.approx(after.totals.energy_j / 3.6e6 * settled)
    assert after.settled.spent_g == pytest.approx(after.totals.settled_g)
    decided = 400.0 if account == "location" else 220.0
    assert all(s == pytest.approx(d * settled / decided) for d, s in parts(after))
    [use] = after.settled.uses
    assert (use.spent_g, use.settled_g) == (
        pytest.approx(after.totals.spent_g),
        pytest.approx(after.settled.spent_g),
    )
    [feed] = after.feeds
    assert feed.settled_g == pytest.approx(feed.spent_g * 500 / 400), "a feed is told at the grid's intensity"


def test_a_restarted_daemon_has_the_same_account_and_notes_nothing_anew(tmp_path: Path) -> None:
    rig = on_site(tmp_path)
    job_id = trained(rig)
    before = rig.supervisor.runs[job_id].account
    rig.die()
    rig.boot()
    after = rig.supervisor.runs[job_id].account
    assert (after.spent_g, after.location_g, after.on_site_g, after.supplied) == (
        pytest.approx(before.spent_g),
        pytest.approx(before.location_g),
        pytest.approx(before.on_site_g),
        True,
    )
    assert len(accounts(rig)) == 1


def test_a_change_of_the_account_holds_from_the_next_row_on(tmp_path: Path) -> None:
    rig = on_site(tmp_path)
    job_id = trained(rig)
    first = rig.service.show(job_id, ME)
    rig.supervisor.reconfigure(rig.config.model_copy(update={"budget_account": BudgetAccount.LOCATION}))
    rig.run(50)
    rig.supervisor.flush()
    second = rig.service.show(job_id, ME)
    more_j = second.energy_j - first.energy_j
    assert second.spent_g == pytest.approx(first.spent_g + more_j / J_PER_G_LOCATION)
    assert second.on_site_g == pytest.approx(second.energy_j / J_PER_G_ON_SITE)
    report = reported(rig, job_id)
    assert report.totals.spent_g == pytest.approx(second.spent_g)
    assert report.timeline[-1].spent_g == pytest.approx(second.spent_g)
    assert report.budget_accounts == ("on-site", "location")
    assert [account for account, _ in accounts(rig)] == ["on-site", "location"]
    rig.die()
    rig.boot()
    assert rig.supervisor.runs[job_id].account.spent_g == pytest.approx(second.spent_g)
    # its config on disk says on-site still: from the next row on it is that again
    assert [account for account, _ in accounts(rig)] == ["on-site", "location", "on-site"]


def test_effects_are_of_the_grids_intensity_whatever_is_charged(tmp_path: Path) -> None:
    """Else the roof's part would pass for the effect of timing."""
    rig = on_site(tmp_path)
    job = rig.running(spec(budget_g=100.0))
    list(job.play(0))
    rig.run(5)
    rig.supervisor.flush()
    report = reported(rig, job.id)
    assert report.savings is not None
    assert report.savings.timing.saved_g == pytest.approx(0.0, abs=1e-9)


def test_for_how_long_the_supply_was_not_known_is_told(tmp_path: Path) -> None:
    (tmp_path / "roof.csv").write_text("datetime,share\n2026-01-01T00:00Z,0.5\n2026-01-01T01:00Z,0.5\n")
    supply = {
        "provider": "replay",
        "file": str(tmp_path / "roof.csv"),
        "g_per_kwh": 40,
        "source": "x",
        "max_age": 1,
    }
    rig = on_site(tmp_path, supply=supply | {"hour_s": 5.0})
    job = rig.running(spec(budget_g=100.0))
    job.ready(0)
    rig.run(60)  # it is polled once, at the start, and knows a minute of the future at most
    rig.supervisor.flush()
    report, shown = reported(rig, job.id), rig.service.show(job.id, ME)
    unknown_s = report.totals.supply_unknown_s
    assert 0 < unknown_s < report.totals.seconds
    assert any(f"For {unknown_s:.0f} s it was not known" in note for note in report.notes)
    assert (shown.on_site_g or 0) < (shown.location_g or 0)
    assert shown.spent_g == shown.on_site_g
    assert rig.supervisor.control.estimates.grid.forecast().now_g_per_kwh == 400.0


@pytest.mark.parametrize(
    ("supply", "words"),
    [
        (
            HALF,
            "50.0% of the box's energy now (static, a constant: estimated, 40 g/kWh: contract 17)",
        ),
        (
            {"provider": "static", "kw": 0.02, "kind": "solar", "source": "roof"},
            "0.02 kW, 20.0% of the box's energy now (static, a constant: estimated, roof; solar; 44.5 g/kWh",
        ),
    ],
)
def test_grid_shows_the_supply_and_the_journal_its_feeds(
    tmp_path: Path, supply: dict[str, Any], words: str
) -> None:
    rig = on_site(tmp_path, supply=supply)
    rig.run(3)
    view = rig.service.grid(0).supply
    assert view is not None
    assert supplied(view).startswith(words)
    told = [entry for entry in rig.ledger.history(None, kinds=("feed",)) if entry.get("of") == "supply"]
    assert [(entry["name"], entry["state"]) for entry in told] == [("static", "ok")]


def test_without_a_supply_nothing_is_noted_and_nothing_told(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    job_id = trained(rig, 20)
    shown, report = rig.service.show(job_id, ME), reported(rig, job_id)
    assert (shown.on_site_g, report.totals.on_site_g) == (None, None)
    assert shown.location_g == shown.spent_g
    assert accounts(rig) == []
    assert not any("account" in note for note in report.notes)
    assert rig.service.grid(0).supply is None


def test_the_planner_reckons_with_the_supply_as_far_as_it_holds(tmp_path: Path) -> None:
    (tmp_path / "roof.csv").write_text("datetime,share\n2026-01-01T00:00Z,0.5\n2026-01-01T01:00Z,0.5\n")
    keys = {"provider": "replay", "file": str(tmp_path / "roof.csv"), "g_per_kwh": 40, "source": "x"}
    for account in ("on-site", "location"):
        rig = on_site(tmp_path / account, account, keys | {"max_age": "2h", "anchor": "2026-11-01T12:00:00Z"})
        rig.supervisor.supply.poll()
        grid = rig.supervisor.control.estimates.grid.forecast()
        assert grid.now_g_per_kwh == (220.0 if account == "on-site" else 400.0)
        holds_s = 3 * 3600.0  # the hour it is of, and two more
        for slot in grid.slots:
            assert slot.high == 400.0, "the guard's worst is the grid's"
            mixed = slot.start_s < holds_s and account == "on-site"
            assert slot.g_per_kwh == pytest.approx(220.0 if mixed else 400.0)
        edges = [slot.end_s for slot in grid.slots]
        assert (pytest.approx(holds_s) in edges) is (account == "on-site"), (
            "of a constant one slot, cut there"
        )
        assert [slot.start_s for slot in grid.slots[1:]] == edges[:-1]


def test_a_power_is_reckoned_at_the_most_that_the_box_drew(tmp_path: Path) -> None:
    supply = {"provider": "static", "kw": 0.05, "kind": "solar", "source": "the roof"}
    rig = on_site(tmp_path, supply=supply)
    assert rig.supervisor.supply.expected() is None, "nobody has told what the box draws"
    rig.run(5)
    expected = rig.supervisor.supply.expected()
    assert expected is not None
    assert (expected.share, expected.g_per_kwh) == (pytest.approx(0.5), 44.5)
    assert expected.until > rig.clock.now() + timedelta(hours=1)


@pytest.mark.parametrize(
    ("supply", "doubt"),
    [
        ({"kw": 150}, "150 kW is 1500 times the 0.1 kW that the box draws at most: is it in W?"),
        ({"kw": 2.1}, "2.1 kW is 21 times the 0.1 kW that the box draws at most: is it in W?"),
        ({"kw": 1.9}, None),
        ({"share": 1.0}, None),
    ],
)
def test_a_power_far_beyond_the_box_is_doubted_where_it_is_shown_and_once_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, supply: dict[str, Any], doubt: str | None
) -> None:
    rig = on_site(tmp_path, supply={"provider": "static", "kind": "solar", "source": "roof"} | supply)
    rig.run(5)
    view = rig.service.grid(0).supply
    assert view is not None
    assert view.doubt == doubt
    assert ("is it in W?" in supplied(view)) is (doubt is not None)
    said = [record.getMessage() for record in caplog.records if "is it in W?" in record.getMessage()]
    assert said == ([] if doubt is None else [f"the supply of static: {doubt}"])
    # what the box is rated at counts before it draws it
    rated = replace(rig.supervisor.supply, devices=[Device("a100", "gpu", "A100", watts_limit=400_000.0)])
    shown = rated.view()
    assert shown is not None
    assert shown.doubt is None


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"supply": []}, "has no supply of its own"),
        ({"supply": [HALF | {"g_per_kwh": 1500}]}, "above zone.worst_g_per_kwh"),
        ({"budget_account": "market"}, "location"),
    ],
)
def test_an_account_that_cannot_be_is_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError) as told:
        Config.parse({"feeds": [FEED], "supply": [HALF], "budget_account": "on-site"} | change)
    assert told.value.field == "budget_account"
    assert problem in told.value.problem
