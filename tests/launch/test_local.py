"""Real processes: what a job's owner and a restarted daemon see of the launcher."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.processes import ended, gone, python, record, until

from carbonsched.api.logs import offset_since, read_chunk
from carbonsched.errors import LaunchError, StateError
from carbonsched.launch import process_group, shim
from carbonsched.launch.local import LocalLauncher
from carbonsched.model.job import Owner
from carbonsched.model.protocol import RunRecord

ME = Owner(uid=os.getuid(), gid=os.getgid(), user="me")


def test_a_job_runs_and_its_exit_and_output_are_on_record(launcher: LocalLauncher, job_dir: Path) -> None:
    assert launcher.poll(job_dir).state == "absent"
    run = launcher.start(job_dir, ["sh", "-c", "echo out $WORD; echo err >&2; exit 7"], {"WORD": "x"}, ME)
    until(lambda: ended(launcher, job_dir))
    process = launcher.poll(job_dir)
    assert (process.state, process.run) == ("exited", run)
    assert process.exit is not None
    assert (process.exit.code, process.exit.signal) == (7, None)
    assert process.exit.detail["max_rss_bytes"] > 0
    assert (job_dir / "log.txt").read_text().splitlines()[1:] == ["out x", "err"]
    assert not list(job_dir.glob("*.tmp"))


def test_a_log_is_kept_up_to_its_size_twice_and_read_over_both_files(
    launcher: LocalLauncher, job_dir: Path
) -> None:
    script = "for n in range(3000): print(f'line {n:05d}', flush=n % 50 == 0)"
    launcher.start(job_dir, [sys.executable, "-c", script], {}, ME, log_bytes=10_000)
    until(lambda: ended(launcher, job_dir))
    assert {file.name: file.stat().st_size <= 10_000 for file in job_dir.glob("log*")} == {
        "log.txt": True,
        "log.1.txt": True,
    }
    first = read_chunk(job_dir / "log.txt", 0)
    second = read_chunk(job_dir / "log.txt", first.next_offset)
    assert first.offset == first.next_offset - 10_000 >= 20_000, "what is gone is not counted anew"
    assert second.next_offset == first.size
    lines = [line for line in (first.data + second.data).decode().split("\n") if "goes on here" not in line]
    assert "".join(lines[1:]).endswith("line 02999")
    launcher.start(job_dir, ["echo", "again"], {}, ME, log_bytes=10_000)
    until(lambda: ended(launcher, job_dir))
    assert read_chunk(job_dir / "log.txt", first.size).data.endswith(b"again\n"), "and after another start"


def test_when_a_log_was_written_is_known_over_both_files(launcher: LocalLauncher, job_dir: Path) -> None:
    log, began = job_dir / "log.txt", time.time()
    launcher.start(job_dir, ["echo", "one"], {}, ME)
    until(lambda: ended(launcher, job_dir))
    between, times = log.stat().st_size, job_dir / "written.txt"
    times.write_text(f"{began - 60:.3f} 0\n")
    launcher.start(job_dir, ["echo", "two"], {}, ME)
    until(lambda: ended(launcher, job_dir))
    assert offset_since(log, began - 3600) == 0
    assert offset_since(log, began) == between
    assert offset_since(log, time.time() + 60) == log.stat().st_size
    log.rename(job_dir / "log.1.txt")
    times.rename(job_dir / "written.1.txt")
    log.write_text(
        f"carbonsched: {began} the log goes on here, its first {(job_dir / 'log.1.txt').stat().st_size} bytes are\n"
    )
    assert read_chunk(log, offset_since(log, began)).offset == between
    assert read_chunk(log, between).data.endswith(b"two\n")
    (job_dir / "written.1.txt").unlink()
    with pytest.raises(StateError, match="was written is not known"):
        offset_since(log, began)


def test_a_log_that_was_deleted_is_begun_anew_where_it_was_left(
    launcher: LocalLauncher, job_dir: Path
) -> None:
    script = "echo one; until [ -e go ]; do sleep 0.02; done; echo two"
    launcher.start(job_dir, ["sh", "-c", script], {}, ME)
    until(lambda: "one" in (job_dir / "log.txt").read_text())
    size = (job_dir / "log.txt").stat().st_size
    (job_dir / "log.txt").unlink()
    with pytest.raises(StateError, match="was deleted from the job directory"):
        read_chunk(job_dir / "log.txt", 0)
    (job_dir / "go").touch()
    until(lambda: ended(launcher, job_dir))
    chunk = read_chunk(job_dir / "log.txt", size)
    assert (chunk.offset, chunk.data.splitlines()[-1]) == (size, b"two")


def test_the_shim_is_small_and_stands_in_a_session_of_its_own(launcher: LocalLauncher, job_dir: Path) -> None:
    run = launcher.start(job_dir, ["sleep", "60"], {}, ME)
    status = Path(f"/proc/{run.pid}/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    assert int(peak.split()[1]) < 24_000
    session = int(shim.stat_fields(run.pid)[3])
    parent = int(shim.stat_fields(run.pid)[1])
    assert session == run.pid
    assert parent != os.getpid()


def test_a_shim_that_was_too_slow_starts_nothing_later(job_dir: Path) -> None:
    log, ran = job_dir / "log.txt", job_dir / "ran"
    os.mkfifo(log)  # the shim waits here, as for a disk that hangs, until somebody reads
    with pytest.raises(LaunchError, match="did not start in"):
        LocalLauncher(start_timeout_s=0.5).start(job_dir, ["touch", str(ran)], {}, ME)
    reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    time.sleep(1.0)
    os.close(reader)
    assert not ran.exists()
    assert not (job_dir / "run.json").exists()
    log.unlink()
    LocalLauncher().start(job_dir, ["touch", str(ran)], {}, ME)
    until(ran.exists)


def test_killing_the_starter_leaves_the_job_to_be_adopted(job_dir: Path) -> None:
    code = f"""
        import os, signal
        from pathlib import Path
        from carbonsched.launch.local import LocalLauncher
        from carbonsched.model.job import Owner
        argv = ["sh", "-c", "sleep 1; echo late; exit 3"]
        LocalLauncher().start(Path({str(job_dir)!r}), argv, {{}}, Owner(uid={ME.uid}, gid={ME.gid}, user="me"))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert done.returncode == -signal.SIGKILL
    successor = LocalLauncher()
    assert successor.poll(job_dir).state == "running"
    until(lambda: ended(successor, job_dir))
    process = successor.poll(job_dir)
    assert process.exit is not None
    assert process.exit.code == 3
    assert "late" in (job_dir / "log.txt").read_text()


