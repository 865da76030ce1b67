"""An export is verified and recomputed by Python alone, and two of them are compared."""

import json
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from support.forgery import remake
from support.job_history import T0, interval, written

from carbonsched.errors import InputError
from carbonsched.ledger import Ledger
from carbonsched.ledger.comparison import compare


def exported(path: Path, folder: Path) -> Path:
    with Ledger.open(f"sqlite:///{path}", read_only=True) as ledger:
        ledger.export(folder, T0)
    return folder


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-I", "-W", "ignore", str(folder / "recompute.py")]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def changed(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


def test_the_scripts_totals_are_those_of_the_database(tmp_path: Path) -> None:
    path = written(tmp_path)
    with Ledger.open(f"sqlite:///{path}") as ledger:
        ledger.append([interval(T0 + timedelta(seconds=60), 10, 3000), interval(T0, 10, None)])
        sums = {job: ledger.totals(job) for job in ("j", None)}
    folder = exported(path, tmp_path / "out")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {name: told["lines"] for name, told in manifest["files"].items()} == {
        "intervals.tsv": 14,
        "journal.tsv": 3,
        "jobs.tsv": 1,
        "segments.tsv": 1,
        **{name: len((folder / name).read_text().splitlines()) for name in ("recompute.py", "effects.py")},
    }
    ran = run(folder)
    assert ran.returncode == 0, ran.stderr
    nobody, job, said = (line.split() for line in ran.stdout.splitlines())
    assert said[0] == "ok:"
    assert (nobody[0], job[0]) == ("nobody", "j")
    assert float(job[1]) == sums["j"].energy_j
    assert float(job[3]) == pytest.approx(sums["j"].grams, rel=1e-9)
    assert float(job[3]) + float(nobody[3]) == pytest.approx(sums[None].grams, rel=1e-9)
    assert len((folder / "recompute.py").read_text().splitlines()) <= 40


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("intervals.tsv", '"energy_mj":105', '"energy_mj":104', "intervals.tsv was changed"),
        ("jobs.tsv", "ada", "bob", "jobs.tsv was changed"),
        ("segments.tsv", "0.5", "0.6", "segments.tsv was changed"),
        ("manifest.json", '"energy_mj": 1266', '"energy_mj": 1265', "the rows of j come to 1266 mJ"),
    ],
)
def test_what_was_changed_in_an_export_is_named(
    tmp_path: Path, name: str, old: str, new: str, said: str
) -> None:
    folder = exported(written(tmp_path), tmp_path / "out")
    changed(folder / name, old, new)
    ran = run(folder)
    assert ran.returncode == 1
    assert said in ran.stderr
    assert (ran.stderr[:5], ran.stderr.count("\n")) == ("BAD: ", 1), "one clear line, and no traceback"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("manifest.json", "{"),
        ("manifest.json", "[]"),
        ("manifest.json", '{"files": {}, "heads": {}, "totals": []}'),
        ("manifest.json", None),
        ("intervals.tsv", None),
        ("intervals.tsv", "x"),
        ("journal.tsv", "\udcff"),
    ],
)
def test_what_is_no_export_any_more_ends_the_script_with_one_line(
    tmp_path: Path, name: str, text: str | None
) -> None:
    folder = exported(written(tmp_path), tmp_path / "out")
    if text is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(text.encode(errors="surrogateescape"))
    ran = run(folder)
    assert (ran.returncode, ran.stderr[:5], ran.stderr.count("\n")) == (1, "BAD: ", 1), ran.stderr


def test_the_script_of_the_manual_verifies_one_chain(tmp_path: Path) -> None:
    manual = (Path(__file__).parents[2] / "docs" / "ledger.md").read_text(encoding="utf-8")
    script = re.findall(r"```python\n(.*?)```", manual, flags=re.S)[0]
    folder = exported(written(tmp_path), tmp_path / "out")
    last = json.loads((folder / "manifest.json").read_text())["heads"]["intervals"]

    def check() -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-I", "-W", "ignore", "-c", script, str(folder / "intervals.tsv")]
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    assert check().stdout == f"ok 12 {last}\n"
    changed(folder / "intervals.tsv", '"energy_mj":105', '"energy_mj":104')
    assert "AssertionError: line 6" in check().stderr


def test_two_exports_are_the_same_or_one_goes_on(tmp_path: Path) -> None:
    path = written(tmp_path)
    a = exported(path, tmp_path / "a")
    with Ledger.open(f"sqlite:///{path}") as ledger:
        ledger.append([interval(T0 + timedelta(seconds=60), 10, 3000)])
    b = exported(path, tmp_path / "b")
    assert compare(a, a).same
    found, back = compare(a, b), compare(b, a)
    assert (found.same, found.continued, back.continued) == (False, "b", "a")
    assert [(chain.a, chain.b, chain.common) for chain in found.chains] == [(12, 13, 12), (3, 3, 3)]


def test_the_first_row_that_differs_is_told_with_its_fields(tmp_path: Path) -> None:
    path = written(tmp_path)
    a = exported(path, tmp_path / "a")
    remake(path, edit=lambda rows: rows[4].update(energy_mj=1))
    found = compare(a, exported(path, tmp_path / "b"))
    assert (found.same, found.continued) == (False, None)
    intervals, journal = found.chains
    assert (intervals.common, intervals.first_different) == (4, 5)
    assert intervals.fields["energy_mj"] == (104, 1)
    assert "board" not in intervals.fields
    assert (journal.common, journal.first_different, "interval_hash" in journal.fields) == (1, 2, True)


def test_an_export_is_no_head_of_a_ledger_that_was_made_anew(tmp_path: Path) -> None:
    from carbonsched.ledger.heads import read_heads

    path = written(tmp_path)
    heads = read_heads(exported(path, tmp_path / "a"))
    remake(path, edit=lambda rows: rows[4].update(energy_mj=1))
    with Ledger.open(f"sqlite:///{path}") as ledger:
        assert ledger.verify().ok
        result = ledger.verify(heads)
    assert (result.ok, result.first_bad) == (False, 12)
    assert "row 12 is not the one an earlier head saw" in (result.problem or "")


def test_a_folder_with_something_in_it_is_not_written(tmp_path: Path) -> None:
    path = written(tmp_path)
    with pytest.raises(InputError, match="is not empty"):
        exported(path, tmp_path)
    with pytest.raises(InputError, match="cannot be written"):
        exported(path, path / "below-a-file")


@pytest.mark.parametrize(
    ("name", "text"), [("intervals.tsv", "x\ty\n"), ("intervals.tsv", "\n"), ("journal.tsv", None)]
)
def test_what_is_no_export_is_refused_by_name(tmp_path: Path, name: str, text: str | None) -> None:
    path = written(tmp_path)
    a, b = exported(path, tmp_path / "a"), exported(path, tmp_path / "b")
    if text is None:
        (b / name).unlink()
    else:
        (b / name).write_text(text)
    with pytest.raises(InputError, match="name two folders of `audit export`"):
        compare(a, b)
