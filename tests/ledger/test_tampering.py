"""Each kind of tampering with a ledger's file is found and its row named, or is found with a head that was noted earlier."""

import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.forgery import Rows, append_copy, execute, remake
from support.job_history import T0, directive, done, interval, submitted

from carbonsched.ledger import Ledger
from carbonsched.ledger.heads import Head
from carbonsched.ledger.rows import micros
from carbonsched.model.energy import EnergyMethod
from carbonsched.model.job_state import JobState
from carbonsched.units import grams

ROWS = 16
"""Odd ones of the board's counter, even ones of the host; the last two stand behind the journal's last entry."""
SETTLED = {"start": "2026-11-20T16:00:00.000000Z", "end": "2026-11-20T16:00:20.000000Z", "g_per_kwh": 240.0}

Tamper = Callable[[Path], object]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Head]:
    """A ledger as daemons write it, and its heads."""
    path = tmp_path_factory.mktemp("sound") / "ledger.db"
    with Ledger.open(f"sqlite:///{path}") as ledger:
        ledger.add_job(submitted("j"))
        ledger.set_state("j", JobState.RUNNING, "started", "daemon", T0)
        for n in range(ROWS // 2):
            if n == ROWS // 2 - 1:
                ledger.heartbeat("daemon", T0 + timedelta(seconds=80))
            at, own = T0 + timedelta(seconds=10 * n), {"job_id": "j", "segment": 0}
            host = {"board": "host", "method": EnergyMethod.ESTIMATED, "reason": "modelled from CPU load"}
            ledger.append(
                [
                    interval(at, 10, 2000, counter=2000 * n, bridged=n == 2, **own),
                    interval(at, 10, 700, **own, **host),
                ]
            )  # type: ignore[arg-type]
            if n == 1:
                ledger.set_budget("j", 150.0, "more", "ada", at)
            if n == 2:
                ledger.note(None, "settled", SETTLED, "daemon", at)
            if n == 3:
                ledger.save_segment("j", done(0, T0, 0.5), T0, at, directive(0, T0, 0.5))
                ledger.set_state("j", JobState.FINISHED, "done", "daemon", at)
        result, head = ledger.verify(), Head.of(ledger.verify().dump(), "noted.json")
        assert result.ok, result.problem
        assert result.rows == ROWS
    return path, head


def edit(table: str, change: str, where: str = "id = 5") -> Tamper:
    return lambda path: execute(path, f"UPDATE {table} SET {change} WHERE {where}")  # noqa: S608


def delete(table: str, where: str) -> Tamper:
    return lambda path: execute(path, f"DELETE FROM {table} WHERE {where}")  # noqa: S608


def twice(path: Path, **changes: object) -> None:
    append_copy(path, ROWS, **changes)


def scale(rows: Rows, *names: str, boards: str = "") -> None:
    for row in rows:
        if not boards or row["board"] == boards:
            for name in names:
                row[name] = None if row[name] is None else row[name] // 2 if "_mj" in name else row[name] / 2


def without_budget(entries: Rows) -> None:
    entries[:] = [entry for entry in entries if entry["kind"] != "budget"]


def settled_lower(entries: Rows) -> None:
    for entry in entries:
        if entry["kind"] == "settled":
            entry["detail"] = entry["detail"].replace("240.0", "120.0")


def cut_back(path: Path) -> None:
    """Both chains to a prefix that is whole, and the job as the journal said then."""
    execute(
        path,
        "DELETE FROM intervals WHERE id > 4",
        "DELETE FROM journal WHERE id > 3",
        "DELETE FROM segments",
        "UPDATE jobs SET state = 'running', reason = 'started', ended_us = NULL",
    )


def emptied(path: Path) -> None:
    execute(path, "DELETE FROM intervals", "DELETE FROM journal", "DELETE FROM segments", "DELETE FROM jobs")


def renamed(path: Path) -> None:
    execute(path, "PRAGMA foreign_keys = OFF", "UPDATE jobs SET id = 'i'")


CHANGED = "row 5 was changed after it was written: its hash does not match its fields"
FOUND: dict[str, tuple[Tamper, int | None, str]] = {
    # one value of one row
    "energy": (edit("intervals", "energy_mj = energy_mj - 1"), 5, CHANGED),
    "grams": (edit("intervals", "grams = grams / 2"), 5, CHANGED),
    "intensity": (edit("intervals", "g_per_kwh = 20"), 5, CHANGED),
    "pue": (edit("intervals", "pue = 1.0"), 5, CHANGED),
    "time": (edit("intervals", "end_us = end_us + 1"), 5, CHANGED),
    "owner": (edit("intervals", "account = 'idle', job_id = NULL"), 5, CHANGED),
    "segment": (edit("intervals", "segment = NULL"), 5, CHANGED),
    "method": (edit("intervals", "method = 'integrated'"), 5, CHANGED),
    "kind of intensity": (edit("intervals", "kind = 'forecast'"), 5, CHANGED),
    "provider": (edit("intervals", "provider = 'static'"), 5, CHANGED),
    "hash of the raw answer": (edit("intervals", "body_sha256 = NULL"), 5, CHANGED),
    "reason": (edit("intervals", "reason = 'x'", "id = 6"), 6, CHANGED.replace("5", "6")),
    "source of the pue": (edit("intervals", "pue_source = 'audited'"), 5, CHANGED),
    "supply": (edit("intervals", "supply_share = 0.9"), 5, CHANGED),
    # values that hash alike, or that no reader can read
    "a truth that is two": (edit("intervals", "bridged = 2"), 5, "row 5: bridged holds 2"),
    "bytes for a text": (edit("intervals", "note = x'00'"), 5, "row 5 was changed"),
    "bytes that are no text": (edit("intervals", "note = CAST(x'ff' AS TEXT)"), 5, "row 5 cannot be read"),
    "a text for a number": (edit("intervals", "pue = 'one'"), 5, "row 5 was changed"),
    "a time beyond any calendar": (
        edit("jobs", "submitted_us = 9223372036854775807", "id = 'j'"),
        None,
        "submitted is 9223372036854775807 µs, a time that no calendar has, the journal said",
    ),
    "a text for a row seen": (edit("journal", "interval_id = 'lots'"), None, "journal entry 5 was changed"),
    "a text for energy": (edit("intervals", "energy_mj = 'lots'"), 5, "row 5 was changed"),
    "bytes for a counter": (edit("intervals", "counter_start_mj = x'ff00'"), 5, "row 5 was changed"),
    "a number too large": (edit("intervals", "counter_end_mj = 1e308"), 5, "row 5 was changed"),
    "bytes for a board": (edit("intervals", "board = x'ff00'"), 5, "row 5 was changed"),
    "a time after all times": (edit("intervals", "end_us = 9000000000000000000"), 5, "row 5 was changed"),
    # rows taken out, put in, or in another order
    "first row out": (delete("intervals", "id = 1"), 1, "row 1 is missing"),
    "middle row out": (delete("intervals", "id = 5"), 5, "row 5 is missing"),
    "rows cut off": (delete("intervals", "id > 9"), 10, "rows 10 to 14 are missing: the journal saw them"),
    "row out, chain anew": (
        partial(remake, edit=lambda rows: rows.pop(5), journal=False),
        6,
        "row 6 is not the one the journal saw",
    ),
    "row out, both chains anew": (
        partial(remake, edit=lambda rows: rows.pop(4)),
        None,
        "the counter moved by 2000 mJ while no row",
    ),
    "last row twice": (twice, 17, "row 17 charges time of board host that row 16 charged already"),
    "last row twice, to nobody": (
        partial(twice, account="idle", job_id=None, segment=None),
        17,
        "row 17 charges time of board host",
    ),
    "known row replaced": (
        partial(twice, replaces=15),
        17,
        "row 17: it replaces row 15, whose energy is known",
    ),
    "row replaced that is not there": (
        partial(twice, replaces=40),
        17,
        "row 17: it cannot stand for row 40",
    ),
    "counter's row twice": (lambda path: append_copy(path, 15), None, "conservation is broken"),
    "row twice, both chains anew": (
        partial(remake, edit=lambda rows: rows.insert(5, dict(rows[5]))),
        7,
        "row 7 charges time of board host that row 6",
    ),
    "times swapped": (
        partial(remake, edit=lambda rows: rows[3].update(start_us=rows[3]["end_us"] + 1)),
        4,
        "row 4: it ends before it starts",
    ),
    # figures, with every hash made anew
    "joules halved": (
        partial(remake, edit=lambda rows: scale(rows, "energy_mj")),
        None,
        "8000 mJ were charged, the counter moved by 16000 mJ",
    ),
    "joules of the host halved": (
        partial(remake, edit=lambda rows: scale(rows, "energy_mj", boards="host"), heartbeats=False),
        14,
        "row 14: the journal's heartbeat of that row summed 18900 mJ where the rows come to 16450 mJ",
    ),
    "intensities halved": (
        partial(remake, edit=lambda rows: scale(rows, "g_per_kwh"), heartbeats=False),
        14,
        "row 14: the journal's heartbeat of that row summed",
    ),
    # the journal
    "who did it": (edit("journal", "actor = 'bob'", "id = 2"), None, "journal entry 2 was changed"),
    "when it was done": (edit("journal", "at_us = at_us + 1", "id = 2"), None, "journal entry 2 was changed"),
    "entry out": (delete("journal", "id = 3"), None, "journal entry 3 is missing"),
    "entry of a budget out, journal anew": (
        partial(remake, edit_journal=without_budget),
        None,
        "job j: budget_g is 150.0, the journal said 120.0",
    ),
    "detail that is no object": (
        partial(remake, edit_journal=lambda entries: entries[3].update(detail="[]")),
        None,
        "journal entry 4: its detail is no JSON object",
    ),
    "entry before the first": (
        lambda path: execute(path, "UPDATE journal SET id = 0 WHERE id = 5"),
        None,
        "journal entry 0 is none of the chain",
    ),
    "row before the first": (
        lambda path: execute(path, "UPDATE intervals SET id = -2 WHERE id = 16"),
        -2,
        "row -2 is none of the chain",
    ),
    "segment's entry of no number": (
        partial(remake, edit_journal=lambda entries: entries[4].update(detail='{"k":[]}')),
        None,
        "job j: an entry of a segment in the journal does not say which",
    ),
    # jobs and segments
    "state": (edit("jobs", "state = 'stopped'", "1"), None, "job j: state is stopped, the journal said finished"),
    "reason of a state": (edit("jobs", "reason = 'bad'", "1"), None, "job j: reason is bad, the journal said done"),
    "budget": (edit("jobs", "budget_g = 1e6", "1"), None, "job j: budget_g is 1000000.0, the journal said 150.0"),
    "submitted when": (
        edit("jobs", "submitted_us = submitted_us - 3600000000", "1"),
        None,
        "job j: submitted is 2026-11-20T15:00:00.000000Z, the journal said 2026-11-20T16:00:00.000000Z",
    ),
    "what was submitted": (edit("jobs", "submitted = replace(submitted, 'ada', 'bob')", "1"), None, "job j: sha256"),
    "started": (edit("jobs", "started_us = started_us + 1", "1"), None, "job j: started is"),
    "never started": (edit("jobs", "started_us = NULL", "1"), None, "job j: started is None"),
    "ended": (edit("jobs", "ended_us = ended_us + 1", "1"), None, "job j: ended is"),
    "job under another name": (renamed, None, "job i is not in the journal"),
    "job out": (delete("jobs", "1"), None, "job j is missing: the journal tells of it"),
    "segment's report": (edit("segments", "done = replace(done, '0.5', '0.9')", "1"), None, "job j: segment 0, attempt 0"),
    "segment's time": (edit("segments", "end_us = end_us + 1", "1"), None, "job j: segment 0, attempt 0"),
    "segment out": (delete("segments", "1"), None, "job j: segment 0, attempt 0, is not as"),
    "segment put in": (
        lambda path: execute(
            path, "INSERT INTO segments SELECT job_id, 1, attempt, start_us, end_us, done, directive FROM segments"
        ),
        None,
        "job j: segment 1, attempt 0, is not in the journal",
    ),
}  # fmt: skip
WITH_A_HEAD: dict[str, tuple[Tamper, int | None, str]] = {
    "rows cut behind the last entry": (
        delete("intervals", "id > 14"), 15, "rows 15 to 16 are missing: an earlier head saw them (noted.json)",
    ),
    "both chains cut back": (cut_back, 5, "rows 5 to 16 are missing"),
    "all emptied": (emptied, 1, "rows 1 to 16 are missing"),
    "joules and counters halved, both chains anew": (
        partial(remake, edit=lambda rows: scale(rows, "energy_mj", "power_w", "counter_start_mj", "counter_end_mj")),
        16, "row 16 is not the one an earlier head saw: the chain was made anew up to it",
    ),
    "joules of the host halved, heartbeats too": (
        partial(remake, edit=lambda rows: scale(rows, "energy_mj", boards="host")), 16, "row 16 is not the one",
    ),
    "intensities halved, heartbeats too": (
        partial(remake, edit=lambda rows: scale(rows, "g_per_kwh")), 16, "row 16 is not the one",
    ),
    "pue made 1": (
        partial(remake, edit=lambda rows: [row.update(pue=1.0) for row in rows]), 16, "row 16 is not the one",
    ),
    "what a heartbeat counted": (
        partial(remake, edit_journal=lambda entries: entries[-1].update(detail='{"rows":[]}'), heartbeats=False),
        None, "journal entry 7 is not the one an earlier head saw",
    ),
    "what was settled": (
        partial(remake, edit_journal=settled_lower), None, "journal entry 7 is not the one an earlier head saw",
    ),
}  # fmt: skip


def tampered(sound: tuple[Path, Head], folder: Path, tamper: Tamper) -> Path:
    path = folder / "ledger.db"
    shutil.copy(sound[0], path)
    tamper(path)
    return path


@pytest.mark.parametrize("kind", FOUND)
def test_tampering_is_found_and_the_row_named(sound: tuple[Path, Head], tmp_path: Path, kind: str) -> None:
    tamper, row, said = FOUND[kind]
    with Ledger.open(f"sqlite:///{tampered(sound, tmp_path, tamper)}", read_only=True) as ledger:
        result = ledger.verify()
    assert not result.ok
    assert said in (result.problem or "")
    assert result.first_bad == row


@pytest.mark.parametrize("kind", WITH_A_HEAD)
@pytest.mark.parametrize("counted", [True, False], ids=["with its number", "hash alone"])
def test_tampering_that_leaves_chains_whole_is_found_with_an_earlier_head(
    sound: tuple[Path, Head], tmp_path: Path, kind: str, counted: bool
) -> None:
    tamper, row, said = WITH_A_HEAD[kind]
    heads = sound[1].document()
    if not counted:
        heads, row, said = (
            heads["heads"],
            None,
            "cut off or made anew",
        )
    with Ledger.open(f"sqlite:///{tampered(sound, tmp_path, tamper)}", read_only=True) as ledger:
        assert ledger.verify().ok, "nothing in the file shows it"
        result = ledger.verify([Head.of(json.loads(json.dumps(heads)), "noted.json")])
    assert (result.ok, result.compared, result.first_bad) == (False, 1, row)
    assert said in (result.problem or "")


def test_a_ledger_that_went_on_still_holds_what_an_earlier_head_saw(
    sound: tuple[Path, Head], tmp_path: Path
) -> None:
    path = tampered(sound, tmp_path, lambda path: None)
    with Ledger.open(f"sqlite:///{path}") as ledger:
        ledger.append([interval(T0 + timedelta(seconds=90), 10, 2000, counter=16_000)])
        head = ledger.heartbeat("daemon", T0 + timedelta(seconds=100))
        assert head is not None
        assert (head.rows, head.entries) == (ROWS + 1, 8)
        result = ledger.verify([sound[1], head])
    assert result.ok, result.problem
    assert result.compared == 2


SINCE = 8
"""Rows that were verified before."""


@pytest.mark.parametrize(
    ("tamper", "row", "said"),
    [
        (None, None, ""),
        (edit("intervals", "energy_mj = 1", "id = 3"), None, ""),
        (edit("intervals", "energy_mj = 1", "id = 11"), 11, "row 11 was changed"),
        (delete("intervals", "id = 9"), 9, "row 9 is missing"),
        (delete("intervals", "id > 6"), 7, "rows 7 to 8 are missing: an earlier head saw them"),
        (partial(remake, edit=lambda rows: rows.pop(2)), 8, "row 8 is not the one an earlier head saw"),
        (partial(append_copy, row_id=8), 17, "row 17 charges time of board host"),
        (partial(append_copy, row_id=16), 17, "row 17 charges time of board host"),
        (partial(append_copy, row_id=15), None, "conservation is broken"),
        (edit("jobs", "reason = 'bad'", "1"), None, "job j: reason is bad"),
    ],
    ids=["nothing", "before", "behind", "out", "cut", "anew", "twice, from before", "twice", "counter twice", "job"],
)  # fmt: skip
def test_rows_that_were_verified_before_are_not_recomputed(
    sound: tuple[Path, Head], tmp_path: Path, tamper: Tamper | None, row: int | None, said: str
) -> None:
    """What was changed in them since is for a whole verification: the head says what they were."""
    with Ledger.open(f"sqlite:///{sound[0]}", read_only=True) as ledger:
        before = {each["id"]: each["hash"] for each in ledger.rows()}
    since = Head(before[SINCE], "0" * 64, SINCE, 0, "noted.json")
    path = tampered(sound, tmp_path, tamper or (lambda _: None))
    with Ledger.open(f"sqlite:///{path}", read_only=True) as ledger:
        result = ledger.verify(since=since)
    assert (result.ok, result.first_bad, result.since) == (not said, row, SINCE), result.problem
    assert said in (result.problem or "")
    if not said:
        (balance,) = result.conservation
        assert (balance.charged_mj, balance.counted_mj, balance.holes_mj) == (8000, 8000, 0), (
            "of rows 9 to 16"
        )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"job_id": None, "account": "idle", "segment": None}, "row 2: it replaces row 1, which is of another time or owner"),
        ({"end_us": micros(T0) + 9_000_000}, "row 2: it replaces row 1, which is of another time or owner"),
        ({"pue": 1.0}, "row 2: it replaces row 1, which is of another time or owner"),
        ({"energy_mj": None, "grams": None, "power_w": None}, "row 2: it cannot stand for row 1"),
        ({"again": True}, "row 2: it replaces row 1, as row 3 does"),
    ],
    ids=["sound", "owner", "time", "pue", "unknown", "twice"],
)  # fmt: skip
def test_what_a_row_replaces_must_have_been_unknown_and_its_own(
    tmp_path: Path, changes: dict[str, Any], said: str | None
) -> None:
    """What is replaced counts no more: a row that names a metered one would take its energy out of every sum."""
    path = tmp_path / "ledger.db"
    with Ledger.open(f"sqlite:///{path}") as ledger:
        ledger.append([interval(T0, 10, None, job_id="j", segment=0)])
    again = changes.pop("again", False)
    known = {
        "energy_mj": 500,
        "grams": grams(0.5, 200.0, 1.2),
        "method": "estimated",
        "replaces": 1,
    } | changes
    if known["energy_mj"] is not None:
        known["grams"] = grams(0.5, 200.0, known.get("pue", 1.2))
    append_copy(path, 1, **known)
    if again:
        append_copy(path, 2)
    with Ledger.open(f"sqlite:///{path}", read_only=True) as ledger:
        result = ledger.verify()
    assert result.problem == said
    assert result.first_bad == (None if said is None else 2)
