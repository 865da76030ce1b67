"""The files that an administrator installs, checked by systemd's own tools."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from carbonsched import config
from carbonsched.address import socket_path

DEPLOY = Path(__file__).parents[2] / "deploy"
BINARY = re.compile(r"/opt/carbonsched/bin/\w+")


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: apt-get install systemd)")
    return found


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "SYSTEMD_COLORS": "0", "SYSTEMD_EMOJI": "0"}
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=env)


def installed(name: str, folder: Path) -> Path:
    """A unit, its binary at a path that exists here."""
    path = folder / name
    path.write_text(BINARY.sub(sys.executable, (DEPLOY / name).read_text()))
    return path


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    return installed("carbonsched.service", tmp_path)


def exposure(unit: Path) -> float:
    done = run(tool("systemd-analyze"), "security", "--offline=true", str(unit))
    found = re.search(r"Overall exposure level for .*: ([0-9.]+)", done.stdout)
    assert found, done.stderr
    return float(found.group(1))


@pytest.mark.parametrize("name", ["carbonsched.service", "carbonsched-clocks.service"])
def test_systemd_finds_no_fault_with_the_units(name: str, tmp_path: Path) -> None:
    done = run(tool("systemd-analyze"), "verify", str(installed(name, tmp_path)))
    assert (done.returncode, done.stderr) == (0, "")


def test_the_helper_that_locks_clocks_has_that_one_right(tmp_path: Path) -> None:
    unit = installed("carbonsched-clocks.service", tmp_path)
    assert re.findall(r"^CapabilityBoundingSet=(.*)$", unit.read_text(), re.MULTILINE) == ["CAP_SYS_ADMIN"]
    assert exposure(unit) <= 2.5


def test_verify_would_have_found_one(unit: Path) -> None:
    unit.write_text(unit.read_text() + "\nWatchdogSec=soon\n")
    assert run(tool("systemd-analyze"), "verify", str(unit)).stderr != ""


def test_the_unit_is_well_confined(unit: Path) -> None:
    assert exposure(unit) <= 2.0


def test_jobs_as_their_owners_cost_confinement_but_stay_confined(unit: Path) -> None:
    drop_in = unit.with_name("carbonsched.service.d")
    drop_in.mkdir()
    shutil.copy(DEPLOY / "as-owner.conf", drop_in)
    assert run(tool("systemd-analyze"), "verify", str(unit)).stderr == ""
    assert exposure(unit) <= 3.6


def test_the_group_may_reach_the_socket_and_user_may_read_cpu_energy(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("systemd-sysusers --root needs root")
    (tmp_path / "etc").mkdir()
    users = run(
        tool("systemd-sysusers"), f"--root={tmp_path}", str(DEPLOY / "sysusers.d" / "carbonsched.conf")
    )
    assert users.returncode == 0, users.stderr
    passwd = (tmp_path / "etc" / "passwd").read_text()
    groups = (tmp_path / "etc" / "group").read_text()
    assert re.search(r"^carbonsched:.*:/var/lib/carbonsched:.*nologin$", passwd, re.MULTILINE)
    assert re.search(r"^carbonsched-rapl:x:\d+:carbonsched$", groups, re.MULTILINE)

    made = run(
        tool("systemd-tmpfiles"),
        f"--root={tmp_path}",
        "--create",
        str(DEPLOY / "tmpfiles.d" / "carbonsched.conf"),
    )
    assert made.returncode == 0, made.stderr
    uid = int(passwd.split("carbonsched:x:")[1].split(":")[0])
    temporary = (tmp_path / "var/cache/carbonsched/tmp").stat()
    assert (temporary.st_uid, temporary.st_mode & 0o777) == (uid, 0o700)
    assert (tmp_path / "etc/carbonsched").stat().st_mode & 0o777 == 0o750


def test_the_example_configuration_is_read_by_the_daemon() -> None:
    loaded = config.load(DEPLOY / "config.toml")
    assert [feed.provider for feed in loaded.feeds] == ["neso", "static"]
    unit = (DEPLOY / "carbonsched.service").read_text()
    assert loaded.state == Path("/var/lib") / re.findall(r"^StateDirectory=(.*)$", unit, re.MULTILINE)[0]
    runtime = Path("/run") / re.findall(r"^RuntimeDirectory=(.*)$", unit, re.MULTILINE)[0]
    assert socket_path(None, loaded.api.socket).parent == runtime
