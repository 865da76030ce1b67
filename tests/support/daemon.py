"""The real daemon as a process of its own, and the real commands against its socket."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

COMMAND = [sys.executable, "-m", "carbonsched"]
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}

CONFIG = """
state_dir = "state"
pue = 1.2
pue_source = "test"
[zone]
name = "XX"
worst_g_per_kwh = 700
[[feeds]]
provider = "replay"
file = "trace.csv"
hour_s = 4
label = "synthetic"
[power]
gpu = "replay"
host = "none"
replay_file = "watts.csv"
tick_s = 0.5
[ledger]
row_s = 2
[api]
socket = "api.sock"
"""


@dataclass
class DaemonProcess:
    """A box of its own in `root`: 100 W on a replayed device whose counter runs on wall time, the daemon's or not."""

    root: Path
    config: str = CONFIG
    env: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / "config.toml").write_text(self.config)
        (self.root / "watts.csv").write_text("seconds,watts\n0,100\n3600,100\n")
        hours = [300 + 200 * (h % 24 < 12) for h in range(48)]
        rows = [f"2026-01-0{1 + h // 24}T{h % 24:02}:00:00Z,{g},{g}" for h, g in enumerate(hours)]
        text = "datetime,g_per_kwh,forecast_g_per_kwh\n" + "\n".join(rows) + "\n"
        (self.root / "trace.csv").write_text(text)

    @property
    def socket(self) -> Path:
        return self.root / "api.sock"

    def start(self, *options: str) -> "DaemonProcess":
        with (self.root / "daemon.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*COMMAND, "daemon", "--config", str(self.root / "config.toml"), *options],
                stderr=log,
                env=os.environ | OFFLINE | self.env,
            )
        deadline = time.monotonic() + 300
        while not self._answers():
            assert self.process.poll() is None, (self.root / "daemon.log").read_text()
            assert time.monotonic() < deadline, "the daemon does not answer"
            time.sleep(0.1)
        return self

    def _answers(self) -> bool:
        """Asked at the socket: commands that are started meanwhile take the daemon's own time."""
        with socket.socket(socket.AF_UNIX) as probe:  # httpx leaves open what it cannot connect
            try:
                probe.connect(str(self.socket))
            except OSError:
                return False
        return bool(self.get("/v1/version"))

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def cli(self, *args: str, check: bool = True, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        env = os.environ | OFFLINE | self.env | {"CARBONSCHED_SOCKET": str(self.socket)}
        done = subprocess.run(
            [*COMMAND, *args], capture_output=True, text=True, env=env, timeout=timeout, check=False
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def json(self, *args: str) -> Any:
        return json.loads(self.cli(*args, "--json").stdout)

    def get(self, path: str) -> dict[str, Any]:
        """Straight from the socket: a command takes a second to start."""
        return self._ask("GET", path)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._ask("POST", path, json=body)

    def _ask(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        transport = httpx.HTTPTransport(uds=str(self.socket))
        with httpx.Client(transport=transport, base_url="http://box", timeout=30) as client:
            return client.request(method, path, **more).raise_for_status().json()  # type: ignore[no-any-return]

    def until(self, job_id: str, test: Any, timeout: float = 400) -> dict[str, Any]:
        """Poll `show` until `test(job)` holds."""
        deadline = time.monotonic() + timeout
        while True:
            job = self.get(f"/v1/jobs/{job_id}")
            if test(job):
                return job
            assert time.monotonic() < deadline, f"still {job['state']}: {job['reason']}"
            time.sleep(0.1)
