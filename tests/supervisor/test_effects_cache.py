"""Effects that are kept: the same as computed, computed once, and anew where what they follow from has changed."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.job_history import T0, interval, submitted, write_history
from support.manual_clock import ManualClock
from support.rig import ME, Rig

from carbonsched.ledger import Ledger
from carbonsched.model.job_state import JobState
from carbonsched.model.views import ReportQuery
from carbonsched.report import build, job_savings
from carbonsched.supervisor import effects_cache
from carbonsched.supervisor.effects_cache import EffectsCache

LATER = T0 + timedelta(days=30)
HOUR = timedelta(hours=1)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'l.db'}") as found:
        write_history(found, submitted("a-1"))
        write_history(found, submitted("b-1"))
        yield found


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The jobs whose effects were computed, in order."""
    found: list[str] = []
    real = job_savings.job_savings

    def count(ledger: Ledger, record: Any) -> Any:
        found.append(record.id)
        return real(ledger, record)

    monkeypatch.setattr(job_savings, "job_savings", count)
    return found


def effects(ledger: Ledger, kept: EffectsCache, now: datetime = LATER) -> Any:
    return build(ledger, now=now, savings_of=kept.reading(now)).effects


def test_what_is_kept_is_what_is_computed_and_is_computed_once(
    ledger: Ledger, tmp_path: Path, computed: list[str]
) -> None:
    plain, kept = build(ledger, now=LATER).effects, EffectsCache(tmp_path / "effects.jsonl")
    clock = ManualClock(LATER)
    computed.clear()
    kept.poll(ledger, clock)
    assert computed == ["a-1", "b-1"]
    assert effects(ledger, kept) == plain
    for _ in range(3):
        clock.advance(4000)
        kept.poll(ledger, clock)
    assert effects(ledger, EffectsCache(tmp_path / "effects.jsonl")) == plain, "by the next daemon"
    assert computed == ["a-1", "b-1"]


def test_a_job_that_goes_on_or_is_restated_is_computed_anew(
    ledger: Ledger, tmp_path: Path, computed: list[str]
) -> None:
    kept = EffectsCache(tmp_path / "effects.jsonl")
    effects(ledger, kept)
    computed.clear()
    ledger.add_job(submitted("c-1"))
    ledger.append([interval(T0, 10, 500, job_id="c-1")])
    ledger.note(
        "a-1", "restated", {"board": "GPU-1", "energy_mj": 5, "grams": 0.1, "rows": 1}, "daemon", LATER
    )
    effects(ledger, kept)
    assert computed == ["a-1"]
    for state, at in ((JobState.RUNNING, T0), (JobState.FAILED, T0 + HOUR)):
        ledger.set_state("c-1", state, "as it goes", "daemon", at)
    effects(ledger, kept)
    for state, at in ((JobState.QUEUED, LATER), (JobState.RUNNING, LATER)):
        ledger.set_state("c-1", state, "resumed by ada", "ada", at)
    assert [left.job for left in effects(ledger, kept).left_out if left.why == "is not over"] == ["c-1"]
    ledger.set_state("c-1", JobState.FINISHED, "done", "daemon", LATER + HOUR)
    effects(ledger, kept, LATER + timedelta(days=3))
    assert computed == ["a-1", "c-1", "c-1"]


def test_a_job_that_ended_just_now_is_computed_and_not_kept(
    ledger: Ledger, tmp_path: Path, computed: list[str]
) -> None:
    kept, soon = EffectsCache(tmp_path / "effects.jsonl"), T0 + timedelta(days=1)
    for _ in range(2):
        effects(ledger, kept, soon)
    assert computed == ["a-1", "b-1"] * 2
    assert not (tmp_path / "effects.jsonl").exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}\n",
        '{"carbonsched": "0.0.0"}\n["a-1", "0 0", "null"]\n',
        "\xff\n",
        '["a-1"',
        "[]\n[]\n",
        pytest.param("[" * 200_000 + "\n", id="nested"),
    ],
)
def test_a_file_that_is_of_no_use_is_made_anew(ledger: Ledger, tmp_path: Path, text: str) -> None:
    file = tmp_path / "effects.jsonl"
    file.write_text(text, encoding="latin-1")
    assert effects(ledger, EffectsCache(file)) == build(ledger, now=LATER).effects
    assert file.read_text().count("\n") == 3


def test_a_line_that_was_cut_off_costs_that_job_alone(
    ledger: Ledger, tmp_path: Path, computed: list[str]
) -> None:
    file = tmp_path / "effects.jsonl"
    effects(ledger, EffectsCache(file))
    file.write_text(file.read_text()[:-40])
    computed.clear()
    effects(ledger, EffectsCache(file))
    assert computed == ["b-1"]


def test_a_report_waits_for_a_few_jobs_and_names_the_others(
    ledger: Ledger, tmp_path: Path, computed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(effects_cache, "AT_ONCE", 1)
    kept = EffectsCache(tmp_path / "effects.jsonl")
    found = effects(ledger, kept)
    assert (found.jobs, computed) == (("a-1",), ["a-1"])
    assert "not computed yet" in found.left_out[-1].why or "not computed yet" in found.left_out[0].why
    assert effects(ledger, kept).jobs == ("a-1", "b-1"), "the one before is kept by now"


def test_of_many_that_ended_just_now_it_is_said_when_they_will_be_there(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(effects_cache, "AT_ONCE", 1)
    kept, clock = EffectsCache(tmp_path / "effects.jsonl"), ManualClock(T0 + timedelta(days=1))
    kept.poll(ledger, clock)
    found = effects(ledger, kept, clock.now())
    assert [left.why for left in found.left_out if left.effect is None] == [effects_cache.YOUNG]
    clock.advance(25 * 3600)
    kept.poll(ledger, clock)
    assert [left for left in effects(ledger, kept, clock.now()).left_out if left.effect is None] == []


def test_who_asks_the_daemon_for_a_period_is_told_what_its_jobs_saved(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    job = rig.running()
    for k in range(4):
        job.ready(k)
        rig.run(20)
        job.done(k, 0.6, 20.0)
        rig.run(1)
    job.say("finished", step=40, reason="done")
    rig.launcher.end(job.dir)
    rig.run(5)
    assert job.show().state is JobState.FINISHED

    def told() -> Any:
        pieces, _ = rig.service.render_report(ReportQuery(), "json", ME)
        return json.loads("".join(pieces))["effects"]

    assert told()["jobs"] == [job.id]
    assert told()["sums"]["flops"]["saved_g"] > 0
    file = tmp_path / "state" / "effects.jsonl"
    rig.supervisor.effects.poll(rig.ledger, rig.clock)
    assert not file.exists(), "it ended just now"
    rig.clock.advance(2 * 86_400)
    rig.supervisor.effects.poll(rig.ledger, rig.clock)
    assert job.id in file.read_text()
    assert told()["jobs"] == [job.id]
