"""BoAmps: what we write is what its schema, re-typed as models, takes, with camelCase names and the schema's required ones."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from support.job_history import submitted, write_history

from carbonsched.errors import InputError
from carbonsched.ledger import Ledger
from carbonsched.report import build, render
from carbonsched.report.boamps import BoAmps, Dataset


def test_a_jobs_report_is_one_and_its_energy_is_the_ledgers(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'l.db'}") as ledger:
        end = write_history(ledger, submitted(budget_g=1300))
        report = build(ledger, "scitldr-1", now=end + timedelta(minutes=1))
        text = render(report, ledger, "boamps")
    document = BoAmps.model_validate_json(text)
    assert sum(m.power_consumption for m in document.measures) == pytest.approx(report.totals.energy_kwh)
    told = json.loads(text)
    assert set(told) >= {"header", "task", "measures", "infrastructure"}
    assert told["task"]["taskStage"] == "finetuning"
    assert {"measurementMethod", "powerConsumption"} <= set(told["measures"][0])
    assert {"componentType", "nbComponent"} <= set(told["infrastructure"]["components"][0])
    assert told["header"]["publisher"]["confidentialityLevel"] == "internal"
    assert told["environment"]["country"] == "United Kingdom"
    assert "quality" not in told, "of 4 minutes it is not known"
    assert "null" not in text


def test_what_the_schema_does_not_know_is_refused() -> None:
    with pytest.raises(InputError, match="dataUsage"):
        Dataset.parse({"dataUsage": "both", "dataType": "text"})
    with pytest.raises(InputError, match=r"task\.taskStage: is missing"):
        BoAmps.parse({"task": {}, "infrastructure": {}})
