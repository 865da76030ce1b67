"""Commands that read or write the ledger of `--ledger`: where it cannot be had they speak of that flag."""

from pathlib import Path

import pytest
from support.command import cli

from carbonsched.ledger.ledger import Ledger

READERS = (
    ("audit", "verify"),
    ("audit", "export", "out"),
    ("audit", "add-up"),
    ("audit", "roll-up", "--archive", "out"),
    ("audit", "anchor", "out"),
    ("report", "--from", "2026-01-01"),
)


@pytest.mark.parametrize("command", READERS, ids=" ".join)
@pytest.mark.parametrize(
    ("ledger", "words"),
    [
        ("none.db", "there is no ledger at {folder}/none.db; name one that is there"),
        ("no/such/a.db", "there is no folder {folder}/no/such; name a ledger that is there"),
        ("notes.txt", "{folder}/notes.txt is no ledger; name a file of SQLite that carbonsched made"),
        (".", "{folder} is a folder; give a file"),
        ("nonsense://x", "no driver for nonsense://x"),
    ],
)
def test_a_ledger_that_is_none_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], ledger: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("bread, milk, eggs")
    ran = cli(*command, "--ledger", ledger)
    assert (ran.code, ran.err.count("\n")) == (2, 1), ran.err
    assert ran.err.startswith(f"carbonsched: --ledger: {words.format(folder=tmp_path)}")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_import_makes_a_ledger_but_no_folder(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("start_time,window_name,elapsed_time,gpu0_energy\n1764000000.0,train,10.0,1000\n")
    ran = cli("import", "zeus", log, "--ledger", tmp_path / "no" / "mine.db")
    assert (ran.code, "--ledger: there is no folder" in ran.err) == (2, True), ran.err
    assert cli("import", "zeus", log, "--ledger", tmp_path / "mine.db").code == 0
    with Ledger.open(f"sqlite:///{tmp_path / 'mine.db'}", read_only=True) as ledger:
        assert ledger.verify().ok


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("export", "no/such/out"), "DIR: there is no folder no/such; make it first"),
        (("anchor", "no/such/out"), "DIR: there is no folder no/such; make it first"),
        (("anchor", "out", "--url", "freetsa"), "--url: 'freetsa' is no address; write it like https://"),
        (("verify", "--checkpoint", "no/such/at.json"), "--checkpoint: there is no folder no/such"),
        (("verify", "--export", "no/such/out"), "--export: there is no folder no/such"),
    ],
)
def test_a_mistyped_place_makes_no_folder_and_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Ledger.open(f"sqlite:///{tmp_path / 'mine.db'}").close()
    ran = cli("audit", *command, "--ledger", "mine.db")
    assert (ran.code, ran.err.count("\n")) == (2, 1), ran.err
    assert ran.err.startswith(f"carbonsched: {says}"), ran.err
    assert not (tmp_path / "no").exists()
