"""Finds a report format by its name and renders a report in it.

One table holds the formats that come with carbonsched; plugins add to it (`carbonsched.plugins`). A plugin is imported
only if its name is requested.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from carbonsched import plugins
from carbonsched.errors import InputError
from carbonsched.ledger.ledger import Ledger
from carbonsched.report.ai_act import AI_ACT
from carbonsched.report.boamps import BOAMPS
from carbonsched.report.codecarbon import CODECARBON
from carbonsched.report.csv import CSV
from carbonsched.report.document import Report
from carbonsched.report.esrs import ESRS
from carbonsched.report.format import ReportFormat
from carbonsched.report.html import HTML
from carbonsched.report.json import JSON
from carbonsched.report.markdown import MARKDOWN
from carbonsched.report.model_card import MODEL_CARD
from carbonsched.report.sci import SCI
from carbonsched.report.scope2 import SCOPE2
from carbonsched.report.spdx import SPDX

FORMATS: Final[Mapping[str, ReportFormat]] = {
    "json": JSON,
    "csv": CSV,
    "html": HTML,
    "markdown": MARKDOWN,
    "codecarbon": CODECARBON,
    "boamps": BOAMPS,
    "model-card": MODEL_CARD,
    "spdx": SPDX,
    "sci": SCI,
    "esrs": ESRS,
    "scope2": SCOPE2,
    "ai-act": AI_ACT,
}
"""The formats that come with carbonsched, by name. The command makes PDF from html (`carbonsched.report.pdf`)."""
PDF: Final = "pdf"


_WITH_EFFECTS: Final = ("json", "html", "markdown")


def shows_effects(name: str) -> bool:
    """Whether a period's report in that format contains its jobs' savings, which take time to compute. Formats of plugins may."""
    return name in _WITH_EFFECTS or name not in FORMATS


def names() -> tuple[str, ...]:
    """Every name that `find` knows: the built-in formats, then those of installed plugins."""
    return (*FORMATS, *plugins.names(plugins.REPORT_FORMATS, (*FORMATS, PDF)))


def find(name: str) -> ReportFormat:
    """The format of that name.

    Raises InputError in one line: there is none, with the existing names; or its plugin is broken, with the
    name of its distribution.
    """
    if name in FORMATS:
        return FORMATS[name]
    if name == PDF:
        raise InputError(
            "--format",
            "pdf is made of html by the command",
            "ask for html, or run carbonsched report --format pdf",
        )
    if name not in (known := names()):
        raise InputError("--format", f"there is no format {name!r}", f"choose one of {', '.join(known)}")
    return plugins.load(plugins.REPORT_FORMATS, name, _checked, FORMATS)


def pieces(report: Report, ledger: Ledger, name: str) -> Iterator[str]:
    """The report in the format of that name, piece by piece. Raises InputError; see `find`."""
    return find(name).pieces(report, ledger)


def render(report: Report, ledger: Ledger, name: str) -> str:
    """The same as one text."""
    return "".join(pieces(report, ledger, name))


def _checked(found: object) -> ReportFormat:
    if not isinstance(found, ReportFormat):
        raise TypeError(f"is a {type(found).__name__}; it must be a carbonsched.report.ReportFormat")
    return found
