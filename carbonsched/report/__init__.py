"""Reports: one JSON document built from the ledger, and the formats rendered from it (docs/reports.md).

The document:

document    `Report` and `build`
parts       the parts of a report's document
timeline    gathers the sums of hours, and computes the curve over time
disclosed   gathers the disclosures of a report beside its sums
notes       sentences that a reader must not miss
losses      held-out losses, measured and predicted
coverage    the share of the requested time that is covered
provenance  how energy and intensities were determined
boundary    which parts of the box are metered
settled     the settled account beside the decided one
market      market-based emissions beside location-based ones
bands       uncertainty of energy and grams
energy_cost  the cost of the energy
compute     FLOPs, embodied emissions, SCI
statement   how the report was made, of which box, and the signed hashes
from_ledger  a report of a ledger that is only read, without a daemon

Savings:

effects     the documents of the effects, each separate
job_savings  gathers and computes all effects of a job
savings     the waste effect and the FLOPs effect
clocks      the clocks effect
timing      the effect of the hours, against running at once
period_effects  the effects of a period's jobs, summed

Formats:

format      the definition of a report format
render      finds a format by its name, plugins included, and renders a report in it
json        the document
csv         the rows behind a report
codecarbon  codecarbon's emissions.csv
html        a page for people
markdown    the page as Markdown
pdf         the page as PDF, made by the command
model_card  the model card of a job
boamps      Boavizta's data model, as models of our own
spdx        SPDX 3.0.1's AI package
datapoints  data points with unit, quality and source, used by the next four
sci         ISO/IEC 21031
esrs        ESRS E1-5 and E1-6
scope2      GHG Protocol Scope 2
ai_act      the EU AI Act's threshold for fine-tuning
"""

from carbonsched.report.document import Report, build
from carbonsched.report.format import ReportFormat
from carbonsched.report.parts import Selection
from carbonsched.report.render import find, names, pieces, render

__all__ = ["Report", "ReportFormat", "Selection", "build", "find", "names", "pieces", "render"]
