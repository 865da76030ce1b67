"""`carbonsched audit`: export, anchor, verify against both, diff."""

from pathlib import Path

import pytest
from support.box import Box
from support.command import cli
from support.forgery import remake
from support.job_history import written

from carbonsched.model.audit import AuditResult


def test_audit_hands_the_ledger_to_others(tmp_path: Path) -> None:
    url = f"sqlite:///{written(tmp_path)}"
    out, heads = tmp_path / "out", tmp_path / "heads"
    ran = cli("audit", "export", str(out), "--ledger", url, "--json")
    assert (ran.code, ran.doc["rows"], ran.doc["entries"]) == (0, 12, 3)
    assert cli("audit", "anchor", str(heads), "--ledger", url, "--json").doc["stamped_at"] is None
    ran = cli("audit", "verify", "--ledger", url, "--against", str(out), "--against", str(heads), "--json")
    assert (ran.code, ran.doc["ok"], ran.doc["compared"]) == (0, True, 2)
    assert set(ran.doc["heads"]) == {"intervals", "journal"}
    assert ran.doc["since"] is None
    ran = cli("audit", "verify", "--ledger", url, "--since", str(heads))
    assert (ran.code, ran.out) == (0, "ok: 12 rows verify, those behind row 12 recomputed\n")
    ran = cli("audit", "diff", str(out), str(out), "--json")
    assert (ran.code, ran.doc["same"]) == (0, True)
    remake(tmp_path / "ledger.db", edit=lambda rows: rows[4].update(energy_mj=1))
    ran = cli("audit", "verify", "--ledger", url, "--against", str(heads))
    assert ran.code == 1
    assert "row 12 is not the one an earlier head saw" in ran.out
    again = tmp_path / "again"
    assert cli("audit", "export", str(again), "--ledger", str(tmp_path / "ledger.db")).code == 0, (
        "a file will do"
    )
    ran = cli("audit", "diff", str(out), str(again))
    assert ran.code == 1
    assert "row 5 differs: energy_mj 104 and 1" in ran.out


@pytest.mark.parametrize(
    ("argv", "field"),
    [
        (["verify", "--against", "none.json"], "--against"),
        (["verify", "--since", "none.json"], "--since"),
        (["verify", "--since", "bad.json"], "--since: bad.json is of a ledger that did not verify"),
        (["verify", "--ca", "ca.pem"], "--ca"),
        (["verify", "--public-key", "key.pub"], "--public-key"),
        (["diff", "none", "none"], "A"),
        (["export", "out"], "--ledger"),
    ],
)
def test_audit_names_what_is_wrong_with_what_it_is_given(
    box: Box, socket: Path, tmp_path: Path, argv: list[str], field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.json").write_text(AuditResult(ok=False, rows=12, first_bad=7).model_dump_json())
    ran = cli("audit", *argv, socket=socket)
    assert ran.code == 2
    assert ran.err.startswith(f"carbonsched: {field}")
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("argv", [["add-up"], ["roll-up", "--archive", "archive"]])
def test_a_mistyped_ledger_is_not_made(
    argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = cli("audit", *argv, "--ledger", "none.db")
    assert ran.code == 2
    assert "there is no ledger at" in ran.err
    assert list(tmp_path.iterdir()) == []