def test_a_killed_trainer_is_on_record_with_its_signal(launcher: LocalLauncher, job_dir: Path) -> None:
    launcher.start(job_dir, ["sh", "-c", "kill -9 $$"], {}, ME)
    until(lambda: ended(launcher, job_dir))
    end = launcher.poll(job_dir).exit
    assert end is not None
    assert (end.code, end.signal) == (None, 9)


def test_terminate_reaches_the_trainer_alone_and_lets_it_checkpoint(
    launcher: LocalLauncher, job_dir: Path
) -> None:
    code = """
        import pathlib, signal, subprocess, sys
        worker = subprocess.Popen(["sleep", "60"])
        def stop(*_):
            print("worker", worker.poll(), flush=True)
            pathlib.Path("checkpoint").write_text("saved")
            sys.exit(0)
        signal.signal(signal.SIGTERM, stop)
        print("ready", worker.pid, flush=True)
        signal.pause()
    """
    launcher.start(job_dir, python(code), {}, ME)
    log = job_dir / "log.txt"
    until(lambda: "ready" in log.read_text())
    worker = int(log.read_text().split()[-1])
    launcher.terminate(job_dir)
    until(lambda: ended(launcher, job_dir))
    assert record(job_dir, "exit.json")["code"] == 0
    assert (job_dir / "checkpoint").read_text() == "saved"
    assert "worker None" in log.read_text()
    assert gone(worker), "what the trainer left behind must not run on"


