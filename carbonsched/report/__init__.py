"""Reports: one JSON document built from the ledger, and the formats rendered from it (docs/reports.md).

document    `Report` and `build`; its parts in `parts`, the two savings in `savings`, the walk over the rows in `scan`
render      `render(report, ledger, format)`: json, csv, html, codecarbon
"""

from carbonsched.report.document import Report, build
from carbonsched.report.render import MEDIA, Format, render

__all__ = ["MEDIA", "Format", "Report", "build", "render"]
