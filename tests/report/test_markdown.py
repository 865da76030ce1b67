"""Markdown: tables that hold, whatever other people wrote."""

from datetime import timedelta
from pathlib import Path

from support.job_history import T0, interval, submitted

from carbonsched.ledger import Ledger
from carbonsched.report import build, render


def test_other_peoples_text_ends_no_cell_and_begins_no_markup(tmp_path: Path) -> None:
    hostile = "a|b\n# c [x](y) <i>"
    with Ledger.open(f"sqlite:///{tmp_path / 'l.db'}") as ledger:
        ledger.add_job(submitted())
        ledger.append(
            [
                interval(T0, 10, 9000, job_id="scitldr-1", board=hostile),
                interval(T0 + timedelta(seconds=10), 5, None),
            ]
        )
        page = render(build(ledger, "scitldr-1", now=T0 + timedelta(hours=1)), ledger, "markdown")
        period = render(
            build(
                ledger,
                start=T0 - timedelta(hours=1),
                end=T0 + timedelta(hours=1),
                now=T0 + timedelta(hours=1),
            ),
            ledger,
            "markdown",
        )
    assert "a\\|b \\# c \\[x\\](y) \\<i\\>" in page
    for text in (page, period):
        tables = [line for line in text.splitlines() if line.startswith("|")]
        heads = [n for n, line in enumerate(tables) if line.startswith("| ---")]
        for n, head in enumerate(heads):
            end = heads[n + 1] - 1 if n + 1 < len(heads) else len(tables)
            counts = {line.replace("\\|", "").count("|") for line in tables[head - 1 : end]}
            assert len(counts) == 1, tables[head - 1]
    assert "no row: no meter was read" in period, "what is missing is named with its reason"
