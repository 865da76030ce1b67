"""docs/schemas: made from today's models, valid themselves, and true of what the commands really print."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from support.box import SPEC, Box, serving
from support.command import cli

from carbonsched.cli.schemas import documents, render, write
from carbonsched.ledger.ledger import Ledger
from carbonsched.model.job_state import JobState
from carbonsched.report import render as report_text
from carbonsched.report.document import build

FOLDER = Path(__file__).parents[2] / "docs" / "schemas"


@cache
def rendered() -> dict[str, str]:
    return render()


def check(name: str, document: Any) -> None:
    schema = json.loads((FOLDER / f"{name}.json").read_text())
    Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(document)


def test_committed_schemas_are_of_today() -> None:
    committed = {path.name: path.read_text() for path in FOLDER.glob("*.json")}
    assert committed == rendered(), "run: python -m carbonsched.cli.schemas docs/schemas"


@pytest.mark.parametrize("name", documents())
def test_schema_is_valid_and_versioned(name: str) -> None:
    schema = json.loads(rendered()[f"{name}.json"])
    assert ">>>" not in rendered()[f"{name}.json"], "an example in Python is for who reads the code"
    Draft202012Validator.check_schema(schema)
    assert schema["$id"] == f"urn:carbonsched:v1:{name}"


def test_write_removes_what_is_gone(tmp_path: Path) -> None:
    (tmp_path / "gone.json").write_text("{}")
    write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(rendered())


def test_schemas_refuse_what_the_models_refuse() -> None:
    check("job-spec", SPEC)
    check("job-spec", SPEC | {"carbon": {"budget_g": 1, "deadline": "36h"}})
    validator = Draft202012Validator(json.loads(rendered()["job-spec.json"]))
    for wrong in ({"nam": "x"}, {"name": "no spaces"}, {"carbon": {"budget_g": -1}}, {"model": {}}):
        assert not validator.is_valid(SPEC | wrong)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Box, Path]]:
    folder = tmp_path_factory.mktemp("box")
    box = Box(folder)
    with serving(box, folder / "api.sock") as path:
        yield box, path


def test_outputs_of_commands(run: tuple[Box, Path]) -> None:
    box, socket = run
    entry = box.add()
    check("job-list", cli("ps", "--json", socket=socket).doc)
    check("job-detail", cli("show", entry.id, "--json", socket=socket).doc)
    box.go(entry, JobState.RUNNING)
    box.segment(entry)
    check("job-detail", cli("show", entry.id, "--json", socket=socket).doc)
    check("job-log", cli("logs", entry.id, "--json", socket=socket).doc)
    check("acted", cli("pause", entry.id, "--json", socket=socket).doc)
    check("acted", cli("cancel", entry.id, "--json", socket=socket).doc)
    check("acted", cli("wait", entry.id, "--json", socket=socket).doc)
    box.log_file(entry).write_text("one\n")
    check("log-line", cli("logs", "-f", entry.id, "--json", socket=socket).doc)
    check("grid-view", cli("grid", "--json", socket=socket).doc)
    box.g_per_kwh = None
    check("grid-view", cli("grid", "--json", socket=socket).doc)
    check("grid-setup", cli("grid", "--setup", "--dry-run", "--place", "52.5,13.4", "--json").doc)
    check(
        "grid-setup",
        cli("grid", "--setup", "--place", "DE", "--no-account", "--basis", "average-lifecycle", "--json").doc,
    )
    check("grid-zones", cli("grid", "--zones", "52.5,13.4", "--json").doc)
    check("pool-list", cli("pools", "--json", socket=socket).doc)
    check("audit-result", cli("audit", "verify", "--json", socket=socket).doc)
    check("version", cli("version", "--json", socket=socket).doc)
    check("version", cli("version", "--json", socket=socket.with_name("none")).doc)


def test_simulation(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    rows = [f"2022-03-01T{h:02d}:00:00Z,{100 + h}" for h in range(24)]
    trace.write_text("\n".join(["datetime,g_per_kwh", *rows]) + "\n")
    argv = ["--trace", trace, "--start", "2022-03-01T06:00:00Z", "--segments", "3", "--segment-kwh", "1"]
    ran = cli("simulate", *argv, "--segment-hours", "1", "--budget-g", "200", "--no-pause", "--json")
    check("simulation", ran.doc)


def test_report_of_a_real_ledger(tmp_path: Path) -> None:
    begin = datetime(2026, 11, 22, tzinfo=UTC)
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        report = build(ledger, start=begin, end=begin + timedelta(days=1), now=begin + timedelta(days=2))
        check("report", json.loads(report_text(report, ledger, "json")))
