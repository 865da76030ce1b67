"""The page as PDF, made by the command and not by the daemon, with weasyprint, an extra (`pip install "carbonsched[pdf]"`).

weasyprint does not apply a page's style to its drawings, so each chart gets its rules, in the colours for paper.
"""

import importlib
import logging
import re
from typing import Any, Final

from carbonsched.errors import InputError

FIELD: Final = "--format"
_MEND: Final = 'pip install "carbonsched[pdf]" (and the system\'s pango), or take html, which prints'
_CHART_RULE: Final = re.compile(r"(\.chart [^{}]+)(\{[^}]*\})")
_PALETTE: Final = re.compile(r"(--[a-z0-9]+): ([^;]+);")
_VARIABLE: Final = re.compile(r"var\((--[a-z0-9]+)\)")
_FONT: Final = re.compile(r"font: ([0-9.]+px) [^;}]*")


def pdf(page: str) -> bytes:
    """The PDF of a report's html, which loads nothing. Raises InputError if weasyprint is missing or finds no pango."""
    weasyprint = renderer()
    logging.getLogger("weasyprint").setLevel(logging.ERROR)
    return bytes(weasyprint.HTML(string=with_styled_charts(page), url_fetcher=_nothing).write_pdf())


def renderer() -> Any:
    """weasyprint. Raises InputError if it is not available."""
    try:
        return importlib.import_module("weasyprint")
    except (ImportError, OSError) as e:  # OSError: the library is installed, pango is not
        raise InputError(FIELD, f"pdf needs weasyprint, which is not to be had ({e})", _MEND) from e


def with_styled_charts(page: str) -> str:
    """The page with its rules copied into each drawing."""
    style = page.partition("<style>")[2].partition("</style>")[0]
    colours = dict(_PALETTE.findall(style))  # those for paper are last
    rules = [
        ",".join(part.strip().removeprefix(".chart ") for part in names.split(",")) + body
        for names, body in _CHART_RULE.findall(style)
    ]
    own = _VARIABLE.sub(lambda found: colours.get(found[1], "#000"), "".join(rules))
    own = _FONT.sub(r"font-size: \1; font-family: sans-serif", own)
    return re.sub(r"(<svg[^>]*>)", lambda found: f"{found[1]}<style>{own}</style>", page)


def _nothing(url: str, *_args: Any, **_more: Any) -> dict[str, Any]:
    raise ValueError(f"a report loads nothing, not even {url[:80]}")
