"""PDF: an absent renderer is one line with the fix, charts carry their own style, and where weasyprint is the page becomes a PDF."""

import importlib
import re

import pytest
from support.job_history import submitted, write_history

from carbonsched.errors import InputError
from carbonsched.ledger import Ledger
from carbonsched.report import build, find, render
from carbonsched.report.pdf import pdf, renderer, with_styled_charts


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    with Ledger.open(f"sqlite:///{tmp_path_factory.mktemp('pdf') / 'ledger.db'}") as ledger:
        end = write_history(ledger, submitted(budget_g=1300))
        return render(build(ledger, "scitldr-1", now=end), ledger, "html")


def test_charts_hold_the_pages_rules_in_the_colours_of_paper(page: str) -> None:
    styled = with_styled_charts(page)
    assert styled.count("<style>") == 1 + page.count("<svg")
    (own, *_) = re.findall(r"<svg[^>]*><style>(.*?)</style>", styled, flags=re.S)
    assert "var(" not in own
    for rule in (".line{ fill: none", ".s1{ stroke: #0b62a4", ".area.s2", ".rule{"):
        assert rule in own, rule
    assert re.sub(r"(<svg[^>]*>)<style>.*?</style>", r"\1", styled, flags=re.S) == page


@pytest.mark.parametrize(
    "error", [ImportError("No module named 'weasyprint'"), OSError("cannot load library 'pango'")]
)
def test_without_its_renderer_a_pdf_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def absent(name: str) -> None:
        raise error

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(InputError, match=r"--format: pdf needs weasyprint.*pip install") as caught:
        pdf("<p>")
    assert "\n" not in str(caught.value)


def test_the_daemon_makes_none() -> None:
    with pytest.raises(InputError, match="pdf is made of html by the command"):
        find("pdf")


def test_where_weasyprint_is_the_page_becomes_one(page: str) -> None:
    try:
        renderer()
    except InputError as e:
        pytest.skip(str(e))
    assert pdf(page).startswith(b"%PDF")


def test_on_paper_nothing_scrolls_or_stays_on_one_line(page: str) -> None:
    """The segments table was cut after "energy": a later rule kept cells on one line."""
    style = page.partition("<style>")[2].partition("</style>")[0]
    printed = style.index("@media print")
    assert style.rindex("white-space: nowrap") < printed
    assert style.rindex("overflow-x: auto") < printed
    assert "td, th { white-space: normal" in style[printed:]
    assert "overflow: visible" in style[printed:]
