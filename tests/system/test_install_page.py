"""docs/install.md, run line by line from the page itself on a Debian that boots: from nothing to a user's first job and back.

Nothing is fetched: what trains comes from the environment of these tests, laid under the one that the page makes. Pip finds there all
that the page asks for, and installs carbonsched itself. `make deb` alone runs outside, where the builder is.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.installed import LIBRARIES, UNIT, give_a_job_to_alice, trainers_libraries
from support.machine import CACHE, ROOT, Machine, built_package, copy_of_clone, machine

from carbonsched.launch.systemd import unit_of

SECTION = re.search(
    r"\n## On a server, under systemd\n(.*?)\n### ", (ROOT / "docs/install.md").read_text(), re.DOTALL
)
FORBIDDEN = (
    ("systemctl", "start", "carbonsched-clocks.service"),
    ("systemctl", "stop", UNIT),
    ("systemctl", "restart", "carbonsched-job@a-1.service"),
    ("systemctl", "reload-or-restart", "carbonsched-job@a-1.service"),
    ("systemctl", "kill", UNIT),
    ("systemctl", "start", "carbonsched-job@A.service"),
    ("systemctl", "start", "carbonsched-job@a.b.service"),
    ("systemctl", "start", "emergency.target"),
    ("systemctl", "set-property", "carbonsched-job@a-1.service", "MemoryMax=1G"),
    ("systemctl", "enable", "carbonsched-job@a-1.service"),
    ("systemctl", "daemon-reload"),
    ("systemd-run", "--unit=carbonsched-job@a-1.service", "-p", "User=root", "id"),
)
"""Of the daemon's user, what polkit does not let it do."""
PRELUDE = """
import ctypes, json, os, pwd, signal, subprocess, sys, time
from pathlib import Path
from carbonsched.launch.systemd import SystemdLauncher, unit_of
from carbonsched.model.job import Owner

def id(name):
    return pwd.getpwnam(name).pw_uid

folder = Path("/var/lib/carbonsched/tried/a-1")  # not in jobs/, where the daemon would miss it in its ledger
folder.mkdir(mode=0o700, parents=True, exist_ok=True)

def forged(uid):
    script = "id; grep ^Cap /proc/self/status"
    return dict(job_dir=str(folder), uid=uid, argv=["sh", "-c", script], env={}, log_bytes=65536)

def start(told):
    file = Path("/run/carbonsched/starts/a-1.json")
    file.touch(mode=0o600)
    file.write_text(json.dumps(told))
    done = subprocess.run(["systemctl", "--no-ask-password", "start", unit_of("a-1")])
    sys.exit(done.returncode)
"""
STUBBORN = """
launcher = SystemdLauncher()
script = "trap '' TERM; setsid env -i setsid sleep 4242 & echo up; while :; do sleep 4242; done"
alice = Owner(uid=id("alice"), gid=pwd.getpwnam("alice").pw_gid, user="alice")
run = launcher.start(folder, ["sh", "-c", script], {}, alice)
end = time.monotonic() + 60
while len(launcher.pids(folder)) < 4 and time.monotonic() < end:
    time.sleep(0.05)
assert launcher.poll(folder).state == "running"
PTRACE_ATTACH = 16
print("attached" if ctypes.CDLL(None).ptrace(PTRACE_ATTACH, run.pid, 0, 0) == 0 else "attach refused")
launcher.terminate(folder)
time.sleep(0.5)
assert launcher.poll(folder).state == "running", "it ignores that"
ENDING
while (launcher.poll(folder).state == "running" or launcher.sweep(folder)) and time.monotonic() < end:
    time.sleep(0.05)
print("left", len(launcher.pids(folder) - {run.pid}))
print(launcher.poll(folder))
"""


def commands(way: str) -> list[str]:
    """Those of the page's section: of its blocks for everybody, and of those for one way to install the daemon."""
    assert SECTION
    blocks = re.findall(r"```sh ?(\w*)\n(.*?)```", SECTION.group(1), re.DOTALL)
    return [line for kind, text in blocks if kind in ("", way) for line in text.splitlines() if line.strip()]


