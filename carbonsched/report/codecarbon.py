"""codecarbon's emissions.csv, one line per job, so that its dashboards and scripts can read carbonsched's runs.

As in codecarbon, energies are kWh and powers W including PUE, emissions are kilograms, and the rate is kg/s. Times are UTC. Each line covers its
job's own rows. RAM is listed separately if its power is a constant that the meter states. Unknown values (water, coordinates, utilisation, and
energy or emissions that no row knows) are left empty, not 0.
"""

import csv
import io
import platform
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from carbonsched.csv_text import neutral
from carbonsched.feeds.countries import Country, country_called
from carbonsched.ledger.ledger import Ledger
from carbonsched.ledger.totals import total
from carbonsched.report.document import Report
from carbonsched.report.format import ReportFormat
from carbonsched.units import J_PER_KWH, MJ_PER_J

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
_RAM: Final = re.compile(r"\+ram=([0-9.e+-]+)W")
"""In a meter's name: the assumed power of the memory."""
_SHARED: Final = re.compile(r"shared equally by (\d+) jobs")
_BY_CPU: Final = re.compile(r"split by CPU time, the idle share (?:shared by (\d+) jobs?|is the box's)")
"""In a row's reason: the assumed energy of the memory is part of the host's idle share."""


def emissions_csv(report: Report, ledger: Ledger) -> Iterator[str]:
    """One line for the job, or one for each job of the period, each as soon as its rows are summed: the head and the first come together."""
    ids = (report.job_id,) if report.job_id else tuple(job.name for job in report.jobs)
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for job_id in ids:
        line = _line(report, ledger, job_id)
        writer.writerow(
            {name: neutral(value) if isinstance(value, str) else value for name, value in line.items()}
        )
        yield out.getvalue()
        out.seek(0)
        out.truncate()
    if not ids:
        yield out.getvalue()


@dataclass(slots=True)
class _Used:
    """The known consumption of a part of the box."""

    facility_j: float = 0.0
    """Energy including PUE."""
    seconds: float = 0.0

    def add(self, joules: float, pue: float, seconds: float) -> None:
        self.facility_j += joules * pue
        self.seconds += seconds

    @property
    def kwh(self) -> float | str:
        return self.facility_j / J_PER_KWH if self.seconds else ""

    @property
    def watts(self) -> float | str:
        return self.facility_j / self.seconds if self.seconds else ""


@dataclass(slots=True)
class _Job:
    """The sums of a job's own rows."""

    parts: dict[str, _Used] = field(default_factory=lambda: {name: _Used() for name in ("cpu", "ram", "gpu")})
    boards: dict[str, _Used] = field(default_factory=dict)
    """By board, since the power of simultaneous boards is added up."""
    joules: float = 0.0
    facility_j: float = 0.0
    grams: float | None = None
    zones: dict[str, None] = field(default_factory=dict)
    pues: set[float] = field(default_factory=set)

    def add(self, row: Mapping[Any, Any]) -> None:
        if row["zone"] is not None:
            self.zones[row["zone"]] = None
        if row["energy_mj"] is None:
            return
        joules, pue, seconds = (
            row["energy_mj"] / MJ_PER_J,
            row["pue"],
            (row["end_us"] - row["start_us"]) / 1e6,
        )
        self.pues.add(pue)
        self.joules += joules
        self.facility_j += joules * pue
        if row["grams"] is not None:
            self.grams = (self.grams or 0.0) + row["grams"]
        if row["board"] != _HOST:
            self.boards.setdefault(row["board"], _Used()).add(joules, pue, seconds)
            self.parts["gpu"].add(joules, pue, seconds)
            return
        ram = _RAM.search(row["meter"])
        ram_j = 0.0 if ram is None or not row["power_w"] else _ram_j(row, float(ram[1]), joules, seconds)
        self.parts["cpu"].add(joules - ram_j, pue, seconds)
        if ram is not None:
            self.parts["ram"].add(ram_j, pue, seconds)

    @property
    def pue(self) -> float | str:
        """The mean by energy, if there were several."""
        if len(self.pues) == 1:
            return next(iter(self.pues))
        return self.facility_j / self.joules if self.joules else ""

    @property
    def gpu_w(self) -> float | str:
        known = [board.watts for board in self.boards.values() if isinstance(board.watts, float)]
        return sum(known) if known else ""


def _ram_j(row: Mapping[Any, Any], ram_w: float, joules: float, seconds: float) -> float:
    """The memory's part of a row: if several jobs used a host, a row has its share of the host and the same share of the memory."""
    reason = row["reason"] or ""
    if by_cpu := _BY_CPU.search(reason):
        return min(ram_w * seconds / int(by_cpu[1]), joules) if by_cpu[1] else 0.0
    shared = _SHARED.search(reason)
    whole_w = float(row["power_w"]) * (int(shared[1]) if shared else 1)
    return joules * min(ram_w / whole_w, 1.0)


def _line(report: Report, ledger: Ledger, job_id: str) -> dict[str, Any]:
    job, gone = ledger.job(job_id), ledger.replaced()
    sums, mine = total(ledger.groups(job_id, report.start, report.end)), _Job()
    for row in ledger.rows(job_id, report.start, report.end):
        if row["id"] not in gone:
            mine.add(row)
    starts = ledger.history(job_id, kinds=("started",))
    names = {board: name for entry in starts for board, name in entry.get("names", {}).items()}
    countries = {found.alpha_3: found for zone in mine.zones if (found := _country(zone)) is not None}
    country = next(iter(countries.values())) if len(countries) == 1 else None
    metered = mine.joules > 0 or any(part.seconds for part in mine.parts.values())
    models = Counter(names[board] for board in mine.boards if board in names)
    kilograms = None if mine.grams is None else mine.grams / 1000
    return {
        "timestamp": (sums.end or job.submitted_at).strftime("%Y-%m-%dT%H:%M:%S"),
        "project_name": job.spec.name,
        "run_id": job.id,
        "experiment_id": job.sha256,
        "duration": sums.seconds,
        "emissions": "" if kilograms is None else kilograms,
        "emissions_rate": kilograms / sums.seconds if kilograms is not None and sums.seconds else "",
        "cpu_power": mine.parts["cpu"].watts,
        "gpu_power": mine.gpu_w,
        "ram_power": mine.parts["ram"].watts,
        "cpu_energy": mine.parts["cpu"].kwh,
        "gpu_energy": mine.parts["gpu"].kwh,
        "ram_energy": mine.parts["ram"].kwh,
        "energy_consumed": mine.facility_j / J_PER_KWH if metered else "",
        "country_name": country.name if country else "",
        "country_iso_code": country.alpha_3 if country else "",
        "region": " ".join(mine.zones),
        "os": platform.platform(),
        "python_version": platform.python_version(),
        "codecarbon_version": _codecarbon_version(),
        "cpu_count": next((entry["cpus"] for entry in reversed(starts) if "cpus" in entry), ""),
        "cpu_model": names.get(_HOST, ""),
        "gpu_count": len(mine.boards),
        "gpu_model": "".join(f"{n} x {name}" for name, n in models.items()),
        "tracking_mode": "machine",
        "on_cloud": "N",
        "pue": mine.pue,
    }


def _country(zone: str) -> Country | None:
    """A zone is a country's code, or begins with one."""
    return country_called(zone) or country_called(zone.partition("-")[0])


def _codecarbon_version() -> str:
    """The version whose columns and host estimate these are."""
    try:
        return version("codecarbon")
    except PackageNotFoundError:
        return ""


CODECARBON: Final = ReportFormat("text/csv; charset=utf-8", emissions_csv)
