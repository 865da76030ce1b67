"""Starts the command of `carbonsched run`, held until it is metered, and passes signals on to it.

The command keeps this process's terminal, streams and process group. Signals of the terminal reach it directly; signals sent to this process
are passed on.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

from carbonsched.errors import StateError
from carbonsched.launch import leftover_processes, liveness_lock
from carbonsched.launch.leftover_processes import MARK
from carbonsched.text import visible

NOT_RUN, NOT_FOUND, NOT_STARTED = 126, 127, 125
"""Exit codes of a command that cannot be executed, that does not exist, and that was never started: as in env, timeout and shells."""
_PASSED_ON = (
    *(signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT, signal.SIGWINCH),
)
_SENT = 0
"""si_code up to this one: sent by a process; above: by the kernel, e.g. a terminal's signal to its whole group."""


@dataclass(slots=True)
class Child:
    """The command: held at first, then running, then ended.

    Example::

        child = Child.hold(["make"])
        child.go({})
        while not child.ended(1.0):
            look()
        code = child.reap()
    """

    pid: int
    pipe: int
    mask: set[signal.Signals]
    started_s: float = 0.0
    lock: int | None = None
    """A descriptor that marks the run as alive if the daemon cannot see its processes."""
    folder: str = ""
    """Folder of the run: in the environment of the command and its descendants."""

    @classmethod
    def hold(cls, argv: list[str]) -> "Child":
        """Fork before any thread begins; `go` later sets the command's environment."""
        read, write = os.pipe()
        mask = set(
            map(signal.Signals, signal.pthread_sigmask(signal.SIG_BLOCK, {*_PASSED_ON, signal.SIGCHLD}))
        )
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            os.close(write)
            _become(argv, read, mask)
        os.close(read)
        return cls(pid, write, mask)

    def go(self, env: dict[str, str], lock: str | None = None) -> None:
        """lock: a file whose shared lock this process and the command hold from now on. Raises StateError if it is not available."""
        self.folder = env.get(MARK, "")
        if lock is not None:
            try:
                self.lock = liveness_lock.hold(lock)
            except OSError as e:
                raise StateError(
                    f"{lock} cannot be opened: {e.strerror}; by it the daemon tells how long the command runs, so start it where you see that file"
                ) from e
        self.started_s = time.monotonic()
        with os.fdopen(self.pipe, "wb") as pipe, contextlib.suppress(BrokenPipeError):
            pipe.write(json.dumps({"env": env, "lock": lock}).encode())

    def give_up(self) -> None:
        """Do not run a command that is still held; a running one goes on by itself."""
        if not self.started_s:
            os.close(self.pipe)
            os.waitpid(self.pid, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)

    def ended(self, wait_s: float) -> bool:
        """Whether it has ended, after at most this wait; signals are passed on meanwhile. It must still be reaped."""
        until = time.monotonic() + wait_s
        while not self._over():
            left = until - time.monotonic()
            got = signal.sigtimedwait({*_PASSED_ON, signal.SIGCHLD}, max(left, 0.0))
            if got is None:
                return self._over()
            if got.si_signo != signal.SIGCHLD and got.si_code <= _SENT:
                self.send(signal.Signals(got.si_signo))
        return True

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(self.pid, number)

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to the command and its descendants."""
        self.send(number)
        if self.folder:
            leftover_processes.send_signal(self.folder, number)

    def leave(self) -> int:
        """After its end: the number of processes that it left running. They hold the lock from now on, or are watched until they end."""
        left = len(leftover_processes.processes(self.folder)) if self.folder else 0
        if self.lock is None:
            return left
        if left:
            subprocess.Popen(
                [sys.executable, "-I", "-S", leftover_processes.__file__, str(self.lock), self.folder],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(self.lock,),
                start_new_session=True,
                cwd="/",
            )
        os.close(self.lock)
        self.lock = None
        return left

    def how(self) -> tuple[int | None, int | None]:
        """(exit code, signal) of an ended command."""
        found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        if found is None:  # only with WNOHANG
            return None, None
        if found.si_code == os.CLD_EXITED:
            return found.si_status, None
        return None, found.si_status

    def reap(self) -> int:
        """Its exit code, 128 + N if signal N ended it."""
        _, status = os.waitpid(self.pid, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)
        code = os.waitstatus_to_exitcode(status)
        return 128 - code if code < 0 else code

    def _over(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _become(argv: list[str], pipe: int, mask: set[signal.Signals]) -> None:
    """In the child: wait for the answer, then execute the command."""
    code = NOT_STARTED
    try:
        with os.fdopen(pipe, "rb") as file:
            told = file.read()
        if told:
            answer = json.loads(told)
            if answer["lock"] is not None:  # the child's own lock: it remains if the parent is killed
                os.set_inheritable(liveness_lock.hold(answer["lock"]), True)
            for number in (
                signal.SIGPIPE,
                signal.SIGXFSZ,
            ):  # Python ignores these, and its children would, too
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            if not argv[0]:  # Python calls this a wrong value, the kernel a missing file
                raise FileNotFoundError  # noqa: TRY301
            os.execvpe(argv[0], argv, os.environ | answer["env"])  # noqa: S606
    except FileNotFoundError:
        code = NOT_FOUND
        print(f"carbonsched: {visible(argv[0]) or repr('')}: not found", file=sys.stderr, flush=True)
    except OSError as e:
        code = NOT_RUN
        print(f"carbonsched: {visible(argv[0])}: {e.strerror}", file=sys.stderr, flush=True)
    except Exception as e:
        why = visible(f"{type(e).__name__}: {e}")
        print(f"carbonsched: {visible(argv[0])} was not started: {why}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)
