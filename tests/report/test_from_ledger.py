"""A report of a ledger's file, without a daemon: what the daemon says of it, and nothing is written."""

import json
import warnings
from pathlib import Path

import pytest
from support.command import cli
from support.job_history import T0, interval, submitted, write_history

from carbonsched.errors import InputError
from carbonsched.ledger import Ledger
from carbonsched.model.views import ReportQuery
from carbonsched.report import build
from carbonsched.report.from_ledger import pieces


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("box") / "ledger.db"
    with Ledger.open(f"sqlite:///{made}") as ledger:
        write_history(ledger, submitted())
    return made


def test_the_command_reads_a_file_and_writes_nothing(path: Path) -> None:
    before = path.read_bytes()
    ran = cli("report", "--job", "scitldr-1", "--ledger", str(path), "--json")
    assert (ran.code, ran.err) == (0, "")
    said = json.loads(ran.out)
    with Ledger.open(f"sqlite:///{path}", read_only=True) as ledger:
        want = build(ledger, "scitldr-1", now=T0)
    assert said["totals"] == want.totals.dump()
    assert said["accounts"] == []
    assert path.read_bytes() == before


def test_jobs_are_chosen_by_user_and_label(path: Path) -> None:
    with Ledger.open(f"sqlite:///{path}", read_only=True) as ledger:
        for asked, jobs in (
            (ReportQuery(user="ada"), 1),
            (ReportQuery(user="bob"), 0),
            (ReportQuery(labels=("team=x",)), 0),
        ):
            found = json.loads("".join(pieces(ledger, asked, "json", T0)))
            assert len(found["jobs"]) == jobs
        with pytest.raises(InputError, match="--config FILE"):
            pieces(ledger, ReportQuery(site="Berlin"), "json", T0)


def test_what_the_config_states_is_in_the_report(path: Path, tmp_path: Path) -> None:
    config = tmp_path / "carbonsched.toml"
    config.write_text(
        f'state_dir = "{tmp_path}"\n[accounting]\nsite = "Berlin"\n[[feeds]]\nprovider = "static"\n'
        'g_per_kwh = 200\nbasis = "average-lifecycle"\nsource = "test"\n'
    )
    asked = ("report", "--site", "Berlin", "--ledger", str(path), "--json")
    assert cli(*asked).code == 2
    ran = cli(*asked, "--config", str(config))
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out)["statement"]["site"] == "Berlin"
    alone = cli("report", "--job", "scitldr-1", "--config", str(config))
    assert (alone.code, alone.err.count("\n")) == (2, 1)
    assert "--ledger" in alone.err


def test_a_url_that_says_how_it_is_opened_warns_of_nothing(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Ledger.open(f"sqlite:///{path}?mode=ro", read_only=True) as ledger:
            assert ledger.totals().rows > 0
    for mode in ("ro", "memory"):
        with pytest.raises(InputError, match=f"mode={mode}"):
            Ledger.open(f"sqlite:///{path}?mode={mode}")


def test_totals_that_are_kept_serve_a_reader(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'l.db'}") as ledger:
        ledger.append([interval(T0, 60, 100)])
        ledger.total_hours(T0.replace(day=22))
    with Ledger.open(f"sqlite:///{tmp_path / 'l.db'}", read_only=True) as ledger:
        assert build(ledger, now=T0).totals.energy_j == 0.1
