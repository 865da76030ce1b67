"""The tables for those who must disclose: units, unknown as unknown, sources, and the figures of the report itself."""

import csv
import io
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from support.job_history import T0, interval, submitted, write_history

from carbonsched.errors import InputError
from carbonsched.ledger import Ledger
from carbonsched.model.accounting import Accounting, BaseModelCompute, Contract, Stated
from carbonsched.report import Report, build, render
from carbonsched.report.datapoints import COLUMNS, Line, lines_csv

STATED = Stated(
    accounting=Accounting(
        organisation="ACME",
        embodied_kg=150,
        embodied_low_kg=60,
        embodied_high_kg=318,
        embodied_life_h=26280,
        embodied_source="Boavizta",
        plug_factor=1.1,
        plug_source="80 PLUS sheet",
    ),
    contracts=(
        Contract(
            name="PPA", start=T0, end=T0 + timedelta(days=9), g_per_kwh=0, renewable=True, source="4711"
        ),
    ),
)
History = tuple[Ledger, Report]
TABLES = ("sci", "esrs", "scope2", "ai-act")


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    with Ledger.open(f"sqlite:///{tmp_path_factory.mktemp('history') / 'ledger.db'}") as ledger:
        end = write_history(ledger, submitted(budget_g=1300))
        yield ledger, build(ledger, "scitldr-1", now=end, stated=STATED)


def lines(text: str) -> dict[str, dict[str, str]]:
    return {line["datapoint"]: line for line in csv.DictReader(io.StringIO(text))}


def test_the_tables_tell_the_reports_own_figures(history: History) -> None:
    ledger, report = history
    sums = report.totals
    found = {name: lines(render(report, ledger, name)) for name in TABLES}
    assert float(found["scope2"]["Scope 2, location-based"]["value"]) == pytest.approx(sums.location_g / 1000)
    assert float(found["scope2"]["Scope 2, market-based"]["value"]) == 0, "all of it is under contract"
    assert float(found["esrs"]["E1-5 total energy consumption"]["value"]) == pytest.approx(
        report.facility_kwh / 1000
    )
    assert float(found["esrs"]["E1-6 gross location-based Scope 2"]["value"]) == pytest.approx(
        sums.location_g / 1e6
    )
    made = report.embodied
    assert made is not None
    assert made.spent_g == pytest.approx(150_000 * made.board_h / 26280)
    assert (made.low_g / made.spent_g, made.high_g / made.spent_g) == pytest.approx((60 / 150, 318 / 150))
    flop = sum(s.flops for s in report.segments)
    assert float(found["sci"]["SCI per executed FLOP"]["value"]) == pytest.approx(
        (sums.location_g + made.spent_g) / flop
    )
    assert float(found["ai-act"]["FLOP executed in fine-tuning"]["value"]) == pytest.approx(flop)
    assert float(found["ai-act"]["threshold"]["value"]) == 3.3e22
    assert found["ai-act"]["above the threshold"]["value"] == "no"
    for table in found.values():
        for line in table.values():
            assert line["source"] or line["quality"] == "unknown", line
            assert line["note"] or line["value"] or line["datapoint"] in ("site",), line
    assert found["ai-act"]["training compute of the base model"]["quality"] == "unknown"


def test_a_stated_base_model_sets_the_threshold_to_its_third(history: History) -> None:
    ledger, _ = history
    base = BaseModelCompute(name="HuggingFaceTB/SmolLM2-135M", flop=3e17, source="6·N·D")
    report = build(ledger, "scitldr-1", now=T0 + timedelta(days=1), stated=Stated(base_models=(base,)))
    found = lines(render(report, ledger, "ai-act"))
    assert (float(found["threshold"]["value"]), found["above the threshold"]["value"]) == (1e17, "yes")
    assert found["training compute of the base model"]["source"] == "6·N·D"


def test_bands_are_of_each_methods_error_and_the_plug_stands_beside(history: History) -> None:
    _, report = history
    assert report.bands is not None
    counted, modelled = (part.energy_j for part in report.bands.parts)
    assert report.bands.energy_high_j - report.totals.energy_j == pytest.approx(
        0.05 * counted + 0.3 * modelled
    )
    assert report.totals.energy_j - report.bands.energy_low_j == pytest.approx(
        0.05 * counted + 0.3 * modelled
    )
    assert report.plug is not None
    assert report.plug.energy_kwh == pytest.approx(report.totals.energy_kwh * 1.1)
    assert report.facility_kwh == pytest.approx(report.totals.energy_kwh * 1.2), (
        "the plug's factor is in no sum"
    )


def test_nothing_known_is_unknown_in_every_table(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'l.db'}") as ledger:
        ledger.add_job(submitted())
        ledger.append([interval(T0, 10, None, job_id="scitldr-1", g_per_kwh=None)])
        report = build(ledger, "scitldr-1", now=T0 + timedelta(seconds=10))
        for name, point in (
            ("scope2", "Scope 2, location-based"),
            ("esrs", "E1-6 gross location-based Scope 2"),
            ("sci", "SCI per job"),
            ("ai-act", "FLOP executed in fine-tuning"),
        ):
            line = lines(render(report, ledger, name))[point]
            assert (line["value"], line["quality"]) == ("", "unknown"), name
        with pytest.raises(InputError, match="none of scitldr-1 is known"):
            render(report, ledger, "boamps")
        assert "ai_energyConsumption" not in render(report, ledger, "spdx")


def test_a_period_has_no_line_of_one_job(history: History) -> None:
    ledger, _ = history
    report = build(ledger, start=T0, end=T0 + timedelta(days=1), now=T0 + timedelta(days=2))
    for name in ("ai-act", "boamps", "spdx"):
        with pytest.raises(InputError, match="is of one job; give --job ID"):
            render(report, ledger, name)
    assert lines(render(report, ledger, "sci"))["SCI per step"]["note"] == "of a job alone"


def test_what_a_spreadsheet_takes_for_a_formula_is_text() -> None:
    (head, row) = csv.reader(io.StringIO(lines_csv([Line("=1+1", -2.5, "@SUM(A1)", "stated", "+x", "\t-y")])))
    assert head == list(COLUMNS)
    assert row == ["'=1+1", "-2.5", "'@SUM(A1)", "stated", "'+x", "'\t-y"]
