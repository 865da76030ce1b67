"""Reports: one JSON document built from the ledger, and the formats rendered from it (docs/reports.md).

document    `Report` and `build`
notes       what a reader must not overlook
timeline    gathers the sums of hours, and draws the curve
parts       what a report is made of
effects     of these what was saved, each effect apart
losses      of these the held-out losses, seen and foretold
settled     the account as settled beside the one as decided
provenance  how energy and intensities came to be known
energy_cost  what the energy cost
boundary    what of a box is metered, and what is not
clocks      the clocks effect
job_savings  gathers and computes all effects of a job
period_effects  those of a period's jobs, summed
savings     the waste effect and the FLOPs effect
timing      the effect of the hours, against running at once
coverage    how much of the time asked for is covered
bands       how far energy and grams may be off
market      emissions by contracts, beside those by the grid
compute     FLOPs, the hardware's making, SCI
statement   how a report was made, of which box, and what is signed
disclosed   gathers what stands beside the sums
from_ledger  a report of a ledger that is only read, without a daemon
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
ai_act      the EU AI Act's line for who fine-tunes
"""

from carbonsched.report.document import Report, build
from carbonsched.report.format import ReportFormat
from carbonsched.report.parts import Selection
from carbonsched.report.render import find, names, pieces, render

__all__ = ["Report", "ReportFormat", "Selection", "build", "find", "names", "pieces", "render"]
