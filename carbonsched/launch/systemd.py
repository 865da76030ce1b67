"""Starts each job as a systemd unit, carbonsched-job@NAME.service, in which it runs as the user who submitted it.

The daemon needs no right for that but polkit's, to start and stop these units; `job_launcher` in the unit becomes the
submitter. Signals go to the job's shim, which is the daemon's user and may signal the job. What a job leaves behind is in
its unit's cgroup, whoever started it, and systemd ends it with the unit.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from carbonsched.errors import InputError, LaunchError
from carbonsched.launch import job_launcher, process_group, shim
from carbonsched.launch.handover import FOLDER
from carbonsched.launch.inputs import open_all, wanted
from carbonsched.launch.job_folder import WRITTEN, open_to_owner, share_written
from carbonsched.launch.job_launcher import RefusedError, account_of, instance_of
from carbonsched.launch.local import LocalLauncher, public_environment, record, rotate
from carbonsched.launch.rights import UnreachableFileError, Who
from carbonsched.model.files import load, replace
from carbonsched.model.job import DATA_SUFFIXES, JobSpec, Owner
from carbonsched.model.protocol import ExitRecord, RunRecord

SLICE = "carbonsched.slice"
"""`Slice=` of the units, which contains their cgroups."""
_STOP_S = 0.05
"""systemd accepts a request that does not wait within milliseconds; if it is busy, the daemon does not wait either."""
_SYSTEMCTL = ("systemctl", "--no-ask-password", "--quiet")
_ROUNDS, _PAUSE_S = 2, 0.02
"""A shim that was signalled kills its job within this time, or is signalled again."""
_OPEN_S = 60.0
"""Seconds to wait until a removed job's folders are accessible."""


def unit_of(job_id: str) -> str:
    """The name of a job's unit.

    Example:
        >>> unit_of("tiny-7f3a1c")
        'carbonsched-job@tiny-7f3a1c.service'
    """
    return f"carbonsched-job@{instance_of(job_id)}.service"