def wheels(*what: str) -> Path:
    """A folder with the wheels that pip would fetch for these requirements."""
    folder = CACHE / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "pip", "download", "-q", "--only-binary", ":all:", "-d", str(folder), *what]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"pip finds no wheels: {done.stderr[-300:]}")
    return folder


def follow(box: Machine, way: str, env: dict[str, str]) -> str:
    """Run the page's commands; returns what a person would have seen."""
    seen = []
    for line in commands(way):
        seen.append(f"# {line}")
        if line == "make deb":
            continue
        done = box.run(f"cd /clone && {line}", env=env, timeout=400)
        if (
            line == "python3 -m venv /opt/carbonsched-trainer"
        ):  # from here on pip finds all but carbonsched there
            folder = "/opt/carbonsched-trainer/lib/python3*/site-packages"
            box.run(f"for each in {folder}; do echo {LIBRARIES} > $each/shared.pth; done")
        seen += [done.stdout.rstrip(), done.stderr.rstrip()]
    text = "\n".join(part for part in seen if part) + "\n"
    if kept := os.environ.get("CARBONSCHED_TRANSCRIPTS"):
        Path(kept, f"install-{way}.txt").write_text(text)
    return text


def test_a_packages_life_from_the_page_to_purge() -> None:
    package = built_package()
    pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels", "PIP_ROOT_USER_ACTION": "ignore"}
    with machine("package", *trainers_libraries(), f"--bind-ro={wheels('setuptools>=77')}:/wheels") as box:
        copy_of_clone(box.root)
        (box.root / "clone/dist").mkdir()
        (box.root / "clone/dist" / package.name).write_bytes(package.read_bytes())
        give_a_job_to_alice(box)
        seen = follow(box, "package", pip)
        assert re.search(r"finished", seen), seen
        check_what_is_on_the_path(box)
        check_rights_and_exposure(box)
        check_whose_job_it_was(box)
        check_what_the_daemon_may_start(box)
        check_a_unit_ends_all_of_its_job(box)
        check_reload(box)
        check_watchdog(box)
        check_falls_and_reboot(box)
        check_upgrade(box, package)
        check_removal(box)


def check_what_is_on_the_path(box: Machine) -> None:
    assert "CARBONSCHED(1)" in box.run("man carbonsched | head -1").stdout
    script = "source /usr/share/bash-completion/completions/carbonsched; COMP_WORDS=(carbonsched sub); COMP_CWORD=1; _carbonsched; echo ${COMPREPLY[@]}"
    assert box.run(f"bash -c '{script}'").stdout.strip() == "submit"
    weight = int(box.run("du -sm /usr/lib/carbonsched | cut -f 1").stdout)
    assert weight <= 200, f"the package weighs {weight} MB"


def check_rights_and_exposure(box: Machine) -> None:
    assert box.run("stat -c '%a %U %G' /run/carbonsched/api.sock /etc/carbonsched/config.toml").stdout.split(
        "\n"
    )[:2] == [
        "660 carbonsched carbonsched",
        "640 root carbonsched",
    ]
    refused = box.run(
        "su - nobody -s /bin/sh -c 'carbonsched --socket /run/carbonsched/api.sock ps'", check=False
    )
    assert refused.returncode == 3, refused.stderr
    for unit, most in ((UNIT, 1.6), (unit_of("a-1"), 4.5)):
        said = box.run(f"systemd-analyze security --no-pager {unit} | tail -1").stdout
        assert float(re.findall(r": ([0-9.]+)", said)[0]) <= most, said


def latest_job(box: Machine) -> str:
    return str(json.loads(box.run("carbonsched ps --json").stdout)["jobs"][-1]["id"])


def check_whose_job_it_was(box: Machine) -> None:
    """The submitter's: their files, which they and the daemon read and nobody else; its own cgroup is gone with it."""
    output = f"/var/lib/carbonsched/jobs/{latest_job(box)}/output"
    assert box.run(f"stat -c '%U' {output} {output}/model.safetensors").stdout.split() == [
        "carbonsched",
        "alice",
    ]
    for user in ("alice", "carbonsched"):
        box.run(f"cat {output}/model.safetensors > /dev/null", user=user)
    assert box.run(f"cat {output}/model.safetensors", user="nobody", check=False).returncode != 0
    box.until(f"! systemctl is-active -q {unit_of(latest_job(box))}")


