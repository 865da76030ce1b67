"""A report format for a chat or a log: one line of text.

carbonsched report --job ID --format example-line
"""

from carbonsched.ledger.ledger import Ledger
from carbonsched.report import Report, ReportFormat


def write(report: Report, ledger: Ledger) -> str:
    """The sums in one line. What is not known is said: it is in no sum."""
    sums = report.totals
    what = report.job_id or "all jobs and idle time"
    unknown = f", {sums.unknown_s:.0f} s unknown" if sums.unknown_s else ""
    estimated = " (estimated)" if sums.estimated else ""
    return f"{what}: {sums.spent_g:.4f} gCO2e, {sums.energy_kwh:.6f} kWh{estimated}{unknown}\n"


LINE = ReportFormat("text/plain; charset=utf-8", write)
