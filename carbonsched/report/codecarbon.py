"""codecarbon's emissions.csv, one line per job, so that its dashboards and scripts read our runs.

As there: energies are kWh and powers W with PUE in them, emissions are kilograms, the rate is kg/s. Times are UTC. What we do not know (CPU and RAM apart, water, cloud, coordinates) is left empty, not 0.
"""

import csv
import io
import platform
from typing import Any, Final

from carbonsched.ledger.ledger import Ledger
from carbonsched.ledger.totals import total
from carbonsched.report.document import Report
from carbonsched.report.format import ReportFormat
from carbonsched.report.parts import Sums

COLUMNS: Final = (
    "timestamp",
    "project_name",
    "run_id",
    "experiment_id",
    "duration",
    "emissions",
    "emissions_rate",
    "cpu_power",
    "gpu_power",
    "ram_power",
    "cpu_energy",
    "gpu_energy",
    "ram_energy",
    "energy_consumed",
    "water_consumed",
    "country_name",
    "country_iso_code",
    "region",
    "cloud_provider",
    "cloud_region",
    "os",
    "python_version",
    "codecarbon_version",
    "cpu_count",
    "cpu_model",
    "gpu_count",
    "gpu_model",
    "longitude",
    "latitude",
    "ram_total_size",
    "tracking_mode",
    "cpu_utilization_percent",
    "gpu_utilization_percent",
    "ram_utilization_percent",
    "ram_used_gb",
    "on_cloud",
    "pue",
    "wue",
)
_HOST: Final = "host"


def emissions_csv(report: Report, ledger: Ledger) -> str:
    """One line for the job, or one for each job of the period."""
    ids = (report.job_id,) if report.job_id else tuple(job.name for job in report.jobs)
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for job_id in ids:
        writer.writerow(_line(report, ledger, job_id))
    return out.getvalue()


def _line(report: Report, ledger: Ledger, job_id: str) -> dict[str, Any]:
    job = ledger.job(job_id)
    groups = ledger.groups(job_id, report.start, report.end)
    sums = Sums.of(total(groups))
    host = Sums.of(total(group for group in groups if group.board == _HOST))
    gpu = Sums.of(total(group for group in groups if group.board != _HOST))
    boards = {group.board for group in groups}
    energy_j = sum(use.energy_j for use in report.pues)
    pue = sum(use.pue * use.energy_j for use in report.pues) / energy_j if energy_j else None
    factor = pue or 1.0
    last = max((group.end for group in groups), default=job.submitted_at)
    zones = sorted({feed.zone for feed in report.feeds})
    return {
        "timestamp": last.strftime("%Y-%m-%dT%H:%M:%S"),
        "project_name": job.spec.name,
        "run_id": job.id,
        "experiment_id": job.sha256,
        "duration": sums.seconds,
        "emissions": sums.location_g / 1000,
        "emissions_rate": sums.location_g / 1000 / sums.seconds if sums.seconds else "",
        # host is CPU and RAM in one; where it was not metered both stay empty
        "cpu_power": host.power_w * factor if host.power_w is not None else "",
        "gpu_power": gpu.power_w * factor if gpu.power_w is not None else "",
        "cpu_energy": host.energy_kwh * factor if _HOST in boards else "",
        "gpu_energy": gpu.energy_kwh * factor if boards - {_HOST} else "",
        "energy_consumed": sums.energy_kwh * factor,
        "region": " ".join(zones),
        "os": platform.platform(),
        "python_version": platform.python_version(),
        "gpu_count": len(boards - {_HOST}),
        "gpu_model": " ".join(sorted(boards - {_HOST})),
        "tracking_mode": "machine",
        "pue": pue if pue is not None else "",
    }


CODECARBON: Final = ReportFormat("text/csv; charset=utf-8", emissions_csv)
