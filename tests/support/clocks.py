"""A real helper that locks clocks, over the stand-in for NVIDIA's library."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.nvml.fake import fake_nvml_env
from support.processes import until

from carbonsched.clocks.request import Request

BOARD = "GPU-00000000-fake-0000-0000-000000000000"


class ClocksBox:
    """A helper, and the board that it locks."""

    def __init__(self, root: Path, library: Path) -> None:
        self.root, self.settings = root, root / "settings"
        self.settings.write_text("")
        self.env = fake_nvml_env(library, FAKE_NVML_STATE=str(root), FAKE_NVML_FILE=str(self.settings))
        self.helper = self.start()

    def start(self, *more: str) -> "subprocess.Popen[str]":
        argv = [sys.executable, "-m", "carbonsched.clocks", "serve", "--user", str(os.getuid()), *more]
        argv += ["--socket", str(self.root / "sock"), "--locked", str(self.root / "locked")]
        helper = subprocess.Popen(argv, env=self.env, stderr=subprocess.PIPE, text=True)
        until(lambda: (self.root / "sock").exists() or helper.poll() is not None)
        return helper

    def ask(self, line: bytes) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(20)
            caller.connect(str(self.root / "sock"))
            caller.sendall(line)
            return json.loads(caller.makefile().readline())  # type: ignore[no-any-return]

    def close(self) -> None:
        self.helper.kill()
        self.helper.communicate()
        until(lambda: not self.guards())

    def lock(self, mhz: int = 1005, lease_s: float = 60.0) -> dict[str, Any]:
        return self.ask(Request("lock", BOARD, mhz, os.getpid(), lease_s).write())

    @property
    def mhz(self) -> int:
        """What the driver has: 0, not locked."""
        file = self.root / "clocks.0"
        return int(file.read_text().split()[0]) if file.is_file() else 0

    def guards(self) -> list[int]:
        found = []
        for stat in Path("/proc").glob("[0-9]*/cmdline"):
            with_args = stat.read_bytes().split(b"\0") if stat.exists() else []
            if b"guard" in with_args and str(self.root / "locked").encode() in with_args:
                found.append(int(stat.parent.name))
        return found
