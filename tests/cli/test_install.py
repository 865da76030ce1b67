"""`carbonsched install` into a folder: what it lays down, that it may be repeated, and what it refuses."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from carbonsched.cli import completions, install_files, main, manual
from carbonsched.cli.app import app
from carbonsched.model.checks import Installation

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One that everybody can read, as below /opt."""
    folder = Path("/opt/elsewhere")
    monkeypatch.setattr("carbonsched.cli.install._checked", lambda *_: folder)
    return folder


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> Installation:
    assert main([*argv, "--json"]) == 0
    return Installation.model_validate(json.loads(capsys.readouterr().out))


@pytest.mark.parametrize("prefix", ["/usr", "/usr/local"])
def test_all_is_laid_down_once_and_what_people_edit_stays(
    prefix: str, environment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ("install", "--systemd", "--prefix", prefix, "--root", str(tmp_path))
    first = run(capsys, *argv)
    assert {Path(path).name for path in first.installed} >= {
        *install_files.UNITS,
        "carbonsched",
        "_carbonsched",
    }
    unit = tmp_path / prefix.lstrip("/") / "lib/systemd/system/carbonsched.service"
    assert f"ExecStart={environment}/bin/carbonsched daemon" in unit.read_text()
    assert (tmp_path / prefix.lstrip("/") / "bin/carbonsched").readlink() == environment / "bin/carbonsched"

    config = tmp_path / "etc/carbonsched/config.toml"
    assert config.stat().st_mode & 0o777 == 0o640
    config.write_text("pue = 1.1\n")
    unit.write_text("an older version's")
    again = run(capsys, *argv)
    assert [Path(path).name for path in again.installed] == ["carbonsched.service"]
    assert config.read_text() == "pue = 1.1\n"
    assert "WatchdogSec" in unit.read_text()


def test_a_unit_that_systemd_would_take_in_place_of_ours_is_named(
    environment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "etc/systemd/system/carbonsched.service"
    old.parent.mkdir(parents=True)
    old.touch()
    assert run(capsys, "install", "--systemd", "--root", str(tmp_path)).shadowed_by == (str(old),)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["install"], "give --systemd"),
        (["install", "--systemd", "--prefix", "here"], "--prefix: here is relative"),
    ],
)
def test_what_is_refused(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert said in capsys.readouterr().err


def test_every_file_in_deploy_goes_somewhere() -> None:
    """What is laid down is in the wheel, and nothing that people need is left behind."""
    laid = "\n".join(each.text for each in install_files.files(Path("/usr"), Path(install_files.WRITTEN_FOR)))
    for path in DEPLOY.rglob("*"):
        if path.is_file() and "deb" not in path.parts:
            assert path.read_text() in laid, path


def test_completions_know_every_command_and_option(tmp_path: Path) -> None:
    script = tmp_path / "carbonsched.bash"
    script.write_text(completions.bash())
    for line, offered in (
        ("", typer.main.get_command(app).commands),  # type: ignore[attr-defined]
        ("audit", ["verify", "export", "diff", "anchor", "--help"]),
        ("--socket /run/x submit", ["--budget-g", "--wait", "--help"]),
    ):
        words = f"COMP_WORDS=(carbonsched {line} ''); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))"
        shell = f'. {script}; {words}; _carbonsched; printf "%s\\n" "${{COMPREPLY[@]}}"'
        done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True)
        assert set(offered) <= set(done.stdout.split()), line
    for name, text in (("zsh", completions.zsh()), ("fish", completions.fish())):
        assert all(entry.path.split()[-1] in text for entry in completions.entries() if entry.path)
        if shell_path := shutil.which(name):
            (tmp_path / name).write_text(text)
            subprocess.run([shell_path, "-n", str(tmp_path / name)], check=True)


def test_the_manual_holds_every_command_and_no_fault_of_form(tmp_path: Path) -> None:
    text = manual.page()
    plain = text.replace(r"\-", "-")
    for entry in completions.entries():
        for option in entry.options:
            assert option.name == "--help" or re.search(
                rf"^\.B .*{re.escape(option.name)}\b", plain, re.MULTILINE
            )
        if entry.path and not entry.commands:
            assert re.search(rf"^\.SS carbonsched {entry.path}\b", plain, re.MULTILINE)
    if shutil.which("man"):
        (tmp_path / "c.1").write_text(text)
        done = subprocess.run(
            ["man", "--warnings", "-l", "-Tutf8", str(tmp_path / "c.1")],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "from carbonsched.power.host import HostSettings as H; print(H(provider='auto').build(None))",
            "None",
        ),
        (
            "from carbonsched.power.host import HostSettings as H; H(provider='codecarbon').build(None)",
            "power.host: codecarbon is not installed",
        ),
        (
            "from carbonsched.feeds.static import country_mix; country_mix('DEU', 'feeds[0].country')",
            "needs codecarbon's data",
        ),
    ],
)
def test_without_codecarbon_only_what_it_gives_is_missing(code: str, said: str) -> None:
    hide = "import sys; sys.modules['codecarbon'] = None; import importlib.util as u; f = u.find_spec; u.find_spec = lambda n, *a: None if n == 'codecarbon' else f(n, *a); "
    done = subprocess.run([sys.executable, "-c", hide + code], capture_output=True, text=True, check=False)
    assert said in done.stdout + done.stderr
