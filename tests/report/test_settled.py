"""The account as settled: what an outsider makes of the export is what the report says, in every part of it."""

import csv
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from support.job_history import GPU, T0, submitted, write_history

from carbonsched.ledger import Ledger
from carbonsched.ledger.rows import micros
from carbonsched.ledger.settlements import Settlement
from carbonsched.model.grid import Basis, Kind
from carbonsched.report import Report, build
from carbonsched.report.render import render

History = tuple[Ledger, Report, Report]
MANUAL = Path(__file__).parents[2] / "docs" / "ledger.md"
HOURS = ((1, 3.5, 260.0), (2, 2.4, 90.5), (5, 5.5, 0.0), (6, 30, 333.25), (7, 7.01, 120.0))
"""Later ones lie in earlier ones, cut rows, and reach into what was not known."""


def entry(start: datetime, end: datetime, g_per_kwh: float, zone: str = "GB") -> Settlement:
    return Settlement(
        start_us=micros(start),
        end_us=micros(end),
        g_per_kwh=g_per_kwh,
        provider="neso",
        zone=zone,
        zones=(zone,),
        basis=Basis.AVERAGE_DIRECT,
        kind=Kind.ACTUAL,
        note="",
        issued_at=None,
        fetched_at="2026-11-21T10:00:00.000000Z",
        body_sha256=None,
        was=(200.0, "neso", Kind.ACTUAL),
    )


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    """A job's history before and after it was settled."""
    with Ledger.open(f"sqlite:///{tmp_path_factory.mktemp('settled') / 'ledger.db'}") as ledger:
        end = write_history(ledger, submitted(budget_g=1300))
        before = build(ledger, "scitldr-1", now=end)
        for start_h, end_h, g_per_kwh in HOURS:
            odd = timedelta(seconds=7.000123)
            one = entry(T0 + timedelta(hours=start_h) + odd, T0 + timedelta(hours=end_h), g_per_kwh)
            ledger.note(None, "settled", one.detail(), "daemon", end)
        elsewhere = entry(T0 + timedelta(hours=4), T0 + timedelta(hours=4.5), 999.0, zone="DE")
        ledger.note(None, "settled", elsewhere.detail(), "daemon", end)
        yield ledger, before, build(ledger, "scitldr-1", now=end)


def outsider(folder: Path) -> dict[str, tuple[float, float]]:
    """Job → (as decided, as settled), by the manual's program and the standard library alone."""
    scripts = re.findall(r"```python\n(.*?)```", MANUAL.read_text(encoding="utf-8"), flags=re.S)
    argv = [sys.executable, "-I", "-W", "ignore", "-c", scripts[1], str(folder)]
    ran = subprocess.run(argv, capture_output=True, text=True, check=True)
    found = (line.split() for line in ran.stdout.splitlines())
    return {job: (float(decided), float(settled)) for job, decided, settled in found}


def test_an_outsider_makes_the_same_of_the_export(history: History, tmp_path: Path) -> None:
    ledger, _, report = history
    assert ledger.verify().ok
    ledger.export(tmp_path / "out", T0)
    found = outsider(tmp_path / "out")
    decided, settled = found["scitldr-1"]
    assert decided == pytest.approx(report.totals.spent_g, rel=1e-9)
    assert settled == pytest.approx(report.settled.spent_g, rel=1e-9)
    assert abs(report.settled.difference_g) > 1, "or nothing is shown"
    period = build(ledger, now=report.created_at)
    idle = next(part.sums for part in period.accounts if part.name == "idle")
    assert found["None"] == pytest.approx((idle.spent_g, idle.settled_g), rel=1e-9)
    [job] = period.jobs
    assert (job.sums.spent_g, job.sums.settled_g) == pytest.approx((decided, settled), rel=1e-9)
    assert period.settled.spent_g == pytest.approx(sum(s for _, s in found.values()), rel=1e-9)


