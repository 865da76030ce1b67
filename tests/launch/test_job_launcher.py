"""What runs in a job's unit: which accounts and which records it refuses, and what a job that it starts has left of its rights."""

import ctypes
import json
import os
import pwd
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.processes import gone, record, until

from carbonsched.launch import job_launcher, shim
from carbonsched.launch.job_launcher import RefusedError, Start, account_of, instance_of, parse

PR_SET_KEEPCAPS, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 8, 38, 47, 2
GROUP = 994
DAEMON, NOBODY = 64123, 65534
"""A uid without an account, and one that every box has; its group stands for the daemon's."""


@pytest.fixture
def accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    """ada and eve, of whom ada is in the daemon's group; a daemon whose uid is 994."""
    known = {1000: ("ada", [1000, GROUP]), 1001: ("eve", [1001]), 999: ("backup", [999, GROUP])}

    def getpwuid(uid: int) -> SimpleNamespace:
        name, _ = known[uid]
        return SimpleNamespace(pw_name=name, pw_gid=uid, pw_dir=f"/home/{name}", pw_shell="/bin/sh")

    monkeypatch.setattr(pwd, "getpwuid", getpwuid)
    monkeypatch.setattr(os, "getgrouplist", lambda name, gid: dict(known.values())[name])
    monkeypatch.setattr(os, "geteuid", lambda: 994)


@pytest.mark.usefixtures("accounts")
class TestAccount:
    def test_a_member_has_the_groups_and_the_home_of_the_account(self) -> None:
        found = account_of(1000, GROUP)
        assert found.ids == (1000, 1000, (1000, GROUP))
        assert found.environment["HOME"] == "/home/ada"

    @pytest.mark.parametrize(
        ("uid", "why"),
        [
            (0, "system's"),
            (999, "system's"),
            (994, "system's"),
            (1001, "eve is not in the group"),
            (4242, "has no account"),
        ],
    )
    def test_nobody_else_does(self, uid: int, why: str) -> None:
        with pytest.raises(RefusedError, match=why):
            account_of(uid, GROUP)

    def test_nor_the_daemon_where_its_uid_is_a_persons(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(RefusedError, match="daemon's own"):
            account_of(1000, GROUP)


GOOD = {"job_dir": "/j/tiny-7f3a1c", "uid": 1000, "argv": ["python"], "env": {"A": "b"}, "log_bytes": 4096}


def test_what_the_daemon_writes_is_read() -> None:
    assert parse(json.dumps(GOOD).encode()) == Start(**GOOD)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"uid": "0"},
        {"uid": True},
        {"uid": 2**32 - 1},
        {"uid": -1},
        {"argv": []},
        {"argv": "sh"},
        {"argv": ["a\0b"]},
        {"argv": [1]},
        {"env": {"A=B": "c"}},
        {"env": {"A": 1}},
        {"env": []},
        {"log_bytes": 0},
        {"job_dir": "j"},
        {"job_dir": "/j/../tiny-7f3a1c"},
        {"gid": 0},
    ],
)
def test_what_it_does_not_write_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(RefusedError):
        parse(json.dumps(GOOD | change).encode())


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda x: json.dumps(x).encode())
)
def test_anything_else_is_refused_too(content: bytes) -> None:
    with pytest.raises(RefusedError):
        parse(content)


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}-[0-9a-f]{6}", fullmatch=True))
def test_every_jobs_id_has_a_units_name(job_id: str) -> None:
    assert job_launcher._INSTANCE.fullmatch(instance_of(job_id))


