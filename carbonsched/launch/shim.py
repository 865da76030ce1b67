"""The shim: one small process per job. It starts the trainer, outlives the daemon and writes down how the trainer ended.

    python -m carbonsched.launch.shim JOB_DIR [--uid N --gid N --groups N,N] [--cgroup FOLDER] [--inputs FILE]
        [--log-bytes N] -- CMD…

The caller's process ends as soon as CMD runs (0) or could not be run (1, the reason on stderr); the shim itself
goes on in a session of its own, child of init, so the daemon may die, be upgraded and come back. It writes

    run.json    before CMD starts: its own pid, start time and boot id, by which a successor knows it again
    written.txt   when which byte of the log was written, every few seconds; beside the older log written.1.txt
    log.txt     CMD's stdout and stderr, appended; from `--log-bytes` on a new one, and one old one is kept as log.1.txt
    exit.json   when CMD has ended: exit code or signal; file and directory fsynced

`--inputs` is a JSON object of names and descriptors that it was given: it holds them as long as it lives, and links the names, in
FILE's folder, to them, so that CMD and all that it starts open these very files.

It stays the daemon's user (root, mostly) while CMD becomes the job's owner, so an owner cannot forge these records. A job that
has a systemd unit of its own is held by `job_launcher`, which is the same shim without the first process.
Nothing of a job runs on unmetered:

- the shim is the subreaper of everything CMD starts, and kills what is left when CMD ends;
- should the shim itself be killed, the kernel kills CMD with it (PR_SET_PDEATHSIG, SIGKILL: a signal that CMD could
  ignore would leave it training with nobody to account for it; periodic checkpoints are what it resumes from). What CMD
  had started by then carries `CARBONSCHED_JOB_DIR` in its environment, by which the launcher finds and ends it.

Standard library only, run with `-I -S`: about 12 MB and no import of carbonsched.
"""

import _thread
import contextlib
import ctypes
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NoReturn

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
NOT_RUN = 127
"""Exit code of a CMD that could not be executed, as in a shell."""
MARK = "CARBONSCHED_JOB_DIR"

LOG_BYTES = 64 * 1024 * 1024
TIMES_S = 2.0
"""Interval at which the size of the log is recorded."""
_GOES_ON = re.compile(rb"carbonsched: \S+ the log goes on here, its first (\d+) bytes")
"""The first line of a log that is not the job's first."""
_LAST_WORDS_S = 5.0
"""Seconds to wait for the output of a job that has ended."""

Ids = tuple[int, int, tuple[int, ...]]
"""uid, gid and supplementary groups that CMD runs as."""

END_ALL = signal.SIGUSR1
"""Kills all of the job but the shim: for a daemon that may only signal the shim."""
CAP_KILL, CAP_SETGID, CAP_SETUID = 5, 6, 7
_CAPABILITIES_V3 = 0x20080522
_FORWARDED = {signal.SIGTERM, signal.SIGINT}
_WAITED = _FORWARDED | {signal.SIGCHLD, signal.SIGHUP, END_ALL}
_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) was refused")


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as f:  # noqa: PTH123 - pathlib would double the shim's memory
        return f.read().strip()


