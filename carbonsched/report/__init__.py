"""Reports: one JSON document built from the ledger, and the formats rendered from it (docs/reports.md).

The document:

document    `Report` and `build`
parts       the parts of a report's document
timeline    gathers the sums of hours, and draws the curve
disclosed   gathers what a report discloses beside its sums
notes       what a reader must not overlook
losses      held-out losses, measured and forecast
coverage    how much of the time asked for is covered
provenance  how energy and intensities became known
boundary    which parts of the box are metered
settled     the account as settled beside the one as decided
market      market-based emissions beside location-based ones
bands       uncertainty of energy and grams
energy_cost  what the energy cost
compute     FLOPs, embodied emissions, SCI
statement   how the report was made, of which box, and what is signed
from_ledger  a report of a ledger that is only read, without a daemon

What was saved:

effects     what was saved, each effect apart
job_savings  gathers and computes all effects of a job
savings     the waste effect and the FLOPs effect
clocks      the clocks effect
timing      the effect of the hours, against running at once
period_effects  the effects of a period's jobs, summed

Formats:

format      what a report format is
render      finds a format by its name, plugins included, and renders a report in it
json        the document
csv         the rows behind a report
codecarbon  codecarbon's emissions.csv
html        a page for people
markdown    the page as Markdown
pdf         the page as PDF, where the command runs
model_card  the model card of a job
boamps      Boavizta's data model, re-typed
spdx        SPDX 3.0.1's AI package
datapoints  data points with unit, quality and source, which the next four are made of
sci         ISO/IEC 21031
esrs        ESRS E1-5 and E1-6
scope2      GHG Protocol Scope 2
ai_act      the EU AI Act's threshold for who fine-tunes
"""

from carbonsched.report.document import Report, build
from carbonsched.report.format import ReportFormat
from carbonsched.report.parts import Selection
from carbonsched.report.render import find, names, pieces, render

__all__ = ["Report", "ReportFormat", "Selection", "build", "find", "names", "pieces", "render"]