def become_the_daemon(uid: int) -> None:
    """As systemd does by User=, Group=, AmbientCapabilities= and NoNewPrivileges=."""
    three = 1 << shim.CAP_KILL | 1 << shim.CAP_SETGID | 1 << shim.CAP_SETUID
    shim._prctl(PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(uid, uid, uid)
    header = (ctypes.c_uint32 * 2)(shim._CAPABILITIES_V3, 0)
    assert shim._libc.capset(header, (ctypes.c_uint32 * 6)(three, three, three, 0, 0, 0)) == 0
    for number in (shim.CAP_KILL, shim.CAP_SETGID, shim.CAP_SETUID):
        assert shim._libc.prctl(PR_CAP_AMBIENT, ctypes.c_ulong(PR_CAP_AMBIENT_RAISE), number, 0, 0) == 0
    shim._prctl(PR_SET_NO_NEW_PRIVS, 1)


@dataclass
class Started:
    pid: int
    said: Path

    def end(self, seconds: float = 30.0) -> tuple[int, str]:
        """Its exit code and what it said on stderr."""
        status: list[int] = []

        def over() -> bool:
            pid, code = os.waitpid(self.pid, os.WNOHANG)
            status.append(code)
            return pid != 0

        until(over, seconds)
        return os.waitstatus_to_exitcode(status[-1]), self.said.read_text()


class Unit:
    """The program as the unit runs it: the daemon's user, with three ambient capabilities and without new ones."""

    def __init__(self, folder: Path) -> None:
        self.starts, self.job_dir = folder / "starts", folder / "jobs/tiny-7f3a1c"
        for path in (self.starts, self.job_dir.parent, self.job_dir):
            path.mkdir(mode=0o755)
        self.starts.chmod(0o700)
        for path in (self.starts, self.job_dir):
            os.chown(path, DAEMON, NOBODY)

    def tell(
        self, name: str = "tiny-7f3a1c", mode: int = 0o600, owner: int = DAEMON, **change: object
    ) -> None:
        told = self.starts / f"{name}.json"
        told.write_text(json.dumps(GOOD | {"job_dir": str(self.job_dir), "uid": NOBODY} | change))
        told.chmod(mode)
        os.chown(told, owner, NOBODY)

    def start(self, name: str = "tiny-7f3a1c", uid: int = DAEMON) -> "Started":
        """A fork and no new interpreter: pytest's own may lie in a folder that is closed to others."""
        said = self.job_dir.parent / "stderr"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads, from Python 3.12 on
            child = os.fork()
        if child == 0:
            try:
                sys.stderr = said.open("w", buffering=1)
                os.environ["OF_THE_UNIT"] = "s3cret"
                become_the_daemon(uid)
                os._exit(job_launcher.main([name, str(self.starts)]))
            except BaseException as e:
                sys.stderr.write(repr(e))
            finally:
                os._exit(70)
        return Started(child, said)

    def refusal(self, name: str = "tiny-7f3a1c", uid: int = DAEMON) -> str:
        code, said = self.start(name, uid).end()
        assert code == job_launcher.REFUSED, said
        assert not (self.job_dir / "run.json").exists(), "nothing was started"
        return said


@pytest.fixture
def unit() -> Iterator[Unit]:
    if os.geteuid() != 0:
        pytest.skip("only root can become the daemon's user")
    with tempfile.TemporaryDirectory() as folder:  # not tmp_path: another user must be able to enter it
        Path(folder).chmod(0o755)
        yield Unit(Path(folder))


class TestAsAProcess:
    @pytest.mark.parametrize(
        ("change", "why"),
        [
            ({"uid": 0}, "one of the system's"),
            ({"uid": DAEMON}, "the daemon's own"),
            ({"uid": 64999}, "has no account"),
            ({"job_dir": "/etc"}, "is not the folder of"),
            ({"mode": 0o640}, "no file of the daemon's alone"),
            ({"owner": NOBODY, "mode": 0o644}, "no file of the daemon's alone"),
            ({"argv": []}, "argv"),
        ],
    )
    def test_it_refuses(self, change: dict[str, object], why: str, unit: Unit) -> None:
        unit.tell(**change)  # type: ignore[arg-type]
        assert why in unit.refusal()

    def test_it_refuses_to_be_root_names_of_its_own_making_and_folders_of_others(self, unit: Unit) -> None:
        unit.tell()
        assert "not root" in unit.refusal(uid=0)
        assert "no name of a job's unit" in unit.refusal("../tiny-7f3a1c")
        os.chown(unit.job_dir, NOBODY, NOBODY)
        assert "no folder of the daemon's" in unit.refusal()

    def test_a_link_in_place_of_the_record_is_not_followed(self, unit: Unit) -> None:
        unit.tell("other")
        (unit.starts / "tiny-7f3a1c.json").symlink_to("other.json")
        code, said = unit.start().end()
        assert (code, "Too many levels" in said) == (1, True)

    def test_the_job_is_its_owner_without_a_capability_and_the_shim_keeps_one(self, unit: Unit) -> None:
        script = "id -u; id -g; grep ^Cap /proc/self/status; grep NoNewPrivs /proc/self/status; env; sleep 60"
        unit.tell(argv=["sh", "-c", script], env={"ADDED": "1", "HOME": "/root"})
        process = unit.start()
        log = unit.job_dir / "log.txt"
        until(lambda: log.exists() and "ADDED" in log.read_text(), 30)
        lines = log.read_text().splitlines()
        assert lines[1:3] == [str(NOBODY), str(NOBODY)]
        rights = dict(line.split(":\t") for line in lines if line.startswith(("Cap", "NoNew")))
        assert rights.pop("NoNewPrivs") == "1"
        rights.pop("CapBnd")  # what could be had by a file with capabilities, which NoNewPrivs forbids
        assert set(rights.values()) == {"0" * 16}
        assert f"HOME={pwd.getpwuid(NOBODY).pw_dir}" in lines
        assert not [line for line in lines if "s3cret" in line], "the unit's own environment"
        held = Path(f"/proc/{process.pid}/status").read_text()
        assert "CapPrm:\t0000000000000020" in held, "CAP_KILL alone"
        assert "CapInh:\t0000000000000000" in held
        assert record(unit.job_dir, "run.json")["pid"] == process.pid

        os.kill(
            process.pid, shim.END_ALL
        )  # the daemon asks for it, which may not signal the owner's processes
        assert process.end()[0] == 0
        assert record(unit.job_dir, "exit.json")["signal"] == signal.SIGKILL
        assert (unit.job_dir / "exit.json").stat().st_uid == DAEMON

    def test_it_is_told_to_stop_by_the_shim_and_nothing_is_left(self, unit: Unit) -> None:
        script = "trap 'exit 7' TERM; setsid sleep 61 & echo pid $!; while :; do sleep 0.1; done"
        unit.tell(argv=["sh", "-c", script])
        process = unit.start()
        log = unit.job_dir / "log.txt"
        until(lambda: log.exists() and "pid " in log.read_text(), 30)
        left = int(log.read_text().split("pid ")[1].split()[0])
        os.kill(process.pid, signal.SIGTERM)
        assert process.end()[0] == 0
        assert record(unit.job_dir, "exit.json")["code"] == 7
        until(lambda: gone(left))

    def test_what_cannot_be_run_is_written_down(self, unit: Unit) -> None:
        unit.tell(argv=["/no/such/program"])
        code, said = unit.start().end()
        assert (code, "cannot run" in said) == (1, True)
        assert record(unit.job_dir, "exit.json")["code"] == 127
