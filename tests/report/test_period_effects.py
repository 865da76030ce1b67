"""What a period's jobs saved: the sum of what their own reports say, and who is in no sum, in every format that tells effects."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.job_history import T0, interval, submitted, write_history

from carbonsched.ledger import Ledger
from carbonsched.model.job_state import JobState
from carbonsched.model.views import ReportQuery
from carbonsched.report import build, from_ledger, render
from carbonsched.report.effects import Effect
from carbonsched.report.parts import Selection
from carbonsched.report.period_effects import EFFECTS, PeriodEffects, _sum

HOUR = timedelta(hours=1)
Told = tuple[Ledger, datetime]


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    """Two jobs that are over, one that runs on, a command, and a job whose segments have no waste told; when the first ended."""
    with Ledger.open(f"sqlite:///{tmp_path / 'l.db'}") as ledger:
        end = write_history(ledger, submitted("a-1"))
        write_history(ledger, submitted("b-1"))
        ledger.add_job(submitted("c-1"))
        ledger.set_state("c-1", JobState.RUNNING, "its turn", "daemon", T0)
        ledger.append([interval(T0 + 50 * HOUR, 10, 500, job_id="c-1")])
        yield ledger, end


def effects(ledger: Ledger, **asked: Any) -> PeriodEffects:
    found = build(ledger, now=T0 + 1000 * HOUR, **asked).effects
    assert found is not None
    return found


def test_a_period_sums_what_the_reports_of_its_jobs_say(told: Told) -> None:
    ledger, _ = told
    found = effects(ledger)
    own = [build(ledger, job_id, now=T0 + 1000 * HOUR).savings for job_id in ("a-1", "b-1")]
    assert found.jobs == ("a-1", "b-1")
    for name in EFFECTS:
        each = [e for saved in own if (e := getattr(saved, name)) is not None and e.saved_g is not None]
        assert found.sums[name].jobs == len(each)
        for figure in ("saved_g", "baseline_g", "low_g", "high_g"):
            expected = sum(getattr(e, figure) for e in each) if each else None
            assert getattr(found.sums[name], figure) == (
                None if expected is None else pytest.approx(expected, rel=1e-12)
            )
    assert found.sums["flops"].saved_g is not None
    assert found.sums["flops"].saved_g > 0
    assert [(left.job, left.effect, left.why) for left in found.left_out] == [("c-1", None, "is not over")]


def test_a_job_counts_in_the_period_in_which_it_ended_and_nowhere_else(told: Told) -> None:
    ledger, end = told
    before = effects(ledger, start=T0, end=end - HOUR)
    assert (before.jobs, before.sums["flops"].saved_g) == ((), None)
    assert {left.why for left in before.left_out} == {"ended after the period"}
    whole, last = effects(ledger), effects(ledger, start=end - HOUR, end=end + HOUR)
    assert last.sums["timing"] == whole.sums["timing"], "a job counts whole"
    assert build(ledger, start=T0 + 900 * HOUR, end=T0 + 901 * HOUR, now=T0 + 1000 * HOUR).effects is None


def test_of_a_user_or_a_project_its_jobs_alone(told: Told) -> None:
    ledger, _ = told
    mine = effects(ledger, selection=Selection(user="ada", jobs=("b-1",)))
    assert (mine.jobs, mine.left_out) == (("b-1",), ())


def test_the_formats_that_tell_effects_tell_those_of_a_period(told: Told) -> None:
    ledger, _ = told
    report = build(ledger, now=T0 + 1000 * HOUR)
    assert report.effects is not None
    for form in ("html", "markdown"):
        page = render(report, ledger, form)
        assert "that ended in it" in page
        assert "is not over" in page
        assert "Each job counts whole" in page
    assert json.loads(render(report, ledger, "json"))["effects"]["jobs"] == ["a-1", "b-1"]


def test_a_format_that_tells_none_computes_none(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, _ = told
    monkeypatch.setattr(from_ledger, "job_savings", lambda *_: pytest.fail("computed"))
    for form in ("csv", "codecarbon", "scope2"):
        assert "".join(from_ledger.pieces(ledger, ReportQuery(), form, T0 + 1000 * HOUR))


def test_the_exports_script_recomputes_the_sums_and_finds_one_that_is_wrong(
    told: Told, tmp_path: Path
) -> None:
    ledger, _ = told
    ledger.export(tmp_path / "out", T0)
    good = build(ledger, now=T0 + 1000 * HOUR).dump()
    bad = json.loads(json.dumps(good))
    bad["effects"]["sums"]["flops"]["saved_g"] *= 1.01
    for document, words in ((good, "1 reports agree to 1e-9"), (bad, "the rows come to")):
        (tmp_path / "report.json").write_text(json.dumps(document))
        argv = [sys.executable, "-I", str(tmp_path / "out" / "effects.py"), str(tmp_path / "report.json")]
        ran = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert words in ran.stdout + ran.stderr
        assert (ran.returncode == 0) is (document is good)


FINITE = st.floats(-1e9, 1e9)


@given(st.lists(st.tuples(FINITE, st.floats(0, 1e9), st.booleans()), min_size=1, max_size=20))
def test_a_sum_is_of_all_and_estimated_where_one_is(told: list[tuple[float, float, bool]]) -> None:
    each = [
        Effect(
            saved_g=g,
            share=None,
            baseline_g=base,
            low_g=g - 1,
            high_g=g + 1,
            estimated=guess,
            against="a",
            formula="f",
        )
        for g, base, guess in told
    ]
    found = _sum(each)
    assert found.saved_g == pytest.approx(sum(g for g, _, _ in told), abs=1e-3)
    assert found.jobs == len(told)
    assert found.estimated is any(guess for *_, guess in told)
    assert found.low_g is not None
    assert found.high_g is not None
    assert found.high_g - found.low_g == pytest.approx(2 * len(told), abs=1e-3)
