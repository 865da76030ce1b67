"""Reports: one JSON document built from the ledger, and the formats rendered from it (docs/reports.md).

document    `Report` and `build`
notes       what a reader must not overlook
timeline    the one walk over the rows, with the matching segments
parts       what a report is made of
settled     the account as settled beside the one as decided
provenance  how energy and intensities came to be known
spending    what the energy cost
boundary    what of a box is metered, and what is not
clocks      the clocks effect
savings     the waste effect and the FLOPs effect
timing      the effect of the hours, against running at once
format      what a report format is
render      finds a format by its name, plugins included, and renders a report in it
json        the document
csv         the rows behind a report
codecarbon  codecarbon's emissions.csv
html        a page for people
model_card  the model card of a job
"""

from carbonsched.report.document import Report, build
from carbonsched.report.format import ReportFormat
from carbonsched.report.render import find, names, pieces, render

__all__ = ["Report", "ReportFormat", "build", "find", "names", "pieces", "render"]
