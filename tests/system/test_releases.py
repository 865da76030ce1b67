"""The package on each release: it installs, starts and meters under its units' protection, takes over an old state, and leaves nothing."""

import json
import re
import sys

import pytest
from support.first_state import write_first_state
from support.installed import CONFIG, UNIT, books_are_whole, install, jobs, show
from support.machine import Machine, built_package, debian_tree, machine

from carbonsched.launch.systemd import unit_of

STATE = "/var/lib/carbonsched"
MOST = {UNIT: 1.6, unit_of("a-1"): 4.5}
"""Exposure by `systemd-analyze security`."""
OURS = "find / -xdev -iname '*carbonsched*' -not -path '/proc/*' -not -path '/var/tmp/*' -not -path '/var/log/journal/*' 2>/dev/null | sort"


@pytest.mark.parametrize("release", ["bookworm", "trixie"])
def test_from_nothing_to_nothing(release: str) -> None:
    package = built_package(release=release)
    with machine(f"of-{release}", tree=debian_tree(release)) as box:
        before = box.run(OURS).stdout
        accounts = box.run("getent passwd; getent group").stdout
        install(box, package)
        put_old_state(box)
        box.run(f"systemctl enable --now {UNIT}", timeout=200)
        box.until("carbonsched ps", 120)
        check_exposure(box, release)
        check_old_state(box)
        check_run(box)
        books_are_whole(box)
        check_purge(box, before, accounts)


def put_old_state(box: Machine) -> None:
    write_first_state(box.root / STATE.lstrip("/"))
    box.run(f"chown -R carbonsched: {STATE}")


def check_exposure(box: Machine, release: str) -> None:
    for unit, most in MOST.items():
        said = box.run(f"systemd-analyze security --no-pager {unit} | tail -1").stdout.strip()
        sys.stdout.write(f"{release}: {said}\n")
        assert float(re.findall(r": ([0-9.]+)", said)[0]) <= most, said


def check_old_state(box: Machine) -> None:
    """What was over is as it was; what ran on a box that is no more is not shown as running for ever."""
    states = {job["name"]: job["state"] for job in jobs(box)}
    assert (states["done"], states["cancelled"], states["held"]) == ("finished", "cancelled", "paused")
    over = "! carbonsched ps -q --filter state=running --filter state=queued | grep ."
    box.until(over, 60)
    queued = next(job for job in jobs(box) if job["name"] == "queued")
    assert queued["state"] == "failed"
    said = box.run(f"journalctl -b -u {unit_of(queued['id'])} --no-pager").stdout
    assert "one of the system" in said, "a job of root's does not run, and its unit says why"
    done = next(job for job in jobs(box) if job["name"] == "done")
    assert done["energy_j"] > 4000
    told = books_are_whole(box)
    assert told["rows"] > 15


def check_run(box: Machine) -> None:
    """Commands of root and of members are metered under the unit as it is, which hides their processes from the daemon."""
    assert box.show(UNIT, "ProtectProc") == "invisible"
    box.run("useradd --create-home --groups carbonsched --shell /bin/bash carol")
    for user in ("root", "carol"):
        ran = json.loads(box.run("carbonsched run --json -- sleep 3", user=user, timeout=200).stdout)
        assert (ran["state"], ran["exit_code"]) == ("finished", 0)
        assert 2 < ran["seconds"] < 60
    left = 'exec carbonsched run --json --name left -- sh -c "setsid sleep 600 >/dev/null 2>&1 & true"'
    total = json.loads(box.run(left, user="carol", timeout=200).stdout)
    assert (total["state"], total["remaining"]) == ("running", 1)
    # not `systemctl kill`: it fails with EIO where another process of the cgroup ends at the moment it is read
    box.run(f"kill -KILL $(systemctl show -P MainPID {UNIT})")
    box.until(f"systemctl is-active {UNIT} && carbonsched ps", 120)
    box.run("sleep 12")
    assert show(box, total["id"])["state"] == "running", "adopted by the daemon that was started again"
    box.run("pkill -u carol sleep")
    box.until(f"carbonsched show {total['id']} --json | grep -q finished", 60)
    box.run("userdel --remove carol")


def check_purge(box: Machine, before: str, accounts: str) -> None:
    box.run("DEBIAN_FRONTEND=noninteractive apt-get purge -y carbonsched", timeout=200)
    left = set(box.run(OURS).stdout.splitlines()) - set(before.splitlines())
    assert not [path for path in left if not path.startswith(STATE)], "people's records alone stay"
    assert box.run(f"test -s {STATE}/ledger.db", check=False).returncode == 0
    assert box.run(f"test -e {CONFIG}", check=False).returncode != 0
    # systemd forgets units it once had in its own time; nothing of them is to be had or runs
    assert box.run("systemctl list-unit-files --no-legend 'carbonsched*'", check=False).stdout == ""
    assert box.run("pgrep -u carbonsched -a; pgrep -f -a '[c]arbonsched daemon'", check=False).stdout == ""
    more = set(box.run("getent passwd; getent group").stdout.splitlines()) - set(accounts.splitlines())
    # accounts stay, as Debian's packages leave theirs: the ledger is still somebody's
    assert {line.split(":")[0] for line in more} == {"carbonsched", "carbonsched-admin", "carbonsched-rapl"}
