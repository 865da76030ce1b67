"""The report as one HTML page that needs nothing else."""

from carbonsched.report.document import Report


def page(report: Report) -> str:
    raise NotImplementedError