def stat_fields(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third (state) on; the second may hold blanks and brackets."""
    with open(f"/proc/{pid}/stat") as f:  # noqa: PTH123
        return f.read().rpartition(")")[2].split()


def start_time(pid: int) -> int:
    """Field 22 of /proc/PID/stat: clock ticks from boot to the process's start (proc_pid_stat(5))."""
    return int(stat_fields(pid)[19])


def write_record(directory: str, name: str, record: dict[str, Any]) -> None:
    """Write a JSON file so that a reader, or a power cut, finds all of it or nothing: write, fsync, rename, fsync."""
    path = f"{directory}/{name}"
    fd = os.open(path + ".tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        data = json.dumps(record).encode() + b"\n"
        while data:  # a disk that is nearly full takes a part
            data = data[os.write(fd, data) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(path + ".tmp", path)  # noqa: PTH104
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def keep_capabilities(*numbers: int) -> None:
    """Keep only these capabilities of this thread, and pass none on to what it executes (capset(2)). Raises OSError."""
    kept = sum(1 << number for number in numbers)
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_V3, 0)
    # effective, permitted and inheritable, of the first 32 and then of the others; ambient ones go with the inheritable
    sets = (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0)
    if _libc.capset(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capset was refused")


def _become(uid: int, gid: int, groups: tuple[int, ...]) -> None:
    """Become that user and nothing more. Raises OSError; nothing may then be executed."""
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    # the kernel drops them for who was root, and for nobody else
    keep_capabilities()
    with open("/proc/self/status") as f:  # noqa: PTH123
        held = [line for line in f if line.startswith(("CapInh", "CapPrm", "CapEff", "CapAmb"))]
    if len(held) != 4 or any(int(line.split()[1], 16) for line in held):
        raise PermissionError("capabilities are left after the change of user")
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (gid, gid, gid):
        raise PermissionError("the change of user was not made")


def bytes_before(first: bytes) -> int:
    """How much of a job's log was written before a log.txt that begins like this."""
    found = _GOES_ON.match(first)
    return int(found[1]) if found else 0


class Log:
    """The job's output: log.txt up to a size, and the previous file as log.1.txt. CMD writes into a pipe, so that the file can be switched.
    A deleted file is created again.

    Example::

        log = Log("/var/lib/carbonsched/jobs/tiny-7f3a1c", LOG_BYTES, None)
        log.write(b"loading")
    """

    def __init__(self, job_dir: str, most: int, ids: Ids | None) -> None:
        self._path, self._old, self._most, self._ids = f"{job_dir}/log.txt", f"{job_dir}/log.1.txt", most, ids
        self._times, self._old_times = f"{job_dir}/written.txt", f"{job_dir}/written.1.txt"
        self._noted_s = -TIMES_S
        self._fd = self._open()
        self._size, self._before = os.fstat(self._fd).st_size, 0
        """Bytes in the file, and bytes of the job's log before it."""
        with contextlib.suppress(OSError):
            first = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                self._before = bytes_before(os.read(first, 200))
            finally:
                os.close(first)

    def write(self, data: bytes) -> None:
        """Append to it; on a full disk output is dropped and the job goes on."""
        with contextlib.suppress(OSError):
            if not self._there():
                self._begin_anew()
            self._note_time()
            while data:
                if self._size >= self._most:
                    os.rename(self._path, self._old)  # noqa: PTH104
                    with contextlib.suppress(OSError):
                        os.rename(self._times, self._old_times)  # noqa: PTH104
                    self._begin_anew()
                    self._noted_s = -TIMES_S
                written = os.write(self._fd, data[: max(self._most - self._size, 1)])
                self._size, data = self._size + written, data[written:]

    def _note_time(self) -> None:
        """Record the current size for `logs --since`."""
        if time.monotonic() - self._noted_s < TIMES_S:
            return
        self._noted_s = time.monotonic()
        with contextlib.suppress(OSError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(self._times, flags, 0o640)
            try:
                os.write(fd, f"{time.time():.3f} {self._before + self._size}\n".encode())
            finally:
                os.close(fd)

    def copy(self, reader: int, done: Any) -> None:
        """Copy everything from a pipe until its end; `done` is released then."""
        try:
            while data := os.read(reader, 65536):
                self.write(data)
        finally:
            done.release()

    def _there(self) -> bool:
        try:
            return os.stat(self._path, follow_symlinks=False).st_ino == os.fstat(self._fd).st_ino  # noqa: PTH116
        except FileNotFoundError:
            return False

    def _begin_anew(self) -> None:
        fd = self._open()
        os.close(self._fd)
        self._fd, self._before, self._size = fd, self._before + self._size, 0
        text = f"carbonsched: {now()} the log goes on here, its first {self._before} bytes are in log.1.txt or gone\n"
        self._size = os.write(fd, text.encode())

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self._path, flags, 0o640)
        if self._ids is not None and os.geteuid() == 0:
            os.fchown(fd, self._ids[0], self._ids[1])
        os.dup2(fd, 1, inheritable=False)
        os.dup2(fd, 2, inheritable=False)
        return fd


def _exec(argv: list[str], ids: Ids | None, cgroup: str, env: dict[str, str], shim: int) -> NoReturn:
    os.setpgid(0, 0)
    if cgroup:
        with contextlib.suppress(OSError), open(f"{cgroup}/cgroup.procs", "w") as f:  # noqa: PTH123
            f.write(
                "0"
            )  # this process, and with it all that it starts; the shim stays outside to see the end
    if ids is not None:
        _become(*ids)
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # after the change of user, which would clear it
    if os.getppid() != shim:
        os._exit(NOT_RUN)  # the shim died before the line above
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # Python ignores them, and exec hands that on
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _WAITED)
    os.execvpe(argv[0], argv, env)  # noqa: S606 - a list, no shell


def _spawn(
    argv: list[str], ids: Ids | None, cgroup: str, env: dict[str, str], output: int
) -> tuple[int, str | None]:
    """Fork and exec, stdout and stderr to `output`. Returns the child's pid and why exec failed, None if it did not."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    shim = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(output, 1)
            os.dup2(output, 2)
            _exec(argv, ids, cgroup, env, shim)
        except OSError as e:
            os.write(writer, f"cannot run {argv[0]!r}: {e.strerror}".encode())
        except BaseException as e:
            os.write(writer, f"cannot run {argv[0]!r}: {e}".encode())
        os._exit(NOT_RUN)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        problem = pipe.read().decode(errors="replace")  # ends at exec, which closes the writer
    return child, problem or None


def _children() -> list[int]:
    me = os.getpid()
    try:
        with open(f"/proc/{me}/task/{me}/children") as f:  # noqa: PTH123
            return [int(pid) for pid in f.read().split()]
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN; the group was killed before
        return []


def _kill(child: int) -> None:
    """Kill CMD, which has not been waited for, and its group; other processes are swept once CMD has ended."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(child, signal.SIGKILL)


def _sweep(child: int) -> None:
    """Kill what the ended CMD left behind; as subreaper the shim inherits all of it, whatever session it moved to."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    while pids := _children():
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _wait(child: int) -> tuple[int, Any]:
    """Forward stop signals until `child` ends. Returns its wait status and resource usage."""
    while True:
        number = signal.sigwait(_WAITED)
        if number in _FORWARDED:
            os.kill(
                child, signal.SIGTERM
            )  # to CMD alone: its workers would die of it before it can checkpoint
        if number == END_ALL:
            _kill(child)
        while number == signal.SIGCHLD:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if pid == child:
                return status, usage
            if pid == 0:
                break


def _record_exit(job_dir: str, record: dict[str, Any]) -> None:
    for _ in range(120):
        try:
            return write_record(job_dir, "exit.json", record)
        except OSError as e:  # mostly a full disk: this record is worth waiting for
            problem = e
            time.sleep(1)
    raise problem


def _link(listing: str) -> None:
    with open(listing) as f:  # noqa: PTH123
        handed = json.load(f)
    folder = listing.rpartition("/")[0]
    for name, fd in handed.items():
        os.set_inheritable(fd, False)  # CMD opens it again, with an offset of its own
        os.symlink(f"/proc/{os.getpid()}/fd/{fd}", f"{folder}/{name}")  # noqa: PTH211


def hold(
    job_dir: str,
    argv: list[str],
    env: dict[str, str],
    ready: Callable[[], None],
    *,
    ids: Ids | None = None,
    cgroup: str = "",
    log_bytes: int = LOG_BYTES,
) -> None:
    """The shim proper: run `argv` to its end. ready: called once it runs. Raises OSError if it cannot be run."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    os.chdir(job_dir)
    log = Log(job_dir, log_bytes, ids)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    if ids is not None:
        os.fchmod(writer, 0o622)  # a program may open /dev/stderr anew, which asks for its mode
    run = {"pid": os.getpid(), "start_time": start_time(os.getpid()), "boot_id": boot_id()}
    write_record(job_dir, "run.json", run | {"started_at": now(), "argv": argv})
    log.write(f"carbonsched: {now()} starting {argv[0]}, see run.json\n".encode())
    child, problem = _spawn(argv, ids, cgroup, env | {MARK: job_dir}, writer)
    os.close(writer)
    if ids is not None and os.geteuid() != 0:
        keep_capabilities(CAP_KILL)  # before a thread begins, which would keep what it began with
    if problem is not None:
        log.write(f"carbonsched: {problem}\n".encode())
        os.waitpid(child, 0)
        _record_exit(job_dir, {"code": NOT_RUN, "signal": None, "at": now(), "detail": {"reason": problem}})
        raise OSError(problem)
    ready()
    all_read = _thread.allocate_lock()
    all_read.acquire()
    _thread.start_new_thread(log.copy, (reader, all_read))
    status, usage = _wait(child)
    at = now()
    _sweep(child)
    all_read.acquire(timeout=_LAST_WORDS_S)
    killed = os.WIFSIGNALED(status)
    record = {
        "code": None if killed else os.WEXITSTATUS(status),
        "signal": os.WTERMSIG(status) if killed else None,
        "at": at,
        "detail": {"cpu_s": usage.ru_utime + usage.ru_stime, "max_rss_bytes": usage.ru_maxrss * 1024},
    }
    _record_exit(job_dir, record)


def _serve(job_dir: str, argv: list[str], options: dict[str, str], ready: int) -> None:
    """Run CMD and close `ready` once it runs; if it cannot run, the reason is written there first."""
    os.setsid()
    if "--inputs" in options:
        _link(options["--inputs"])
    hold(
        job_dir,
        argv,
        dict(os.environ),
        lambda: os.close(ready),
        ids=_ids(options),
        cgroup=options.get("--cgroup", ""),
        log_bytes=int(options.get("--log-bytes", LOG_BYTES)),
    )


def _ids(values: dict[str, str]) -> Ids | None:
    if "--uid" not in values:
        return None
    groups = tuple(int(group) for group in values["--groups"].split(",") if group)
    return int(values["--uid"]), int(values["--gid"]), groups


def main(arguments: list[str]) -> int:
    try:
        split = arguments.index("--")
        job_dir, argv = os.path.realpath(arguments[0]), arguments[split + 1 :]
        options = dict(zip(arguments[1:split:2], arguments[2:split:2], strict=True))
        _ids(options)
        int(options.get("--log-bytes", LOG_BYTES))
        argv[0]
    except (ValueError, IndexError, KeyError):
        sys.stderr.write(
            "usage: shim JOB_DIR [--uid N --gid N --groups N,N] [--cgroup FOLDER] [--inputs FILE] [--log-bytes N] -- CMD…\n"
        )
        return 2
    reader, writer = os.pipe2(os.O_CLOEXEC)
    if os.fork() == 0:
        os.close(reader)
        try:
            _serve(job_dir, argv, options, writer)
        except BaseException as e:
            sys.stderr.write(f"carbonsched: the job's shim ends: {e}\n")
            with contextlib.suppress(OSError):  # already closed if CMD did run
                os.write(writer, str(e).encode())
            os._exit(1)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        problem = pipe.read().decode(errors="replace")
    if problem:
        sys.stderr.write(problem + "\n")
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
