"""A verification that was killed goes on where it was, finds what it would have found, and takes no false word for where it was."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from support.command import cli
from support.job_history import T0, interval

from carbonsched.errors import InputError
from carbonsched.ledger import Ledger
from carbonsched.ledger.archives import Archive
from carbonsched.ledger.checkpoint import Checkpoint, Done
from carbonsched.ledger.rollup import Retention, RollUp

ROWS = 5000


class Killed(BaseException):
    """As by a signal: nothing after it runs."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5000 rows of 2 boards, of which some are merged, with heartbeats, and totals of their hours."""
    path = tmp_path_factory.mktemp("made") / "ledger.db"
    with Ledger.open(f"sqlite:///{path}") as ledger:
        for n in range(0, ROWS // 2, 500):
            ledger.append([row for k in range(n, n + 500) for row in _rows(k)])
            ledger.heartbeat("daemon", T0 + timedelta(seconds=10 * (n + 500)))
        RollUp(ledger, Retention(raw_days=0.2, minute_days=1), None).work(T0 + timedelta(seconds=5 * ROWS))
        assert ledger.total_hours(T0 + timedelta(days=1)) == 7
    return path


def _rows(k: int) -> list[Any]:
    at = T0 + timedelta(seconds=10 * k)
    return [
        interval(at, 10, 500, counter=500 * k, g_per_kwh=200.0 + k % 30),
        interval(at, 10, 90, board="host"),
    ]


@pytest.fixture
def ledger(made: Path, tmp_path: Path) -> Iterator[Ledger]:
    path = tmp_path / "ledger.db"
    path.write_bytes(made.read_bytes())
    with Ledger.open(f"sqlite:///{path}") as opened:
        yield opened


def killed(ledger: Ledger, path: Path, after: int) -> int:
    """Verify until so much was told, and be killed then; how much was."""
    told = 0

    def report(_part: str, count: int) -> None:
        nonlocal told
        if told >= after:
            raise Killed
        told += count

    with pytest.raises(Killed):
        ledger.verify(steps=Checkpoint(path, report, every_s=0.0))
    return told


@pytest.mark.parametrize("after", [1000, 3000])
def test_it_goes_on_where_it_was_and_answers_the_same(ledger: Ledger, tmp_path: Path, after: int) -> None:
    path, told, seen = tmp_path / "verify.json", dict[str, int](), list[int]()
    whole = ledger.verify()
    assert whole.ok
    killed(ledger, path, after)

    def report(part: str, count: int) -> None:
        seen.append(count)
        told[part] = told.get(part, 0) + count

    again = ledger.verify(steps=Checkpoint(path, report, every_s=0.0))
    assert again == whole
    assert not path.exists(), "the next one begins anew"
    assert seen[0] >= 1000, "as many rows were done before"
    rows, hours = ledger.held()
    assert rows - 1000 < told["rows"] <= rows
    assert told["hours"] == hours


def test_a_second_kill_loses_nothing_either(ledger: Ledger, tmp_path: Path) -> None:
    path = tmp_path / "verify.json"
    for after in (1000, 2000, 3000):
        killed(ledger, path, after)
    assert ledger.verify(steps=Checkpoint(path)) == ledger.verify()


@pytest.fixture
def rolled(tmp_path: Path) -> Iterator[tuple[Ledger, Archive]]:
    """The ledger with the archive of its merged rows, of slices of 300 rows."""
    archive = Archive(tmp_path / "archive")
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        for n in range(0, ROWS // 2, 500):
            opened.append([row for k in range(n, n + 500) for row in _rows(k)])
        keep = Retention(raw_days=0.1, minute_days=0.2, rows=300)
        RollUp(opened, keep, archive, at_rest=True).work(T0 + timedelta(seconds=5 * ROWS))
        yield opened, archive


def _killed_in_archive(ledger: Ledger, archive: Archive, path: Path, rows: int) -> None:
    """Behind so many rows of the archive."""
    read = 0

    def report(part: str, count: int) -> None:
        nonlocal read
        read += count * (part == "archive")
        if read > rows:
            raise Killed

    with pytest.raises(Killed):
        ledger.verify(archive=archive, steps=Checkpoint(path, report, every_s=0.0))


@pytest.mark.parametrize("after", [[300], [1500], [600, 900, 2400]])
def test_an_archive_goes_on_where_it_was(
    rolled: tuple[Ledger, Archive], tmp_path: Path, after: list[int]
) -> None:
    ledger, archive = rolled
    whole, path, seen = ledger.verify(archive=archive), tmp_path / "verify.json", list[int]()
    assert whole.ok
    assert whole.merged is not None
    assert whole.merged.recomputed == whole.merged.rows == ledger.merged_rows() > 3000
    for rows in after:
        _killed_in_archive(ledger, archive, path, rows)

    def report(part: str, count: int) -> None:
        if part == "archive":
            seen.append(count)

    assert ledger.verify(archive=archive, steps=Checkpoint(path, report, every_s=0.0)) == whole
    assert after[-1] - 300 <= seen[0] <= after[-1], "those were done before"
    assert sum(seen) == whole.merged.rows
    assert max(seen[1:]) <= 300, "a slice at a time"


@pytest.mark.parametrize("rows", [300, 1500])
def test_what_is_wrong_in_the_rest_of_an_archive_is_found(
    rolled: tuple[Ledger, Archive], tmp_path: Path, rows: int
) -> None:
    ledger, archive = rolled
    path = tmp_path / "verify.json"
    _killed_in_archive(ledger, archive, path, rows)
    file = next(archive.folder.iterdir())
    content = file.read_bytes()
    file.write_bytes(content[:-400] + bytes(400))
    found = ledger.verify(archive=archive, steps=Checkpoint(path))
    assert found.problem is not None
    assert "is damaged" in found.problem


def test_where_another_archive_stood_counts_as_none(rolled: tuple[Ledger, Archive], tmp_path: Path) -> None:
    ledger, archive = rolled
    path, other = tmp_path / "verify.json", tmp_path / "copy"
    _killed_in_archive(ledger, archive, path, 1500)
    other.mkdir()
    for file in archive.folder.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    seen = list[int]()
    steps = Checkpoint(path, lambda part, count: seen.append(count) if part == "archive" else None)
    assert ledger.verify(archive=Archive(other), steps=steps).ok
    assert max(seen) <= 300, "from its first row on"


def test_what_is_told_comes_to_the_whole(rolled: tuple[Ledger, Archive]) -> None:
    ledger, archive = rolled
    ledger.total_hours(T0 + timedelta(days=1))
    rows, hours = ledger.held()
    done, shares = Done(rows, hours, ledger.merged_rows()), list[float]()

    def report(part: str, count: int) -> None:
        done.add(part, count)
        shares.append(done.share)

    assert ledger.verify(archive=archive, steps=Checkpoint(report=report)).ok
    assert shares == sorted(shares)
    assert 0.0 < shares[0] < 0.5
    assert 1 - 1000 / rows < shares[-1] <= 1.0
    assert done.part == "hours"


def _behind(ledger: Ledger) -> None:
    with ledger.transaction() as connection:
        connection.execute(text("DROP TRIGGER intervals_no_update"))
        connection.execute(text("UPDATE intervals SET energy_mj = energy_mj + 1 WHERE id = 4990"))


def _at(ledger: Ledger) -> None:
    with ledger.transaction() as connection:
        connection.execute(text("DROP TRIGGER intervals_no_update"))
        connection.execute(text("UPDATE intervals SET hash = lower(hex(randomblob(32))) WHERE tier IS NULL"))


def _totals(ledger: Ledger) -> None:
    with ledger.transaction() as connection:
        connection.execute(text("UPDATE hours SET energy_mj = energy_mj + 1"))


@pytest.mark.parametrize("harm", [_behind, _at, _totals])
def test_what_was_changed_meanwhile_is_found(
    ledger: Ledger, tmp_path: Path, harm: Callable[[Ledger], None]
) -> None:
    path = tmp_path / "verify.json"
    killed(ledger, path, 3000)
    harm(ledger)
    found = ledger.verify(steps=Checkpoint(path))
    assert not found.ok
    assert (found.problem, found.first_bad) == (ledger.verify().problem, ledger.verify().first_bad)


def _other_sums(state: dict[str, Any]) -> None:
    state["state"]["walk"]["sums"]["energy_mj"] += 1


def _no_state(state: dict[str, Any]) -> None:
    del state["state"]["walk"]["after"]


@pytest.mark.parametrize("forge", [_other_sums, _no_state, lambda state: state.clear()])
def test_a_file_that_was_changed_counts_as_none(
    ledger: Ledger, tmp_path: Path, forge: Callable[[dict[str, Any]], None]
) -> None:
    path, seen = tmp_path / "verify.json", list[int]()
    killed(ledger, path, 3000)
    said = json.loads(path.read_text())
    forge(said)
    path.write_text(json.dumps(said))
    assert ledger.verify(steps=Checkpoint(path, lambda _part, count: seen.append(count))).ok
    assert seen.count(1000) == ledger.held()[0] // 1000, "from the first row on"


@pytest.mark.parametrize("held", [b'{"model": "mine"}', b"[1, 2]", b"name = 1\n", b"\xff\x00"])
def test_a_file_of_something_else_is_refused_and_stays(ledger: Ledger, tmp_path: Path, held: bytes) -> None:
    path = tmp_path / "job.json"
    path.write_bytes(held)
    with pytest.raises(
        InputError, match=r"--checkpoint: .* is no checkpoint of a verification; give another file"
    ):
        ledger.verify(steps=Checkpoint(path, every_s=0.0))
    assert path.read_bytes() == held


def test_a_ledger_that_was_rolled_up_since_is_verified_from_the_first(ledger: Ledger, tmp_path: Path) -> None:
    path, seen = tmp_path / "verify.json", list[int]()
    killed(ledger, path, 3000)
    rolled = RollUp(ledger, Retention(raw_days=0.1, minute_days=1), None)
    assert rolled.work(T0 + timedelta(seconds=5 * ROWS)).rows
    assert ledger.verify(steps=Checkpoint(path, lambda _part, count: seen.append(count))).ok
    assert seen[0] == 1000
    assert seen.count(1000) == ledger.held()[0] // 1000


def test_the_command_keeps_and_removes_it_and_says_where_it_cannot(ledger: Ledger, tmp_path: Path) -> None:
    path = tmp_path / "verify.json"
    where = str(tmp_path / "ledger.db")
    killed(ledger, path, 3000)
    ran = cli("audit", "verify", "--ledger", where, "--checkpoint", str(path))
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"ok: {ROWS} rows verify")
    assert not path.exists()
    with pytest.raises(InputError, match="cannot be written"):
        ledger.verify(steps=Checkpoint(tmp_path / "no" / "verify.json", every_s=0.0))
    both = cli(
        "audit",
        "verify",
        "--ledger",
        where,
        "--checkpoint",
        "x",
        "--since",
        str(made_heads(ledger, tmp_path)),
    )
    assert (both.code, both.err.count("\n")) == (2, 1)


def made_heads(ledger: Ledger, folder: Path) -> Path:
    path = folder / "heads.json"
    path.write_text(ledger.head().line())
    return path