def test_a_daemonised_grandchild_ends_with_the_job(launcher: LocalLauncher, job_dir: Path) -> None:
    code = """
        import os
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                print(os.getpid(), flush=True)
                os.execve("/bin/sleep", ["sleep", "61"], {})
            os._exit(0)
        os.wait()
        while os.path.getsize("log.txt") == 0 or not open("log.txt").read().split()[-1].isdigit():
            pass
    """
    launcher.start(job_dir, python(code), {}, ME)
    until(lambda: ended(launcher, job_dir))
    assert record(job_dir, "exit.json")["code"] == 0
    assert gone(int((job_dir / "log.txt").read_text().split()[-1]))


def test_kill_ends_everything_and_is_recorded(launcher: LocalLauncher, job_dir: Path) -> None:
    launcher.start(job_dir, ["sh", "-c", "trap '' TERM; sleep 62 & echo $!; wait; sleep 63"], {}, ME)
    until(lambda: len((job_dir / "log.txt").read_text().splitlines()) > 1)
    child = int((job_dir / "log.txt").read_text().split()[-1])
    launcher.kill(job_dir)
    until(lambda: ended(launcher, job_dir))
    assert record(job_dir, "exit.json")["signal"] == 9
    assert gone(child)


WORKERS = {
    "as a loader starts them": "os.execv('/bin/sleep', ['sleep', '64'])",
    "in a session of its own": "os.setsid(); os.execv('/bin/sleep', ['sleep', '64'])",
    "with another environment": "os.execve('/bin/sleep', ['sleep', '64'], {})",
    "of a launcher, with both": """
if os.fork():
    os.wait()
os.setsid()
os.execve('/bin/sleep', ['sleep', '64'], {})""",
}


@pytest.mark.parametrize("code", WORKERS.values(), ids=WORKERS)
def test_a_killed_shim_takes_the_trainer_with_it_and_what_is_left_can_be_ended(
    launcher: LocalLauncher, job_dir: Path, code: str
) -> None:
    trainer = f"""
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
{textwrap.indent(code.strip(), "    ")}
time.sleep(0.05)
print("ready", flush=True)
time.sleep(60)
"""
    bystander = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        run = launcher.start(job_dir, python(trainer), {}, ME)
        until(lambda: "ready" in (job_dir / "log.txt").read_text())
        ours = process_group.members(job_dir, run, None)
        assert len(ours) >= 2
        os.kill(run.pid, signal.SIGKILL)
        until(lambda: ended(launcher, job_dir))
        process = launcher.poll(job_dir)
        assert (process.state, process.run, process.exit) == ("lost", run, None)
        assert launcher.sweep(job_dir) == 0
        assert all(gone(process.pid) for process in ours)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def unified() -> Path | None:
    """A cgroup of ours that can be divided, as systemd would delegate one."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split()
        if kind == "cgroup2" and os.access(f"{mount}/cgroup.procs", os.W_OK):
            return Path(mount)
    return None


@pytest.mark.skipif(unified() is None, reason="no cgroup that can be divided")
def test_in_a_delegated_cgroup_a_process_that_left_everything_behind_is_ended(
    job_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.execve("/bin/sleep", ["sleep", "66"], {})
            os._exit(0)
        os.wait()
        print("ready", flush=True)
        time.sleep(60)
    """
    mount = unified()
    assert mount is not None
    delegated = mount / f"carbonsched-test-{os.getpid()}"
    delegated.mkdir()
    try:
        monkeypatch.setattr(process_group, "delegated_cgroup", lambda: delegated)
        launcher = LocalLauncher()
        run = launcher.start(job_dir, python(code), {}, ME)
        until(lambda: "ready" in (job_dir / "log.txt").read_text())
        inside = [int(pid) for pid in (delegated / "job-job-1" / "cgroup.procs").read_text().split()]
        assert len(inside) == 2
        assert run.pid not in inside
        os.kill(run.pid, signal.SIGKILL)
        until(lambda: ended(launcher, job_dir))
        assert launcher.sweep(job_dir) == 0
        assert all(map(gone, inside))
        until(lambda: launcher.sweep(job_dir) == 0 and not (delegated / "job-job-1").exists())
    finally:
        until(lambda: not (delegated / "job-job-1").exists() or (delegated / "job-job-1").rmdir() is None)
        delegated.rmdir()


