"""Measures a daemon with a long past and a long queue: start to READY, `ps`, `submit` by many at once, a tick, memory.

    python -m benchmarks.daemon_with_many [--finished 10000] [--queued 2000] [--live 50] [--clients 50] [--submits 4]

Finished jobs have a row of energy and a segment each. Live ones are real processes under their shims that say they have begun and
then sleep; they were started by nobody the daemon knows, and are adopted. `ps` is GET /v1/jobs as the command asks for it, its JSON
read; `submit` is POST /v1/jobs without the trainer's check, which is the user's own time. Figures: median and 99th percentile, and the
daemon's CPU time, which says more where other work shares the machine.
"""

import argparse
import contextlib
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.daemon_at_rest import cpu_s, rss_mb
from carbonsched.launch.local import LocalLauncher
from carbonsched.ledger import Ledger
from carbonsched.model.base import rfc3339
from carbonsched.model.energy import Account, EnergyDelta, EnergyMethod, Interval
from carbonsched.model.files import save
from carbonsched.model.job import JobSpec, Owner, SubmittedJob
from carbonsched.model.job_state import JobState
from carbonsched.model.profile import CheckResult
from carbonsched.model.protocol import SegmentDone

ME = Owner(uid=os.getuid(), gid=os.getgid(), user="me")
CONFIG = """
state_dir = "{folder}/state"
[[feeds]]
provider = "static"
g_per_kwh = 200
basis = "average-lifecycle"
source = "a benchmark"
[power]
gpu = "none"
host = "auto"
[api]
socket = "{folder}/api.sock"
[launch]
slots = {slots}
"""
LIVE = """
import json, sys, time
folder, at, steps = sys.argv[1:]
with open(folder + "/events.jsonl", "a") as file:
    said = {"at": at, "event": "started", "pid": 1, "segments": 4, "steps": int(steps), "first_step": 0, "params": 1000, "device": "cpu", "protocol": 2}
    file.write(json.dumps(said) + "\\n")
time.sleep(3600)
"""
CHECKED = CheckResult.parse(
    {"ok": True, "model": "m", "params": 1000, "rows": 160, "validation_rows": 0, "steps": 40, "segments": 4, "rho_floor": 0.4,
     "step_flops_full": 6e12, "batch": 4, "seq": 128}
)  # fmt: skip


def spec_of(name: str, folder: Path) -> JobSpec:
    return JobSpec.parse(
        {
            "name": name,
            "model": {"name_or_path": str(folder / "m")},
            "data": {"name_or_path": str(folder / "d")},
            "train": {"segment": 10, "max_steps": 40},
            "carbon": {"budget_g": 1000.0},
        }
    )


def fill(folder: Path, finished: int, queued: int, live: int) -> None:
    """The ledger and the job folders of a box that has worked for long."""
    now = datetime.now(UTC) - timedelta(seconds=5)
    (folder / "state" / "jobs").mkdir(parents=True)
    for name in ("m", "d"):
        (folder / name).mkdir()
    with Ledger.open(f"sqlite:///{folder}/state/ledger.db") as ledger:
        ledger.note(None, "began", {"text": "begins", "left_behind": []}, "daemon", now)
        for begin in range(0, finished, 500):
            with ledger.transaction():
                for n in range(begin, min(begin + 500, finished)):
                    _finished(ledger, folder, n, now - timedelta(minutes=finished - n))
        with ledger.transaction():
            for n in range(queued):
                _add(ledger, folder, f"queued-{n:06x}", now + timedelta(milliseconds=n))
            for n in range(live):
                job = _add(ledger, folder, f"live-{n:06x}", now - timedelta(hours=1))
                ledger.set_state(job.id, JobState.RUNNING, "started", "daemon", now)
                ledger.note(
                    job.id, "started", {"boards": [], "events": 0, "names": {}, "cpus": 2}, "daemon", now
                )


def _add(
    ledger: Ledger, folder: Path, job_id: str, at: datetime, *, with_folder: bool = True
) -> SubmittedJob:
    spec = spec_of(job_id.rpartition("-")[0], folder)
    job = SubmittedJob(id=job_id, spec=spec, owner=ME, submitted_at=at, sha256=spec.sha256)
    ledger.add_job(job)
    path = folder / "state" / "jobs" / job_id
    path.mkdir(mode=0o700)
    (path / "spec.json").write_text(job.model_dump_json())
    if with_folder:
        save(path / "check.json", CHECKED)
    return job


def _finished(ledger: Ledger, folder: Path, n: int, at: datetime) -> None:
    job = _add(ledger, folder, f"old-{n:06x}", at, with_folder=False)
    end = at + timedelta(seconds=50)
    delta = EnergyDelta(
        device="GPU-0", start=at, end=end, energy_mj=5_000_000, power_w=100.0, method=EnergyMethod.COUNTER,
        counter_epoch="boot:0", counter_start_mj=n * 5_000_000, counter_end_mj=(n + 1) * 5_000_000, meter="benchmark",
    )  # fmt: skip
    row = Interval(
        delta=delta,
        account=Account.JOB,
        job_id=job.id,
        segment=0,
        rho=0.6,
        intensity=None,
        pue=1.0,
        pue_source="none",
        grams=None,
    )
    ledger.append([row])
    done = SegmentDone(
        at=end, k=0, first_step=0, steps=40, rho_directed=0.6, rho_planned=0.6, rho_realised=0.6, flops=6e11, flops_full=1e12,
        loss=2.0, seconds=50.0, importance_seconds=1.0, selection_seconds=0.1, selected=("a",), directive_seq=1,
    )  # fmt: skip
    ledger.set_state(job.id, JobState.RUNNING, "started", "daemon", at)
    ledger.save_segment(job.id, done, at, end, None)
    ledger.set_state(job.id, JobState.FINISHED, "done", "daemon", end)


