"""SPDX 3.0.1: the terms of the specification, a decimal without an exponent, elements that refer to each other."""

import json
import re
from pathlib import Path

from support.job_history import T0, interval, submitted

from carbonsched.ledger import Ledger
from carbonsched.report import build, render
from carbonsched.report.spdx import CONTEXT


def test_energy_is_told_in_the_terms_of_3_0_1(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'l.db'}") as ledger:
        ledger.add_job(submitted())
        ledger.append([interval(T0, 10, 36, job_id="scitldr-1", counter=0)])
        report = build(ledger, "scitldr-1", now=T0)
        document = json.loads(render(report, ledger, "spdx"))
    assert document["@context"] == CONTEXT
    by_type = {element["type"]: element for element in document["@graph"]}
    (energy,) = by_type["ai_AIPackage"]["ai_energyConsumption"]["ai_finetuningEnergyConsumption"]
    assert energy["type"] == "ai_EnergyConsumptionDescription"
    assert (energy["ai_energyQuantity"], energy["ai_energyUnit"]) == ("0.00000001", "kilowattHour")
    assert by_type["ai_AIPackage"]["ai_energyConsumption"]["type"] == "ai_EnergyConsumption"
    assert by_type["CreationInfo"]["specVersion"] == "3.0.1"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", by_type["CreationInfo"]["created"])
    ids = {element.get("spdxId") for element in document["@graph"]}
    root = by_type["SpdxDocument"]
    assert {*root["element"], *root["rootElement"], by_type["ai_AIPackage"]["suppliedBy"]} <= ids
    for needed in ("software_packageVersion", "software_primaryPurpose", "releaseTime", "suppliedBy"):
        assert by_type["ai_AIPackage"][needed]