def test_a_reused_pid_is_not_taken_for_the_job(launcher: LocalLauncher, job_dir: Path) -> None:
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        honest = {
            "pid": stranger.pid,
            "start_time": shim.start_time(stranger.pid),
            "boot_id": shim.boot_id(),
            "started_at": shim.now(),
            "argv": ["sleep", "60"],
        }
        for change in ({"start_time": 12345}, {"boot_id": "another boot"}):
            (job_dir / "run.json").write_text(json.dumps(honest | change))
            assert launcher.poll(job_dir).state == "lost"
            launcher.terminate(job_dir)
            launcher.kill(job_dir)
        time.sleep(0.1)
        assert stranger.poll() is None
        (job_dir / "run.json").write_text(json.dumps(honest))
        assert launcher.poll(job_dir).state == "running"
        launcher.terminate(job_dir)
        assert stranger.wait(10) == -signal.SIGTERM
    finally:
        stranger.kill()
        stranger.wait()


def replaced(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def put(path: Path) -> None:
        path.unlink(missing_ok=True)
        make(path)

    return put


OTHER = json.dumps(
    {"pid": 1, "start_time": 1, "boot_id": "x", "started_at": "2026-11-01T12:00:00Z", "argv": []}
)
SPOILT: dict[str, Callable[[Path], None]] = {
    "torn": replaced(lambda path: path.write_text('{"pid": 1, "sta')),
    "zeros": replaced(lambda path: path.write_bytes(bytes(200))),
    "of another process": replaced(lambda path: path.write_text(OTHER)),
    "gone": replaced(lambda path: None),
    "a folder": replaced(Path.mkdir),
    "a pipe": replaced(os.mkfifo),
    "a link": replaced(lambda path: path.symlink_to("/etc/passwd")),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_process_whose_record_cannot_be_read_is_found_by_its_mark(
    launcher: LocalLauncher, job_dir: Path, spoil: Callable[[Path], None]
) -> None:
    launcher.start(
        job_dir, ["sh", "-c", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.02; done"], {}, ME
    )
    until(lambda: "ready" in (job_dir / "log.txt").read_text())
    spoil(job_dir / "run.json")
    polled = launcher.poll(job_dir)
    assert polled.state == "running"
    assert "run.json" in polled.problem
    with pytest.raises(LaunchError, match="runs already"):
        launcher.start(job_dir, ["true"], {}, ME)
    launcher.terminate(job_dir)
    until(lambda: ended(launcher, job_dir))
    polled = launcher.poll(job_dir)
    assert polled.exit is not None
    assert polled.exit.code == 3, "it was told to end, not killed"


def test_a_living_process_is_not_dead_by_a_damaged_exit_record(
    launcher: LocalLauncher, job_dir: Path
) -> None:
    launcher.start(job_dir, ["sleep", "60"], {}, ME)
    for spoil in SPOILT.values():
        spoil(job_dir / "exit.json")
        assert launcher.poll(job_dir).state == "running"
        if (job_dir / "exit.json").is_dir():
            (job_dir / "exit.json").rmdir()
    (job_dir / "exit.json").unlink(missing_ok=True)


@pytest.mark.parametrize("error", [errno.EIO, errno.EMFILE, errno.EACCES])
def test_what_cannot_be_told_now_is_not_dead(
    launcher: LocalLauncher, job_dir: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    (job_dir / "run.json").write_text("{}")
    real = os.open

    def failing(path: object, *args: object, **named: object) -> int:
        if str(path).startswith(str(job_dir)):
            raise OSError(error, os.strerror(error), str(path))
        return real(path, *args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", failing)
    polled = launcher.poll(job_dir)
    assert polled.state == "unknown"
    assert os.strerror(error) in polled.problem
    with pytest.raises(LaunchError, match="cannot be told"):
        launcher.start(job_dir, ["true"], {}, ME)


def test_without_a_free_file_handle_a_living_process_is_not_dead(
    launcher: LocalLauncher, job_dir: Path
) -> None:
    launcher.start(job_dir, ["sleep", "60"], {}, ME)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        polled = launcher.poll(job_dir)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert polled.state == "unknown"
    assert launcher.poll(job_dir).state == "running"


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_process_that_is_gone_with_its_record_is_lost(
    launcher: LocalLauncher, job_dir: Path, spoil: Callable[[Path], None]
) -> None:
    (job_dir / "run.json").write_text("{}")
    spoil(job_dir / "run.json")
    assert launcher.poll(job_dir).state in ("lost", "absent")
    launcher.terminate(job_dir)
    launcher.kill(job_dir)


def test_a_command_that_does_not_exist_says_so_everywhere(launcher: LocalLauncher, job_dir: Path) -> None:
    with pytest.raises(LaunchError, match=r"job-1 cannot be started: .*'no-such-trainer'.*No such file"):
        launcher.start(job_dir, ["no-such-trainer"], {}, ME)
    process = launcher.poll(job_dir)
    assert process.state == "exited"
    assert process.exit is not None
    assert process.exit.code == 127
    assert "no-such-trainer" in process.exit.detail["reason"]
    assert "cannot run 'no-such-trainer'" in (job_dir / "log.txt").read_text()


def test_a_job_directory_that_is_missing_is_a_launch_error(launcher: LocalLauncher, job_dir: Path) -> None:
    with pytest.raises(LaunchError, match="cannot be started"):
        launcher.start(job_dir / "none", ["true"], {}, ME)


def test_each_attempt_keeps_its_records(launcher: LocalLauncher, job_dir: Path) -> None:
    for code in (1, 2, 0):
        launcher.start(job_dir, ["sh", "-c", f"exit {code}"], {}, ME)
        until(lambda: ended(launcher, job_dir))
    assert [record(job_dir, f"exit{n}.json")["code"] for n in (".1", ".2", "")] == [1, 2, 0]
    assert (job_dir / "log.txt").read_text().count("starting sh") == 3
    runs = [RunRecord.model_validate(record(job_dir, f"run{n}.json")) for n in (".1", ".2", "")]
    assert len({run.start_time for run in runs} | {run.pid for run in runs}) > 1


def test_a_running_job_is_not_started_twice(launcher: LocalLauncher, job_dir: Path) -> None:
    run = launcher.start(job_dir, ["sleep", "60"], {}, ME)
    with pytest.raises(LaunchError, match="runs already"):
        launcher.start(job_dir, ["true"], {}, ME)
    assert launcher.poll(job_dir).run == run


def test_the_daemons_own_environment_stays_with_it(
    launcher: LocalLauncher, job_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/somewhere")
    monkeypatch.setenv("KEPT", "yes")
    launcher.start(job_dir, ["env"], {"ADDED": "1"}, ME)
    until(lambda: ended(launcher, job_dir))
    lines = (job_dir / "log.txt").read_text().splitlines()
    assert "KEPT=yes" in lines
    assert "ADDED=1" in lines
    assert f"CARBONSCHED_JOB_DIR={job_dir}" in lines
    assert not [line for line in lines if line.startswith("NOTIFY_SOCKET")]


def test_a_record_that_the_disk_has_no_room_for_is_not_half_of_one(job_dir: Path) -> None:
    """A write may take a part, and say so."""
    shim.write_record(str(job_dir), "exit.json", {"code": 0})
    script = (
        "import resource, sys; sys.path.insert(0, sys.argv[1]); from carbonsched.launch import shim; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64)); "
        "shim.write_record(sys.argv[2], 'exit.json', {'code': 1, 'reason': 'x' * 200})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(Path(shim.__file__).parents[2]), str(job_dir)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "OSError" in done.stderr
    assert json.loads((job_dir / "exit.json").read_text()) == {"code": 0}