def test_what_was_decided_stays_to_the_last_bit(history: History) -> None:
    _, before, after = history
    assert before.settled.entries == 0
    assert before.settled.uses == ()
    assert before.settled.spent_g == before.totals.spent_g == before.totals.settled_g == after.totals.spent_g
    assert all(line.settled_g == line.spent_g for line in before.segments)
    assert all(feed.settled_g == feed.spent_g for feed in before.feeds)
    assert before.timeline == after.timeline
    assert before.savings is not None
    assert after.savings is not None
    for name in ("waste", "flops", "timing", "chosen", "forced", "mean_intensity"):
        was, later = (getattr(report.savings, name) for report in (before, after))
        assert (was.saved_g, was.baseline_g) == (later.saved_g, later.baseline_g)
    was, later = before.savings.timing, after.savings.timing
    assert (was.low_g, was.high_g) != (later.low_g, later.high_g), "only its range knows of it"
    assert before.job is not None
    assert after.job is not None
    assert before.job.left_g == after.job.left_g, "budgets go by what was decided"
    assert not any("as settled" in note for note in before.notes)
    assert any("as settled" in note for note in after.notes)


def test_every_part_adds_up_to_the_whole(history: History) -> None:
    ledger, _, report = history
    whole = report.settled
    assert whole.entries == len(HOURS), "one of another zone holds for no row"
    assert whole.spent_g == report.totals.settled_g
    for parts in (report.boards, report.methods):
        assert sum(part.sums.settled_g for part in parts) == pytest.approx(whole.spent_g, rel=1e-12)
    moved = sum(use.difference_g for use in whole.uses)
    assert whole.difference_g == pytest.approx(moved, rel=1e-9)
    unknown = [use for use in whole.uses if use.provider is None]
    assert [(use.kind, use.spent_g) for use in unknown] == [(None, 0.0)], (
        "what was not known has a line of its own"
    )
    of_feeds = sum(feed.settled_g - feed.spent_g for feed in report.feeds)
    assert of_feeds + unknown[0].difference_g == pytest.approx(whole.difference_g, rel=1e-9)
    assert {use.month for use in whole.uses} == {"2026-11"}
    entries = ledger.settlements()
    for line in report.segments:
        rows = [row for row in ledger.rows("scitldr-1") if row["segment"] == line.k]
        by_hand = 0.0
        for row in rows:
            at, stop, spent = row["start_us"], row["end_us"], 0.0
            hits = [
                (max(at, one.start_us), min(stop, one.end_us), one.g_per_kwh)
                for one in entries
                if one.zone == "GB" and one.start_us < stop and at < one.end_us
            ]
            edges = sorted({at, stop, *(us for a, b, _ in hits for us in (a, b))})
            for a, b in pairwise(edges):
                own = next((g for x, y, g in reversed(hits) if x <= a < y), row["g_per_kwh"])
                share = (b - a) / (stop - at)
                spent += share * (row["energy_mj"] or 0) / 3.6e9 * row["pue"] * (own or 0.0)
            by_hand += spent
        assert line.settled_g == pytest.approx(by_hand, rel=1e-9), f"segment {line.k}"


def test_every_format_shows_both(history: History) -> None:
    ledger, before, after = history
    rows = list(csv.DictReader(io.StringIO(render(after, ledger, "csv"))))
    assert sum(float(row["settled_grams"] or 0) for row in rows) == pytest.approx(
        after.settled.spent_g, rel=1e-9
    )
    assert sum(float(row["grams"] or 0) for row in rows) == pytest.approx(after.totals.spent_g, rel=1e-9)
    assert any(not row["g_per_kwh"] and row["settled_g_per_kwh"] for row in rows), "known since"
    page = " ".join(render(after, ledger, "html").split())
    assert "as decided; as settled" in page
    assert page.count(">as settled</th>") >= 5, "by board, method, feed, segment, and where it comes from"
    assert f'<th scope="row">{GPU}</th>' in page
    same = " ".join(render(before, ledger, "html").split())
    assert "as settled the same" in same
    assert ">as settled</th>" not in same
    assert '"settled":{"spent_g":' in render(after, ledger, "json").replace(" ", "").replace("\n", "")
