"""SPDX 3.0.1 (AI profile, JSON-LD) of one job's model: the energy of its fine-tuning, in kWh, with its method.

Unknown values are left out: SPDX has no value for them. `software_downloadLocation` is left to the publisher of the model.
"""

import json
from decimal import Decimal
from typing import Any, Final

from carbonsched import __version__
from carbonsched.errors import InputError
from carbonsched.ledger.ledger import Ledger
from carbonsched.report.document import Report
from carbonsched.report.format import ReportFormat
from carbonsched.report.parts import JobPart
from carbonsched.report.provenance import energy_words
from carbonsched.units import J_PER_KWH

CONTEXT: Final = "https://spdx.org/rdf/3.0.1/spdx-context.jsonld"
_INFO: Final = "_:creationinfo"
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"
_KEPT: Final = ("method", "epochs", "max_steps", "batch_size", "lr", "optimizer", "scheduler", "seed")


def spdx(report: Report, _ledger: Ledger) -> str:
    """Raises InputError for the report of a period: a package covers one model."""
    job = report.job
    if job is None:
        raise InputError("--format", "spdx is of one job", "give --job ID")
    base = f"urn:carbonsched:{job.id}"
    document, package, agent, tool = (f"{base}:{name}" for name in ("document", "model", "owner", "tool"))
    who = report.statement.organisation if report.statement else None
    graph: list[dict[str, Any]] = [
        {
            "type": "CreationInfo",
            "@id": _INFO,
            "specVersion": "3.0.1",
            "created": report.created_at.strftime(_TIME),
            "createdBy": [agent],
            "createdUsing": [tool],
        },
        {
            "type": "Organization" if who else "Agent",
            "spdxId": agent,
            "creationInfo": _INFO,
            "name": who or job.owner,
        },
        {"type": "Tool", "spdxId": tool, "creationInfo": _INFO, "name": f"carbonsched {__version__}"},
        _package(report, job, package, agent),
        {
            "type": "SpdxDocument",
            "spdxId": document,
            "creationInfo": _INFO,
            "name": f"energy of fine-tuning {job.name}",
            "profileConformance": ["core", "software", "ai"],
            "rootElement": [package],
            "element": [agent, tool, package],
        },
    ]
    return json.dumps({"@context": CONTEXT, "@graph": graph}, indent=2, ensure_ascii=False) + "\n"


def _package(report: Report, job: JobPart, package: str, agent: str) -> dict[str, Any]:
    done = report.compute
    metrics = {"gCO2e": _grams(report), "executed FLOP": None if done is None else f"{done.flop:.6g}"}
    if (last := next((v for v in reversed(report.validation) if v.when == "after"), None)) is not None:
        metrics["held-out loss, nats a token"] = f"{last.loss:.6g}"
    train = job.spec.train.model_dump()
    found: dict[str, Any] = {
        "type": "ai_AIPackage",
        "spdxId": package,
        "creationInfo": _INFO,
        "name": job.name,
        "software_packageVersion": job.id,
        "software_primaryPurpose": "model",
        "suppliedBy": agent,
        "releaseTime": (job.ended_at or report.created_at).strftime(_TIME),
        "ai_informationAboutTraining": _about(report, job),
        "ai_hyperparameter": _entries({n: None if train[n] is None else str(train[n]) for n in _KEPT}),
    }
    if entries := _entries(metrics):
        found["ai_metric"] = entries
    if (kwh := _quantity(report)) is not None:
        found["ai_energyConsumption"] = {
            "type": "ai_EnergyConsumption",
            "ai_finetuningEnergyConsumption": [
                {
                    "type": "ai_EnergyConsumptionDescription",
                    "ai_energyQuantity": kwh,
                    "ai_energyUnit": "kilowattHour",
                }
            ],
        }
    return found


def _quantity(report: Report) -> str | None:
    """A decimal without an exponent, as required by xsd:decimal; None: no energy is known."""
    if report.totals.energy_j <= 0:
        return None
    return f"{Decimal(repr(report.totals.energy_kwh)):f}"


def _grams(report: Report) -> str | None:
    sums = report.totals
    return None if sums.unknown else f"{sums.location_g:.6g}"


def _about(report: Report, job: JobPart) -> str:
    sums = report.totals
    parts = [
        f"Fine-tuned from {job.spec.model.name_or_path} on {job.spec.data.name_or_path}.",
        f"Energy without PUE: {energy_words(report.methods)}.",
        report.boundary.sentence,
    ]
    if sums.unknown_s > 0:
        parts.append(f"At least: for {sums.unknown_s:.0f} s energy or intensity is not known.")
    if (found := report.bands) is not None and sums.energy_j > 0:
        low, high = (joules / J_PER_KWH for joules in (found.energy_low_j, found.energy_high_j))
        parts.append(f"Energy between {low:.6g} and {high:.6g} kWh ({found.source}).")
    return " ".join(parts)


def _entries(values: dict[str, str | None]) -> list[dict[str, str]]:
    return [
        {"type": "DictionaryEntry", "key": key, "value": value}
        for key, value in values.items()
        if value is not None
    ]


SPDX: Final = ReportFormat("application/ld+json", spdx)