def start_live(folder: Path, live: int) -> None:
    launcher, script = LocalLauncher(), folder / "live.py"
    script.write_text(LIVE)
    for n in range(live):
        path = folder / "state" / "jobs" / f"live-{n:06x}"
        launcher.start(
            path,
            [sys.executable, "-I", "-S", str(script), str(path), rfc3339(datetime.now(UTC)), "40"],
            {},
            ME,
        )


def end_live(folder: Path, live: int) -> None:
    for n in range(live):
        LocalLauncher().kill(folder / "state" / "jobs" / f"live-{n:06x}")


def start(folder: Path) -> tuple[subprocess.Popen[bytes], float]:
    """The daemon, and the seconds until it said READY."""
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(folder / "notify.sock"))
    began = time.monotonic()
    with (folder / "daemon.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "carbonsched", "daemon", "--config", str(folder / "config.toml")],
            stderr=log, env=os.environ | {"NOTIFY_SOCKET": str(folder / "notify.sock")},
        )  # fmt: skip
    notify.settimeout(1)
    while True:
        with contextlib.suppress(TimeoutError):
            if b"READY=1" in notify.recv(4096):
                break
        if process.poll() is not None:
            raise SystemExit((folder / "daemon.log").read_text())
    took = time.monotonic() - began
    notify.close()
    (folder / "notify.sock").unlink()
    return process, took


REST_S = 10.0
"""The daemon is left alone so long, to see what its ticks take."""


class Connection(http.client.HTTPConnection):
    """HTTP over the daemon's socket.

    Example::

        Connection(Path("api.sock")).request("GET", "/v1/version")
    """

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=300)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(str(self.path))


def ask(path: Path, method: str, route: str, body: Any = None) -> tuple[float, Any]:
    """Seconds and the answer."""
    began, connection = time.monotonic(), Connection(path)
    connection.request(
        method, route, None if body is None else json.dumps(body), {"Content-Type": "application/json"}
    )
    answer = connection.getresponse()
    data = json.loads(answer.read())
    connection.close()
    if answer.status >= 400:
        raise SystemExit(f"{route}: {data}")
    return time.monotonic() - began, data


def submit_all(path: Path, folder: Path, clients: int, each: int) -> list[float]:
    """Seconds of every submit, `clients` of them at a time."""
    body = {"spec": spec_of("new", folder).dump(), "checked": CHECKED.dump()}
    took: list[float] = []

    def client() -> None:
        for _ in range(each):
            took.append(ask(path, "POST", "/v1/jobs", body)[0])

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return took


def measure(pid: int, folder: Path, clients: int, submits: int) -> dict[str, Any]:
    """What the daemon takes at rest, and for each kind of question."""
    path, found = folder / "api.sock", dict[str, Any]()
    time.sleep(REST_S / 3)
    before = cpu_s(pid)
    time.sleep(REST_S)
    found["ticks"] = {
        "cpu_percent_of_a_core": round(100 * (cpu_s(pid) - before) / REST_S, 1),
        "rss_mb": round(rss_mb(pid), 1),
    }
    kinds: dict[str, Callable[[], list[float]]] = {
        "ps": lambda: [ask(path, "GET", "/v1/jobs")[0] for _ in range(20)],
        "ps_all": lambda: [ask(path, "GET", "/v1/jobs?all=true")[0] for _ in range(3)],
        "submit": lambda: submit_all(path, folder, clients, submits),
    }
    for name, work in kinds.items():
        before = cpu_s(pid)
        took = work()
        found[name] = spread(took) | {"cpu_ms_each": round(1000 * (cpu_s(pid) - before) / len(took), 1)}
    return found | {"rss_mb": round(rss_mb(pid), 1)}


def spread(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        "median_ms": round(1000 * statistics.median(ordered), 1),
        "p99_ms": round(1000 * ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))], 1),
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (
        ("finished", 10_000),
        ("queued", 2_000),
        ("live", 50),
        ("clients", 50),
        ("submits", 4),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.toml").write_text(CONFIG.format(folder=folder, slots=max(options.live, 1)))
        fill(folder, options.finished, options.queued, options.live)
        start_live(folder, options.live)
        process = None
        try:
            process, ready_s = start(folder)
            found = {"ready": {"s": round(ready_s, 2), "cpu_s": round(cpu_s(process.pid), 2)}}
            found |= measure(process.pid, folder, options.clients, options.submits)
        finally:
            if process is not None:
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=120)
            end_live(folder, options.live)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
