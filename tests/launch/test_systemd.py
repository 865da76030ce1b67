"""Jobs as units of systemd, as far as that goes without one; tests/system starts real ones."""

import errno
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from support.models import tiny_spec
from support.processes import until

from carbonsched.errors import InputError, LaunchError
from carbonsched.launch.systemd import SystemdLauncher, unit_of
from carbonsched.model.job import JobSpec, Owner

ME = Owner(uid=os.getuid(), gid=os.getgid(), user="me")


@pytest.fixture
def launcher(tmp_path: Path) -> SystemdLauncher:
    (tmp_path / "cgroups").mkdir()
    return SystemdLauncher(starts=tmp_path / "starts", cgroups=tmp_path / "cgroups")


def says(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A systemctl that does `script`, the first on the PATH."""
    path = folder / "bin/systemctl"
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")


def test_a_job_of_root_is_refused_at_submit(launcher: SystemdLauncher, tmp_path: Path) -> None:
    spec = JobSpec.model_validate(tiny_spec(tmp_path / "model", tmp_path / "data"))
    with pytest.raises(InputError, match=r"uid 0 is one of the system's.*submit as a user"):
        launcher.check(spec, Owner(uid=0, gid=0, user="root"))


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'Failed to start: Interactive authentication required.' >&2; exit 4", "polkit must let"),
        ("echo 'Job for it failed.' >&2; exit 1", r"journalctl -u carbonsched-job@job-1\.service"),
        ("exit 0", "runs already"),
    ],
)
def test_a_start_that_fails_says_why_and_leaves_no_record(
    script: str, why: str, launcher: SystemdLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(
        tmp_path,
        monkeypatch,
        f'cat "{tmp_path}/starts/job-1.json" > "{tmp_path}/told"; echo "$@" > "{tmp_path}/asked"; {script}',
    )
    job_dir = tmp_path / "job-1"
    job_dir.mkdir()
    with pytest.raises(LaunchError, match=why):
        launcher.start(job_dir, ["python"], {"A": "1"}, Owner(uid=1000, gid=1000, user="ada"))
    assert (tmp_path / "asked").read_text().split()[-2:] == ["start", unit_of("job-1")]
    assert '"uid": 1000' in (tmp_path / "told").read_text()
    assert list((tmp_path / "starts").iterdir()) == []
    assert stat.S_IMODE((tmp_path / "starts").stat().st_mode) == 0o700


def test_what_a_killed_shim_left_is_ended_by_systemd(
    launcher: SystemdLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(tmp_path, monkeypatch, f'echo "$@" > "{tmp_path}/asked"')
    group = tmp_path / "cgroups" / unit_of("job-1")
    group.mkdir()
    (group / "cgroup.procs").write_text(f"{_somebody_elses()}\n")
    (tmp_path / "job-1").mkdir()
    monkeypatch.setattr("carbonsched.launch.systemd._ours", lambda pid: False)
    assert launcher.sweep(tmp_path / "job-1") == 1
    assert launcher.pids(tmp_path / "job-1") == {_somebody_elses()}
    until(lambda: (tmp_path / "asked").exists() and (tmp_path / "asked").read_text() != "")
    assert (tmp_path / "asked").read_text().split()[-3:] == ["stop", "--no-block", unit_of("job-1")]


def test_a_systemd_that_is_busy_holds_nobody_up_and_is_asked_once(
    launcher: SystemdLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f'echo "$@" >> "{tmp_path}/asked"; until [ -e "{tmp_path}/go" ]; do sleep 0.02; done; echo "Access denied" >&2; exit 4'
    says(tmp_path, monkeypatch, script)
    group = tmp_path / "cgroups" / unit_of("job-1")
    group.mkdir()
    (group / "cgroup.procs").write_text(f"{_somebody_elses()}\n")
    (tmp_path / "job-1").mkdir()
    monkeypatch.setattr("carbonsched.launch.systemd._ours", lambda pid: False)
    assert [launcher.sweep(tmp_path / "job-1") for _ in range(3)] == [1, 1, 1]
    (tmp_path / "go").touch()
    with pytest.raises(LaunchError, match=r"cannot be ended: Access denied .polkit must let"):
        until(lambda: launcher.sweep(tmp_path / "job-1") != 1)
    assert len((tmp_path / "asked").read_text().splitlines()) == 1


def _somebody_elses() -> int:
    return 1


def test_a_group_that_vanishes_meanwhile_hides_no_other(
    launcher: SystemdLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job may make cgroups below its own; one that is gone when it is come to said that the whole job was."""
    group = tmp_path / "cgroups" / unit_of("job-1")
    (group / "below").mkdir(parents=True)
    (group / "cgroup.procs").write_text("4194000\n4194001\n")
    (group / "below" / "cgroup.procs").write_text("")
    read_text = Path.read_text

    def gone(path: Path, *args: Any, **more: Any) -> str:
        if path.parent.name == "below":
            raise OSError(errno.ENODEV, "No such device")  # as the kernel says of a cgroup that was removed
        return read_text(path, *args, **more)

    monkeypatch.setattr(Path, "read_text", gone)
    assert launcher.pids(tmp_path / "job-1") == {4194000, 4194001}


def test_processes_that_cannot_be_seen_now_are_not_gone(
    launcher: SystemdLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a free file handle a board would be given on that its job still uses."""
    group = tmp_path / "cgroups" / unit_of("job-1")
    group.mkdir(parents=True)
    (group / "cgroup.procs").write_text("4194000\n")
    read_text = Path.read_text

    def none_free(path: Path, *args: Any, **more: Any) -> str:
        if path.name == "cgroup.procs":
            raise OSError(errno.EMFILE, "Too many open files")
        return read_text(path, *args, **more)

    monkeypatch.setattr(Path, "read_text", none_free)
    with pytest.raises(LaunchError, match="cannot be ended: Too many open files"):
        launcher.sweep(tmp_path / "job-1")
    assert launcher.pids(tmp_path / "job-1") == set()


RUNS = """
import json, pathlib, subprocess, sys
start = json.loads(pathlib.Path(sys.argv[1]).read_text())
folder = pathlib.Path(start["job_dir"])
run = {"pid": 1, "start_time": 1, "boot_id": "b", "started_at": "2026-11-22T10:00:00Z", "argv": start["argv"]}
(folder / "run.json").write_text(json.dumps(run))
code = subprocess.run(start["argv"], check=False).returncode
(folder / "exit.json").write_text(json.dumps({"code": code, "signal": None, "at": "2026-11-22T10:00:01Z"}))
"""


def test_folders_of_a_job_that_is_over_are_opened_and_no_link_is_followed(
    launcher: SystemdLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs.py").write_text(RUNS)
    says(tmp_path, monkeypatch, f'{sys.executable} "{tmp_path}/runs.py" "{tmp_path}/starts/job-1.json"')
    job_dir, kept = tmp_path / "job-1", tmp_path / "kept"
    launcher.open_written(job_dir, ME)
    deep = job_dir / "output" / "a" / "b"
    deep.mkdir(parents=True)
    kept.mkdir(0o700)
    (deep / "link").symlink_to(kept)
    (job_dir / "output" / "a").chmod(0)
    launcher.open_written(job_dir, ME)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (deep, deep.parent, kept)] == [0o777, 0o777, 0o700]


def test_folders_that_are_not_opened_are_waited_for_no_longer(
    launcher: SystemdLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carbonsched.launch.systemd._OPEN_S", 0.1)
    (tmp_path / "runs.py").write_text(RUNS.split("code =")[0])
    says(tmp_path, monkeypatch, f'{sys.executable} "{tmp_path}/runs.py" "{tmp_path}/starts/job-1.json"')
    (tmp_path / "job-1" / "output").mkdir(parents=True)
    with pytest.raises(LaunchError, match=r"job-1: its folders are not opened within 0\.1 s"):
        launcher.open_written(tmp_path / "job-1", ME)
