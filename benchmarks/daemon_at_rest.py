"""Measures what a daemon without jobs costs: seconds to start, resident memory, CPU over a minute; sampler and replay feed on.

    python benchmarks/daemon_at_rest.py [--seconds 60] [--starts 3]

Start: from the fork to the first answer on the socket, the import included; the median of `--starts`, of which the first
also makes the ledger. Memory: VmRSS at the end. CPU: user + system of the process and its children over `--seconds`, as
a share of one core, three seconds after the start.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


SETTLE_S = 3.0
"""Wait after the start, so that what only a start does is not measured."""


def write_config(folder: Path) -> Path:
    """The demo's daemon, with its state in `folder`."""
    text = (EXAMPLES / "demo.toml").read_text(encoding="utf-8")
    text = text.replace('"../.demo/state"', f'"{folder}/state"').replace(
        '"../.demo/run/api.sock"', f'"{folder}/api.sock"'
    )
    text = text.replace('"grid-week.csv"', f'"{EXAMPLES}/grid-week.csv"')
    file = folder / "config.toml"
    file.write_text(text, encoding="utf-8")
    return file


def start(config: Path) -> tuple[subprocess.Popen[bytes], float]:
    """The daemon, and the seconds until it answered."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "carbonsched", "daemon", "--config", str(config)], stderr=subprocess.DEVNULL
    )
    while not answers(config.parent / "api.sock"):
        if process.poll() is not None:
            raise SystemExit("the daemon did not start")
        time.sleep(0.005)
    return process, time.monotonic() - began


def answers(path: Path) -> bool:
    """Whether a daemon answers on this socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(str(path))
            client.sendall(b"GET /v1/version HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n")
            return client.recv(64).startswith(b"HTTP/1.1 200")
        except OSError:
            return False


def cpu_s(pid: int) -> float:
    """Seconds of user and system time of a process and its children that ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    """Resident memory, 10⁶ bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024 / 1e6


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--starts", type=int, default=3)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        config = write_config(Path(name))
        starts: list[float] = []
        for n in range(options.starts):
            process, took = start(config)
            starts.append(took)
            if n + 1 < options.starts:
                stop(process)
        time.sleep(SETTLE_S)
        before = cpu_s(process.pid)
        time.sleep(options.seconds)
        share = (cpu_s(process.pid) - before) / options.seconds
        memory = rss_mb(process.pid)
        stop(process)
    print(
        json.dumps(
            {
                "start_s": [round(s, 2) for s in starts],
                "start_median_s": round(statistics.median(starts), 2),
                "rss_mb": round(memory, 1),
                "cpu_percent_of_a_core": round(100 * share, 2),
            }
        )
    )


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    if process.wait(timeout=30) != 0:
        raise SystemExit("the daemon did not stop cleanly")


if __name__ == "__main__":
    main()
