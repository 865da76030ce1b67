"""`grid --setup`: a chain that the config takes, a file that is never written over, a terminal that is asked on."""

import os
import pty
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from support.command import cli

from carbonsched.cli.grid_places import PLACES
from carbonsched.clock import SystemClock
from carbonsched.config import Config
from carbonsched.feeds.base import Site
from carbonsched.feeds.factory import build_chain

SETUP = ("grid", "--setup", "--dry-run")


@pytest.mark.parametrize("place", PLACES)
def test_every_place_has_a_chain_that_the_daemon_takes(place: str, tmp_path: Path) -> None:
    doc = cli(*SETUP, "--place", place, "--json").doc
    assert doc["zone"]
    assert doc["why"]
    assert doc["feeds"]
    assert doc["probe"] is None
    config = Config.parse(tomllib.loads(doc["toml"]), folder=tmp_path)
    chain = build_chain(config.feeds, Site(config.zone, SystemClock(), tmp_path))
    assert [status.name for status in chain.status()] == [feed["provider"] for feed in doc["feeds"]]


def test_for_people_it_says_why_and_prints_the_lines() -> None:
    ran = cli(*SETUP, "--place", "London")
    assert ran.code == 0
    assert "one budget counts one basis" in " ".join(ran.out.split())
    assert tomllib.loads(ran.out[ran.out.index("[zone]") :])["feeds"][0]["provider"] == "neso"


def test_the_lines_are_written_and_probed(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    argv = ("grid", "--setup", "--place", "DE", "--no-account", "--basis", "average-lifecycle", "-o", file)
    doc = cli(*argv, "--json").doc
    assert file.read_text() == doc["toml"]
    assert doc["written"] == str(file)
    assert [(row["name"], row["ok"]) for row in doc["probe"]] == [("static", True)]
    ran = cli(*argv)
    assert ran.code == 2
    assert "is there already; choose another file" in ran.err


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--setup"], "--place: is missing, and there is no terminal to ask on; give a country"),
        (["--setup", "--json"], "--place: is missing"),
        (["--setup", "--place", "Atlantis"], "--place: 'Atlantis' is no country"),
        (["--setup", "--place", "DE", "--basis", "average"], "--basis: 'average' is none; choose one of"),
        (["--setup", "--place", "DE", "--dry-run", "--basis", "marginal-lifecycle"], "no feed of DE speaks"),
        (["--place", "DE"], "--place: is read with --setup alone"),
        (["--zones", "DE", "--dry-run"], "--dry-run: is read with --setup alone"),
        (["--config", "x"], "--config: is read with --probe alone"),
        (["--setup", "--probe"], "--probe: excludes --setup"),
        (["--probe", "--forecast", "3"], "--forecast: excludes --probe"),
        (["--setup", "--place", "DE", "--dry-run", "-o", "x"], "--output: is a file to write, and --dry-run"),
        (["--zones", ""], "--zones: '' is no country"),
        (["--zones", "52.5,"], "--zones: '52.5,' is no country"),
        (["--setup", "--place", "DE", "--no-account", "-o", "/nowhere/x.toml"], "--output: /nowhere/x.toml"),
    ],
)
def test_bad_usage_is_one_line_and_2(argv: list[str], says: str) -> None:
    ran = cli("grid", *argv)
    assert (ran.code, ran.out) == (2, "")
    assert says in ran.err
    assert ran.err.count("\n") == 1


def test_on_a_terminal_it_asks_until_it_knows() -> None:
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "carbonsched", "grid", "--setup", "--dry-run"]
    ran = subprocess.Popen(argv, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs)
    try:
        os.close(theirs)
        os.write(ours, b"Atlantis\nVienna\n")
        out, _ = ran.communicate(timeout=30)
    finally:
        os.close(ours)
    assert ran.returncode == 0
    assert b'name = "AT"' in out


def test_neither_the_network_nor_what_speaks_to_it_is_loaded() -> None:
    code = (
        "import socket, sys; socket.getaddrinfo = socket.create_connection = None\n"
        "from carbonsched.cli import main\n"
        "assert main(['grid', '--setup', '--dry-run', '--place', 'London', '--json']) == 0\n"
        "assert main(['grid', '--zones', '52.5,13.4', '--json']) == 0\n"
        "heavy = {'requests', 'pandas', 'numpy', 'torch', 'sqlalchemy', 'fastapi', 'codecarbon.emissions_tracker'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stderr.strip() == "[]"