def as_daemon(box: Machine, code: str) -> subprocess.CompletedProcess[str]:
    """Run as the daemon's user, but outside its unit: what one could do who has taken the daemon over."""
    script = box.root / "var/tmp/as_daemon.py"
    script.write_text(PRELUDE + code)
    return box.run(
        "cd / && /usr/lib/carbonsched/bin/python -B /var/tmp/as_daemon.py", user="carbonsched", check=False
    )


def check_what_the_daemon_may_start(box: Machine) -> None:
    box.run("id -u bob > /dev/null 2>&1 || useradd --create-home bob")
    for words in FORBIDDEN:
        done = box.run(f"{words[0]} --no-ask-password {' '.join(words[1:])}", user="carbonsched", check=False)
        assert done.returncode != 0, words
        assert re.search(r"authentication required|Access denied", done.stderr), (words, done.stderr)
    name = unit_of("a-1")
    assert box.run(f"systemctl --no-ask-password start {name}", user="alice", check=False).returncode != 0
    assert box.run("ls /run/carbonsched/starts", user="alice", check=False).returncode != 0
    for uid, why in (
        ("0", "one of the system"),
        ("id('bob')", "bob is not in the group"),
        ("id('carbonsched')", "system"),
    ):
        done = as_daemon(box, f"start(forged({uid}))")
        assert done.returncode != 0, done.stdout
        assert why in box.run(f"journalctl -b -u {name} -n 5 --no-pager").stdout
        assert not (box.root / "var/lib/carbonsched/tried/a-1/log.txt").exists(), "nothing ran"
    done = as_daemon(box, "start(forged(id('alice')))")
    assert done.returncode == 0, "whoever owns the daemon can act as a member of its group"
    ran = (box.root / "var/lib/carbonsched/tried/a-1/log.txt").read_text()
    assert f"uid={box.run('id -u alice').stdout.strip()}(alice)" in ran
    assert re.findall(r"Cap(?:Inh|Prm|Eff|Amb):\t(\w+)", ran) == ["0" * 16] * 4


def check_a_unit_ends_all_of_its_job(box: Machine) -> None:
    """A job that ignores SIGTERM, with a child that left its session and its environment; then the same with its shim killed."""
    for ending in ("launcher.kill(folder)", "os.kill(run.pid, signal.SIGKILL)"):
        done = as_daemon(box, STUBBORN.replace("ENDING", ending))
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.split("\n")[:2] == ["attach refused", "left 0"], done.stdout
    assert box.run("pgrep -f '[s]leep 4242'", check=False).stdout == ""


def check_reload(box: Machine) -> None:
    box.run("systemctl reload carbonsched")
    box.until(f"systemctl show -P StatusText {UNIT} | grep 'configuration reloaded at'")
    box.run(
        "cp -p /etc/carbonsched/config.toml /root/good && sed -i 's/^pue = .*/pue = 0.5/' /etc/carbonsched/config.toml"
    )
    box.run("systemctl reload carbonsched")
    box.until(f"systemctl show -P StatusText {UNIT} | grep 'kept as it was.*pue'")
    assert box.show(UNIT, "ActiveState") == "active"
    box.run("cp -p /root/good /etc/carbonsched/config.toml")


