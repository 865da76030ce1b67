"""The report's figures, checked against sums made by hand from the ledger's own rows."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.intervals import intervals
from support.job_history import DEPARTURE, GPU, PUE, T0, directive, done, interval, submitted, write_history

from carbonsched.errors import InputError, NotFoundError
from carbonsched.ledger import Ledger
from carbonsched.model.energy import Interval
from carbonsched.model.grid import Kind
from carbonsched.model.job_state import JobState
from carbonsched.model.methods.traits import METHODS
from carbonsched.model.protocol import SegmentDone
from carbonsched.report import Report, Selection, build
from carbonsched.report.effects import Effect
from carbonsched.report.render import render
from carbonsched.report.savings import Spent, as_own_run, flops_effect, quality, waste_effect
from carbonsched.report.timeline import BINS, Timeline

History = tuple[Ledger, Report, datetime]


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    with Ledger.open(f"sqlite:///{tmp_path_factory.mktemp('history') / 'ledger.db'}") as ledger:
        end = write_history(ledger, submitted(budget_g=1300))
        yield ledger, build(ledger, "scitldr-1", now=end), end


def rows_of(ledger: Ledger) -> list[Interval]:
    return intervals(ledger, "scitldr-1")


def test_totals_are_the_rows(history: History) -> None:
    ledger, report, end = history
    rows = rows_of(ledger)
    energy_j = sum(row.delta.energy_mj or 0 for row in rows) / 1000
    assert report.totals.energy_j == pytest.approx(energy_j)
    assert report.totals.energy_kwh == pytest.approx(energy_j / 3.6e6)
    assert report.facility_kwh == pytest.approx(energy_j / 3.6e6 * PUE)
    assert report.totals.spent_g == pytest.approx(sum(row.grams or 0 for row in rows))
    assert (report.first, report.last) == (T0, end)
    assert report.job is not None
    assert report.job.left_g == pytest.approx(1300 - report.totals.spent_g)
    assert {b.name for b in report.boards} == {GPU, "host"}
    assert sum(b.sums.energy_j for b in report.boards) == pytest.approx(energy_j)
    assert sum(m.sums.spent_g for m in report.methods) == pytest.approx(report.totals.spent_g)


def test_the_document_reads_back_as_it_was_written(history: History) -> None:
    _, report, _ = history
    assert Report.model_validate_json(report.model_dump_json()).totals == report.totals


def test_a_jobs_report_reads_its_own_rows_alone(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """What other boards tell of the grid meanwhile comes summed: a box has eight of them."""
    ledger, before, end = history
    asked: list[str | None] = []
    read = Ledger.each_row

    def each_row(
        self: Ledger,
        take: Callable[[dict[str, Any]], None],
        job_id: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> None:
        asked.append(job_id)
        read(self, take, job_id, start, end)

    monkeypatch.setattr(Ledger, "each_row", each_row)
    report = build(ledger, "scitldr-1", now=end)
    assert asked == ["scitldr-1"]
    assert report == before
    assert any(point.g_per_kwh is not None and point.power_w is None for point in report.timeline), (
        "waits too"
    )


def test_the_figure_against_the_mean_is_of_the_rows(history: History) -> None:
    ledger, report, _ = history
    assert report.savings is not None
    timing = report.savings.mean_intensity
    mean = timing.inputs["mean_g_per_kwh"]
    known = [row for row in rows_of(ledger) if row.grams is not None]
    by_hand = sum(
        (row.delta.energy_mj or 0) / 3.6e9 * PUE * (mean - row.intensity.g_per_kwh)
        for row in known
        if row.intensity
    )
    assert timing.saved_g == pytest.approx(by_hand, rel=1e-9)
    assert timing.low_g == timing.high_g == timing.saved_g
    spans = [row for row in intervals(ledger) if row.delta.device == "host" and row.intensity is not None]
    weights = [(row.delta.end - row.delta.start).total_seconds() for row in spans]
    by_time = sum(w * r.intensity.g_per_kwh for w, r in zip(weights, spans, strict=True) if r.intensity)
    assert mean == pytest.approx(by_time / sum(weights), rel=1e-3), "hours in which the job waited count too"


def test_fewer_flops_are_an_estimate_with_a_range_and_its_inputs(history: History) -> None:
    _, report, _ = history
    assert report.savings is not None
    effect = report.savings.flops
    assert effect.estimated
    assert effect.low_g is not None
    assert effect.saved_g is not None
    assert effect.high_g is not None
    assert 0 < effect.low_g < effect.saved_g < effect.high_g
    # the history's steps take 0.28 + 0.72 ρ of a full step's time at nearly the same power
    assert effect.inputs["c0"] == pytest.approx(0.28, abs=0.05)
    assert effect.baseline_g == pytest.approx(report.totals.spent_g + effect.saved_g)


def test_savings_count_against_what_the_user_would_have_run(history: History) -> None:
    """Frozen weights or adapters: their run is cheaper than full fine-tuning, and so much less is saved."""
    ledger, _, _ = history
    segments = ledger.segments("scitldr-1")
    spent = {s.k: Spent(energy_j=1000.0 * s.done.rho_realised, grams=1.0) for s in segments}

    def against(own: Callable[[SegmentDone], float | None]) -> Effect:
        told = [replace(s, done=s.done.model_copy(update={"flops_own": own(s.done)})) for s in segments]
        return flops_effect(told, spent, grams=9.0)

    full, frozen, same = (
        against(lambda d: d.flops_full),
        against(lambda d: 0.7 * d.flops_full),
        against(lambda d: d.flops),
    )
    assert full == against(lambda d: None)
    assert "full fine-tuning" in full.against
    assert same.saved_g == pytest.approx(0)
    assert full.saved_g is not None
    assert frozen.saved_g is not None
    assert frozen.saved_g < full.saved_g
    assert "own run" in frozen.against
    assert frozen.inputs["rho_own_run"] == pytest.approx(0.7)


def test_waste_stands_apart_with_its_counterfactual(history: History) -> None:
    ledger, report, _ = history
    assert report.savings is not None
    waste, flops = report.savings.waste, report.savings.flops
    inputs = waste.inputs
    left = inputs["stock_flops"] - inputs["padding_flops"] - inputs["head_flops"]
    assert left == pytest.approx(inputs["flops_full"], rel=1e-12)
    assert waste.saved_g == pytest.approx(inputs["padding_g"] + inputs["head_g"])
    assert inputs["padding_g"] / inputs["head_g"] == pytest.approx(0.3 / 0.4)
    assert waste.estimated
    assert waste.low_g is not None
    assert waste.saved_g is not None
    assert waste.high_g is not None
    assert 0 < waste.low_g < waste.saved_g < waste.high_g
    # it ends where the FLOPs effect begins: at the run that this one is against
    assert flops.baseline_g is not None
    assert waste.baseline_g == pytest.approx(flops.baseline_g + waste.saved_g)
    # by hand, for a job whose energy follows FLOPs alone: stock takes 1.7 times the grams of full fine-tuning
    segments = ledger.segments("scitldr-1")
    spent = {s.k: Spent(energy_j=1000.0 * s.done.rho_realised, grams=s.done.rho_realised) for s in segments}
    grams = sum(part.grams for part in spent.values())
    full = flops_effect(segments, spent, grams)
    assert full.baseline_g is not None
    found = waste_effect(segments, spent, full.baseline_g)
    assert found.saved_g is not None
    c0 = found.inputs["c0"]
    by_hand = sum((1 - c0) * 0.7 * p.grams / (c0 + (1 - c0) * p.grams) for p in spent.values())
    assert found.saved_g == pytest.approx(by_hand, rel=1e-9)


def test_what_the_trainer_warned_of_stands_in_the_notes(tmp_path: Path) -> None:
    head = "the output embeddings run on every token, not on the labelled alone: a first batch has no label"
    with Ledger.open(f"sqlite:///{tmp_path / 'l.db'}") as ledger:
        ledger.add_job(submitted())
        for text in (head, "segment 3: realised rho 0.7", head, *(f"w{n}" for n in range(25))):
            ledger.note("scitldr-1", "note", {"text": text}, "trainer", T0)
        ledger.note("scitldr-1", "note", {"text": "to be paused"}, "alice", T0)
        said = [n for n in build(ledger, "scitldr-1", now=T0).notes if "warned" in n]
    assert said[0] == f"The trainer warned: {head}."
    assert len(said) == 21
    assert said[-1] == "The trainer warned of 6 more things: carbonsched show has them."


def test_what_the_trainer_did_not_count_is_not_known_with_the_reason(history: History) -> None:
    ledger, _, _ = history
    segments = list(ledger.segments("scitldr-1"))
    spent = {s.k: Spent(energy_j=1000.0, grams=1.0) for s in segments}
    for told, reason in ((None, "its trainer did not tell its waste"), ("no mask", "segment 3: no mask")):
        gone = segments[2].done.model_copy(update={"waste": None, "waste_unknown": told})
        found = waste_effect([*segments[:2], replace(segments[2], done=gone), *segments[3:]], spent, 9.0)
        assert found.saved_g is None
        assert found.reason is not None
        assert reason in found.reason


def test_adapters_are_not_credited_with_a_selection(history: History) -> None:
    ledger, _, _ = history
    segments = ledger.segments("scitldr-1")
    spent = {s.k: Spent(energy_j=1000.0, grams=1.0) for s in segments}
    for method in ("lora", "prefix"):
        assert flops_effect(as_own_run(segments, METHODS[method]), spent, 8.0).saved_g == pytest.approx(0)
    dear = [
        replace(s, done=s.done.model_copy(update={"flops": 1.1 * s.done.flops_full, "rho_realised": 1.1}))
        for s in segments
    ]
    assert flops_effect(as_own_run(dear, METHODS["lora"]), spent, 8.0).saved_g == pytest.approx(0)
    more = flops_effect(
        dear, spent, 8.0
    )  # against full fine-tuning they cost more, and the range is in order
    assert more.saved_g is not None
    assert more.low_g is not None
    assert more.high_g is not None
    assert more.low_g < more.saved_g < more.high_g < 0
    untold = flops_effect(as_own_run(segments, METHODS["greentrainer+lora"]), spent, 8.0)
    assert untold.saved_g is None
    assert "all the adapters" in str(untold.reason)
    for method in ("greentrainer", "full", "dropbp"):
        assert as_own_run(segments, METHODS[method]) == segments


def test_the_flops_effect_is_read_beside_the_loss_and_the_shorter_full_run(history: History) -> None:
    ledger, report, _ = history
    assert report.savings is not None
    found = report.savings.quality
    assert (found.loss_before, found.loss_after) == (report.validation[0].loss, report.validation[-1].loss)
    ratio = sum(s.flops for s in report.segments) / sum(s.flops_full for s in report.segments)
    assert found.same_flops_steps == pytest.approx(ratio * sum(s.steps for s in report.segments))
    for name in ("html", "model-card"):
        text = render(report, ledger, name).replace("&#39;", "'")
        for words in (
            found.held_out,
            found.alternative,
            "stock Trainer",
            "estimated",
            "Saved by leaving out waste",
        ):
            assert words in text, (name, words)
    assert quality((), ()).held_out == "held-out loss not evaluated"
    assert "not known" in quality((), ()).alternative


def test_segments_list_what_was_charged_and_decided(history: History) -> None:
    ledger, report, _ = history
    assert [s.k for s in report.segments] == list(range(8))
    third = report.segments[2]
    mine = [row for row in rows_of(ledger) if row.segment == 2]
    assert third.energy_j == pytest.approx(sum(r.delta.energy_mj or 0 for r in mine) / 1000)
    assert (third.rho_directed, third.price, third.attempts) == (0.48, 0.0023, 1)
    assert third.reason.startswith("train at 0.48")


def test_a_period_of_some_jobs_counts_their_rows_alone(history: History) -> None:
    ledger, report, _ = history
    mine = Selection(user="ada", jobs=("scitldr-1",))
    found = build(ledger, now=report.created_at, selection=mine)
    assert found.totals.spent_g == pytest.approx(report.totals.spent_g)
    assert [part.name for part in (*found.jobs, *found.users)] == ["scitldr-1", "ada"]
    assert {part.name for part in found.accounts} == {"job"}, "idle energy is nobody's"
    rows = render(found, ledger, "csv").splitlines()
    assert len(rows) == 1 + ledger.totals("scitldr-1").rows
    none = build(ledger, now=report.created_at, selection=Selection(user="bob"))
    assert (none.totals.seconds, none.jobs) == (0, ())


def test_gaps_are_listed_plainly(history: History) -> None:
    _, report, _ = history
    bridged, missing, *unknown = report.gaps
    assert (missing.board, missing.kind, missing.start) == ("host", "missing", bridged.start)
    assert (bridged.kind, bridged.energy_j, bridged.method) == ("bridged", 137_700.0, "counter")
    assert (bridged.end - bridged.start).total_seconds() == 540
    assert [(g.board, g.kind, g.spent_g) for g in unknown] == [
        (GPU, "unknown", None),
        ("host", "unknown", None),
    ]
    assert all(g.end - g.start == timedelta(minutes=4) for g in unknown)
    assert report.totals.unknown_s == 240


def test_interrupted_work_is_named_and_waiting_is_not(history: History) -> None:
    ledger, report, _ = history
    assert report.lost is not None
    assert report.lost.segments == (5,)
    start = report.segments[5].start
    before = [r for r in rows_of(ledger) if r.segment == 5 and r.delta.end <= start]
    assert report.lost.energy_j == pytest.approx(sum(r.delta.energy_mj or 0 for r in before) / 1000)


def test_validation_before_and_after(history: History) -> None:
    _, report, _ = history
    assert [(v.when, v.step, v.loss) for v in report.validation] == [
        ("before", 0, 4.542),
        ("after", 3984, 2.571),
    ]


def test_notes_say_what_must_not_be_overlooked(history: History) -> None:
    _, report, _ = history
    text = "\n".join(report.notes)
    for part in (
        "Estimated: ",
        "away for 540 s",
        "For 240 s",
        "segment 6 was interrupted",
        f"Segment 4 did not go as planned: {DEPARTURE}.",
    ):
        assert part in text
    assert "replay" not in text


def test_a_time_compressed_replay_says_so(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'l.db'}") as ledger:
        ledger.add_job(submitted())
        ledger.append([interval(T0, 10, 9000, job_id="scitldr-1", compression=60, note="synthetic")])
        report = build(ledger, "scitldr-1", now=T0)
    assert report.time_compression == 60
    assert any(note.startswith("Time-compressed replay") and "60 times" in note for note in report.notes)
    assert "A feed is labelled: synthetic." in report.notes
    assert "The job is queued: these figures are not final." in report.notes


@pytest.mark.parametrize(
    ("kind", "words"),
    [(Kind.FALLBACK, "stood in for the grid's intensity"), (Kind.STATIC, "that the configuration states")],
)
def test_a_constant_is_an_estimate_wherever_it_is_shown(kind: Kind, words: str, tmp_path: Path) -> None:
    row = interval(T0, 10, 9000, job_id="scitldr-1")
    assert row.intensity is not None
    source = row.intensity.source.model_copy(update={"kind": kind})
    reading = row.intensity.model_copy(update={"source": source})
    with Ledger.open(f"sqlite:///{tmp_path / 'l.db'}") as ledger:
        ledger.add_job(submitted())
        ledger.append([row.model_copy(update={"intensity": reading})])
        report = build(ledger, "scitldr-1", now=T0)
        assert report.feeds[0].kind is kind
        [note] = [note for note in report.notes if words in note]
        assert note.startswith("Estimated: ")
        for form in ("html", "model-card"):
            assert f"{kind}, a constant: estimated" in render(report, ledger, form)


def test_a_period_report_covers_jobs_and_idle_time(history: History) -> None:
    ledger, job, end = history
    report = build(ledger, start=T0, end=end, now=end)
    assert [j.name for j in report.jobs] == ["scitldr-1"]
    for name, value in job.totals.model_dump().items():
        assert getattr(report.jobs[0].sums, name) == (value if value is None else pytest.approx(value)), name
    assert [a.name for a in report.accounts] == ["idle", "job"]
    assert report.totals.energy_j == pytest.approx(sum(a.sums.energy_j for a in report.accounts))
    assert (report.job, report.savings, report.lost) == (None, None, None)
    first_hour = build(ledger, start=T0, end=T0 + timedelta(hours=1), now=end)
    assert 0 < first_hour.totals.energy_j < report.totals.energy_j


def test_a_job_that_was_charged_nothing_has_a_report_without_figures(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'l.db'}") as ledger:
        ledger.add_job(submitted())
        report = build(ledger, "scitldr-1", now=T0)
        assert report.notes[0].startswith("Nothing was charged")
        assert (report.timeline, report.first, report.totals.power_w) == ((), None, None)
        assert report.savings is not None
        assert (report.savings.flops.saved_g, report.savings.timing.saved_g) == (None, None)
        assert report.savings.timing.reason == "no row has both energy and intensity"
        assert (report.bands, report.market) == (None, None), "of no energy there is neither"
        page, card = render(report, ledger, "html"), render(report, ledger, "markdown")
        assert page.count('<dd class="value">unknown</dd>') >= 2, "neither emissions nor energy are 0"
        for figure in (
            "emissions as decided",
            "as settled",
            "energy",
            "energy with PUE",
            "E1-6 gross market-based Scope 2",
        ):
            assert f"| {figure} | unknown |" in card
        with pytest.raises(NotFoundError):
            build(ledger, "other", now=T0)
        with pytest.raises(InputError, match="--to"):
            build(ledger, start=T0, end=T0, now=T0)


def test_a_segment_finished_twice_counts_the_first_as_lost(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'l.db'}") as ledger:
        ledger.add_job(submitted())
        ledger.set_state("scitldr-1", JobState.RUNNING, "started", "daemon", T0)
        for n in (0, 1):
            start = T0 + timedelta(seconds=100 * n)
            end = start + timedelta(seconds=60)
            ledger.append([interval(start, 60, 6000, job_id="scitldr-1", segment=0, rho=0.5)])
            ledger.save_segment(
                "scitldr-1", done(0, end, 0.5, seconds=60), start, end, directive(0, end, 0.5)
            )
        report = build(ledger, "scitldr-1", now=T0)
    assert report.segments[0].attempts == 2
    assert report.lost is not None
    assert (report.lost.energy_j, report.lost.segments) == (6.0, (0,))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 5000), st.integers(1, 900), st.integers(0, 10**7)), min_size=1, max_size=20
    ),
)
def test_the_timeline_loses_no_gram(parts: list[tuple[int, int, int]]) -> None:
    rows = [interval(T0 + timedelta(seconds=s), d, mj) for s, d, mj in parts]
    with Ledger.open("sqlite://") as ledger:
        ledger.append(rows)
        start = min(row.delta.start for row in rows)
        end = max(row.delta.end for row in rows)
        timeline = Timeline(None, {})
        ledger.each_hour(timeline.take)
        timeline.finish()
        drawn: list[dict[str, Any]] = []
        ledger.each_row(drawn.append)
        timeline.draw(start, end, drawn)
    points = timeline.points
    assert len(points) == BINS
    assert points[-1].spent_g == pytest.approx(sum(row.grams or 0 for row in rows), rel=1e-9, abs=1e-12)
    assert all(a.spent_g <= b.spent_g + 1e-12 for a, b in pairwise(points))
    assert (points[0].start, points[-1].end) == (start, end)
