"""A daemon's parts in a process of another user whose /proc shows its own processes alone, as the packaged unit's does."""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from carbonsched.api.app import create_app
from carbonsched.api.server import serve
from carbonsched.cli.client import Client
from carbonsched.cli.run_alone import metering
from carbonsched.errors import UnreachableError
from carbonsched.launch import shim

DAEMON = 65534
_CLONE_NEWNS, _KEEP_CAPS, _READ_ALL = 0x20000, 8, 2


@dataclass
class HiddenBox:
    """In `root`, which everybody may enter, with `config.toml` there."""

    root: Path
    pid: int = 0

    @property
    def client(self) -> Client:
        return Client(self.root / "api.sock")

    def start(self) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._serve()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        until = time.monotonic() + 60
        while True:
            with contextlib.suppress(UnreachableError):
                self.client.version()
                return
            assert time.monotonic() < until
            assert os.waitpid(self.pid, os.WNOHANG) == (0, 0)
            time.sleep(0.05)

    def kill(self) -> None:
        if self.pid:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
        self.pid = 0

    def _serve(self) -> None:
        assert ctypes.CDLL(None).unshare(_CLONE_NEWNS) == 0
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        subprocess.run(["mount", "-t", "proc", "-o", "hidepid=2", "proc", "/proc"], check=True)
        ctypes.CDLL(None).prctl(_KEEP_CAPS, 1, 0, 0, 0)
        os.setgroups([])
        os.setresgid(DAEMON, DAEMON, DAEMON)
        os.setresuid(DAEMON, DAEMON, DAEMON)
        shim.keep_capabilities(
            _READ_ALL
        )  # this interpreter's libraries may lie in a folder that is closed to others
        os.umask(0o027)
        assert not Path("/proc/1").exists()
        with metering(self.root / "box.db", self.root / "config.toml", None) as box:
            serve(create_app(box.service), self.root / "api.sock").start()
            signal.pause()


@contextmanager
def hidden_box(config: str) -> Iterator[HiddenBox]:
    root = Path(tempfile.mkdtemp())  # not tmp_path: another user must be able to enter it
    box = HiddenBox(root)
    try:
        root.chmod(0o755)
        os.chown(root, DAEMON, DAEMON)
        (root / "config.toml").write_text(config)
        (root / "watts.csv").write_text("seconds,watts\n0,100\n3600,100\n")
        box.start()
        yield box
    finally:
        box.kill()
        shutil.rmtree(root)
