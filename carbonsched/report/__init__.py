"""Reports: one JSON document built from the ledger, and the formats rendered from it (docs/reports.md).

document    `Report` and `build`
timeline    the one walk over the rows, with the matching segments
parts       what a report is made of
savings     the FLOPs effect and the timing effect
render      `render(report, ledger, format)`, and `pieces` of what is long
csv         the rows behind a report
codecarbon  codecarbon's emissions.csv
html        a page for people
model_card  the model card of a job
"""

from carbonsched.report.document import Report, build
from carbonsched.report.render import MEDIA, Format, pieces, render

__all__ = ["MEDIA", "Format", "Report", "build", "pieces", "render"]