def check_watchdog(box: Machine) -> None:
    """A short one, by a drop-in: a daemon that ticks once a minute lives, one that is frozen or whose ledger is held is replaced."""
    box.run(
        f"mkdir -p /run/systemd/system/{UNIT}.d && printf '[Service]\\nWatchdogSec=4s\\nRestartSec=100ms\\nTimeoutAbortSec=1s\\n' > /run/systemd/system/{UNIT}.d/short.conf"
    )
    box.run("sed -i 's/^tick_s = .*/tick_s = 60/' /etc/carbonsched/config.toml")
    box.run("systemctl daemon-reload && systemctl restart carbonsched")
    pid = box.show(UNIT, "MainPID")
    time.sleep(9)
    assert box.show(UNIT, "MainPID") == pid, "a tick a minute is no reason to kill it"
    box.run("cp -p /root/good /etc/carbonsched/config.toml && systemctl restart carbonsched")
    pid = box.show(UNIT, "MainPID")
    box.run(f"kill -STOP {pid}")
    box.until(f"test $(systemctl show -P MainPID {UNIT}) != {pid} && carbonsched ps", 30)
    pid = box.show(UNIT, "MainPID")
    lock = "import sqlite3,time; c=sqlite3.connect('/var/lib/carbonsched/ledger.db',isolation_level=None,timeout=30); c.execute('BEGIN EXCLUSIVE'); time.sleep(30)"
    holder = f'nohup timeout 60 python3 -c "{lock}" > /dev/null 2>&1 & echo $!'
    held = box.run(holder).stdout.strip()
    box.until(
        f"journalctl -b -u {UNIT} | grep 'Watchdog timeout.*' | wc -l | grep -qx 2 || [ $(systemctl show -P NRestarts {UNIT}) -ge 2 ]",
        40,
    )
    box.run(f"pkill -P {held} || true; kill {held} || true")
    box.until("carbonsched ps", 60)
    box.run(f"rm -r /run/systemd/system/{UNIT}.d && systemctl daemon-reload && systemctl restart carbonsched")


def check_falls_and_reboot(box: Machine) -> None:
    pid = box.show(UNIT, "MainPID")
    box.run(f"kill -{signal.SIGKILL.value} {pid}")
    box.until(
        f"[ $(systemctl show -P MainPID {UNIT}) -gt 0 ] && test $(systemctl show -P MainPID {UNIT}) != {pid} && carbonsched ps",
        30,
    )
    jobs = json.loads(box.run("carbonsched ps --json").stdout)["jobs"]
    box.reboot()
    box.until("carbonsched ps", 60)
    assert [job["id"] for job in json.loads(box.run("carbonsched ps --json").stdout)["jobs"]] == [
        job["id"] for job in jobs
    ]
    assert json.loads(box.run("carbonsched audit verify --json").stdout)["ok"]


def check_upgrade(box: Machine, package: Path) -> None:
    """The same files as a newer version: the daemon is another process, its state and the edited configuration are as they were."""
    newer = package.name.replace("-1~", "-2~")
    box.run("sed -i 's/^pue = .*/pue = 1.31/' /etc/carbonsched/config.toml")
    box.run(
        f"cd /clone && dpkg-deb -R dist/{package.name} /var/tmp/deb && sed -i 's/^\\(Version: .*\\)-1~/\\1-2~/' /var/tmp/deb/DEBIAN/control && dpkg-deb -Zzstd -z1 --build /var/tmp/deb dist/{newer}",
        timeout=200,
    )
    pid = box.show(UNIT, "MainPID")
    box.run(f"cd /clone && DEBIAN_FRONTEND=noninteractive apt-get install -y ./dist/{newer}", timeout=200)
    box.until(f"test $(systemctl show -P MainPID {UNIT}) != {pid} && carbonsched ps", 60)
    assert "1.31" in box.run("grep ^pue /etc/carbonsched/config.toml").stdout
    assert json.loads(box.run("carbonsched audit verify --json").stdout)["ok"]


def check_removal(box: Machine) -> None:
    box.run("apt-get remove -y carbonsched")
    assert box.run(
        "command -v carbonsched; ls /usr/lib/carbonsched; systemctl is-active carbonsched", check=False
    ).stdout.split() == ["inactive"]
    assert box.run("ls /etc/carbonsched/config.toml /var/lib/carbonsched/ledger.db").returncode == 0
    said = box.run("apt-get purge -y carbonsched").stdout
    assert "stay in /var/lib/carbonsched" in said
    assert box.run("ls -d /etc/carbonsched /var/cache/carbonsched", check=False).stdout == ""
    assert box.run("test -f /var/lib/carbonsched/ledger.db").returncode == 0