class SystemdLauncher(LocalLauncher):
    """A `Launcher` for a daemon that runs under systemd as a user of its own. Commands of `carbonsched run`, and jobs that were started
    without units, are handled by `LocalLauncher`.

    Example::

        launcher = SystemdLauncher()
        launcher.start(job_dir, [python, "-m", "trainer", "run", str(job_dir)], {}, owner)
    """

    def __init__(
        self,
        python: str = sys.executable,
        start_timeout_s: float = 30.0,
        starts: Path = Path(job_launcher.STARTS),
        cgroups: Path | None = None,
    ) -> None:
        """starts: where start requests are written; cgroups: those of the units, the slice's if None. Raises InputError on a box without
        version 2 cgroups."""
        super().__init__(python, start_timeout_s)
        found = cgroups or process_group.slice_of(SLICE)
        if found is None:
            raise InputError(
                "launch.kind", "'systemd' needs cgroups of version 2, which are not mounted", "give 'local'"
            )
        self._starts, self._cgroups = starts, found
        self._stops: dict[str, subprocess.Popen[str]] = {}
        """By unit: requests that systemd has not answered yet."""

    def check(self, spec: JobSpec, owner: Owner) -> None:
        """See `Launcher.check`. What the daemon's user may not read, the job's own process checks at its start."""
        try:
            account_of(owner.uid, os.getegid())
        except RefusedError as e:
            raise InputError(
                "", f"jobs run as their submitters here, and {e}", "submit as a user of the daemon's group"
            ) from e
        wants = wanted(spec)
        with contextlib.suppress(UnreachableFileError):
            open_all(wants, Who.of(owner.user, owner.uid, owner.gid), DATA_SUFFIXES, keep=False)

    def _start(
        self,
        job_dir: Path,
        argv: list[str],
        env: dict[str, str],
        owner: Owner,
        spec: JobSpec | None,
        log_bytes: int,
    ) -> RunRecord:
        start = job_launcher.Start(
            str(job_dir), owner.uid, argv, public_environment() | env, max(log_bytes, 1)
        )
        told = self._starts / f"{instance_of(job_dir.name)}.json"
        try:
            rotate(job_dir)
            open_to_owner(job_dir, owner)
            share_written(job_dir, owner)
            with contextlib.suppress(FileNotFoundError):
                (job_dir / "spec.json").chmod(0o644)  # the trainer reads it, whatever the daemon's umask was
            shutil.rmtree(job_dir / FOLDER, ignore_errors=True)  # of a start without a unit
            self._starts.mkdir(mode=0o700, exist_ok=True)
            replace(told, json.dumps(start._asdict()), mode=0o600)
            problem = self._systemctl(self._start_timeout_s, "start", unit_of(job_dir.name))
        except OSError as e:
            raise LaunchError(f"{job_dir.name} cannot be started: {e}") from e
        finally:
            with contextlib.suppress(OSError):
                told.unlink(missing_ok=True)
        run = load(job_dir / "run.json", RunRecord)
        if problem or run is None:
            ended, _ = record(job_dir / "exit.json", ExitRecord)
            detail = {} if ended is None or ended.detail is None else ended.detail
            reason = detail.get("reason") or problem or "its unit runs already"
            raise LaunchError(f"{job_dir.name} cannot be started: {reason}")
        return run

    def pids(self, job_dir: Path) -> set[int]:
        """See `Launcher.pids`."""
        try:
            inside = self._inside(job_dir.resolve())
        except OSError:
            inside = set()
        return inside or super().pids(job_dir)

    def sweep(self, job_dir: Path) -> int:
        """See `Launcher.sweep`. The shim of a job that lives is left to write exit.json. Raises LaunchError."""
        job_dir = job_dir.resolve()
        run, _ = record(job_dir / "run.json", RunRecord)
        if (run is not None and not run.held) or not self._cgroup_of(job_dir).is_dir():
            return super().sweep(job_dir)
        try:
            for holder in self._shims(job_dir):
                self._send(job_dir, holder, shim.END_ALL)
            for _ in range(_ROUNDS):
                if not self._left(job_dir):
                    return 0
                time.sleep(_PAUSE_S)
            # without a shim that answers, systemd ends everything, at the latest after TimeoutStopSec
            if problem := self._ask_to_stop(unit_of(job_dir.name)):
                raise LaunchError(f"processes of {job_dir.name} cannot be ended: {problem}")
            return self._left(job_dir)
        except OSError as e:
            raise LaunchError(f"processes of {job_dir.name} cannot be ended: {e.strerror}") from e

    def open_written(self, job_dir: Path, owner: Owner) -> None:
        """See `Launcher.open_written`. The job's own unit does it, since the job is over; no other process can enter the job's folder."""
        job_dir = job_dir.resolve()
        folders = [str(job_dir / name) for name in WRITTEN if (job_dir / name).is_dir()]
        if not folders:
            return
        # find runs chmod before it goes into a folder, and follows no link
        argv = ["find", *folders, "-type", "d", "-exec", "chmod", "0777", "{}", ";"]
        until = time.monotonic() + _OPEN_S
        try:
            self._start(job_dir, argv, {}, owner, None, shim.LOG_BYTES)
        except LaunchError:
            if not (job_dir / "exit.json").exists():  # it may have finished before systemd looks
                raise
        while self._inside(job_dir) or not (job_dir / "exit.json").exists():
            if time.monotonic() > until:
                raise LaunchError(f"{job_dir.name}: its folders are not opened within {_OPEN_S:g} s")
            time.sleep(_PAUSE_S)

    def _cgroup_of(self, job_dir: Path) -> Path:
        return self._cgroups / unit_of(job_dir.name)

    def _cgroup_of_job(self, job_dir: Path) -> Path:
        return self._cgroup_of(job_dir)

    def _inside(self, job_dir: Path) -> set[int]:
        """The processes in the unit's cgroup: /proc may show neither the owner's processes nor a shim that may signal them."""
        return process_group.listed(self._cgroup_of(job_dir))

    def _left(self, job_dir: Path) -> int:
        return sum(not _ours(pid) for pid in self._inside(job_dir))

    def _shim_of(self, job_dir: Path, run: RunRecord) -> list[process_group.Process]:
        inside = self._inside(job_dir)
        if not inside:
            return super()._shim_of(job_dir, run)
        lives = run.boot_id == shim.boot_id() and run.pid in inside and _ours(run.pid)
        return [_held_by(run.pid, run.start_time)] if lives else []

    def _shims(self, job_dir: Path) -> list[process_group.Process]:
        inside = self._inside(job_dir)
        return [_held_by(pid) for pid in inside if _ours(pid)] if inside else super()._shims(job_dir)

    def _send(self, job_dir: Path, process: process_group.Process, number: signal.Signals) -> None:
        if process.pid not in self._inside(job_dir):
            return super()._send(job_dir, process, number)
        try:
            handle = os.pidfd_open(process.pid)
        except ProcessLookupError:
            return None
        try:
            # checked after opening the pidfd: the pid cannot be reused any more
            if process.pid in self._inside(job_dir):
                signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(handle)
        return None

    def _systemctl(self, seconds: float, *words: str) -> str:
        """Why systemd refuses; empty: it does it, or has done it. Raises OSError."""
        try:
            done = subprocess.run(
                [*_SYSTEMCTL, *words],
                capture_output=True,
                text=True,
                check=False,
                timeout=seconds,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            return f"systemd did not answer within {seconds:g} s"
        return _refusal(done.returncode, done.stderr, words[-1])

    def _ask_to_stop(self, unit: str) -> str:
        """Why systemd refuses; empty: it does not, or has not answered yet, in which case the answer is read next time. Raises OSError."""
        asked = self._stops.pop(unit, None) or subprocess.Popen(
            [*_SYSTEMCTL, "stop", "--no-block", unit],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            _, said = asked.communicate(timeout=_STOP_S)
        except subprocess.TimeoutExpired:
            self._stops[unit] = asked
            return ""
        return _refusal(asked.returncode, said, unit)


def _refusal(code: int, said: str, unit: str) -> str:
    """Why systemctl failed; empty: it did not."""
    if code == 0:
        return ""
    first = (said.strip().splitlines() or [f"systemctl ended with {code}"])[0]
    if "uthentication" in first or "not permitted" in first or "denied" in first.lower():
        return (
            f"{first} (polkit must let the daemon's user start it: docs/install.md, Whose processes jobs are)"
        )
    return f"{first} (journalctl -u {unit})"


def _held_by(pid: int, start_time: int = 0) -> process_group.Process:
    """A unit's main process, found by its cgroup."""
    return process_group.Process(pid, parent=1, session=pid, start_time=start_time, user=os.geteuid())


def _ours(pid: int) -> bool:
    """Whether a process belongs to the daemon's user, as a shim does, so that it may be signalled; a job's owner is another user."""
    try:
        os.kill(pid, 0)
    except (PermissionError, ProcessLookupError):
        return False
    return True
