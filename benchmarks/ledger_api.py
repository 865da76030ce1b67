"""Measures what a daemon takes to answer from a ledger that has lasted, over its Unix socket: reports and verifications.

    python -m benchmarks.ledger_api FOLDER

FOLDER is what `benchmarks/ledger_year.py` made. The daemon is a real one with a configuration of its own in the folder; it meters a replayed
board, starts no job and merges no row. Wall seconds are the client's, CPU seconds those of the daemon meanwhile.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.ledger_year import BEGAN
from carbonsched.cli.client import UnixConnection
from carbonsched.errors import CarbonschedError
from carbonsched.ledger import Ledger
from carbonsched.ledger.heads import Head
from carbonsched.model.base import rfc3339
from carbonsched.model.job_state import JobState
from carbonsched.supervisor.effects_cache import AT_ONCE, NAME, EffectsCache

CONFIG = """
state_dir = "state"
[zone]
name = "GB"
basis = "average-direct"
[[feeds]]
provider = "static"
g_per_kwh = 200
basis = "average-direct"
source = "a benchmark"
[power]
gpu = "replay"
host = "none"
replay_file = "watts.csv"
[api]
socket = "api.sock"
[ledger]
url = "sqlite:///{ledger}"
roll_up = false
"""
AIMS = {"yearly_report": 3.0, "job_report": 0.3, "incremental_verify": 5.0, "full_verify": 600.0}
TIMEOUT_S = 3600.0


def end_jobs(ledger: Ledger) -> None:
    """A daemon would start those that still wait."""
    for job in ledger.unclosed():
        end = job.submitted_at + timedelta(days=7)
        ledger.set_state(job.id, JobState.RUNNING, "its turn", "daemon", job.submitted_at)
        ledger.set_state(job.id, JobState.FINISHED, "done", "trainer", end)


def keep_effects(ledger: Ledger, state: Path) -> dict[str, float]:
    """What a daemon does in the background, twenty jobs a minute: each job's effects, so that a report need not compute them."""
    state.mkdir(exist_ok=True)
    kept, cpu, now = EffectsCache(state / NAME), time.process_time(), datetime.now(UTC)
    jobs = [job for job in ledger.jobs() if job.state.ended]
    for first in range(0, len(jobs), AT_ONCE):
        savings_of = kept.reading(now)
        for job in jobs[first : first + AT_ONCE]:
            savings_of(ledger, job)
    return {"jobs": len(jobs), "cpu_s": round(time.process_time() - cpu, 3)}


@contextmanager
def daemon(folder: Path) -> Iterator[tuple[Path, int]]:
    """(its socket, its process). Raises CarbonschedError where it does not begin to answer."""
    (folder / "config.toml").write_text(
        CONFIG.format(ledger=(folder / "ledger.db").resolve()), encoding="utf-8"
    )
    # it must meter something: a board that draws little
    (folder / "watts.csv").write_text("seconds,watts\n0,10\n86400,10\n", encoding="utf-8")
    socket = folder / "api.sock"
    words = [
        sys.executable,
        "-m",
        "carbonsched",
        "daemon",
        "--config",
        str((folder / "config.toml").resolve()),
    ]
    with (folder / "daemon.log").open("wb") as log:
        process = subprocess.Popen(words, stderr=log, cwd=folder)
    try:
        until = time.monotonic() + TIMEOUT_S
        while not _answers(socket):
            if process.poll() is not None or time.monotonic() > until:
                raise CarbonschedError((folder / "daemon.log").read_text().strip().splitlines()[-1])
            time.sleep(0.2)
        yield socket, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def _answers(socket: Path) -> bool:
    try:
        ask(socket, "/v1/version")
    except OSError:
        return False
    return True


def ask(socket: Path, url: str) -> bytes:
    """The body of what it answers, which must be 200."""
    connection = UnixConnection(socket, TIMEOUT_S)
    try:
        connection.request("GET", url)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise CarbonschedError(f"{url}: {answer.status} {body[:200]!r}")
    return body


def cpu_s(pid: int) -> float:
    """Of a process so far, of all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measured(pid: int, times: int, work: Callable[[], bytes]) -> dict[str, float]:
    """The quickest of some runs, and the first."""
    runs = []
    for _ in range(times):
        began, cpu = time.monotonic(), cpu_s(pid)
        size = len(work())
        runs.append((time.monotonic() - began, cpu_s(pid) - cpu))
    wall, cpu = min(runs)
    return {
        "wall_s": round(wall, 3),
        "daemon_cpu_s": round(cpu, 3),
        "first_wall_s": round(runs[0][0], 3),
        "bytes": float(size),
    }


def reports(socket: Path, pid: int, jobs: dict[str, str], days: int) -> dict[str, dict[str, float]]:
    """Of the year, of its last month, and of jobs. jobs: what a figure is called → job."""
    end = BEGAN + timedelta(days=days)
    asked = {"yearly_report": f"start={rfc3339(BEGAN)}&end={rfc3339(end)}"}
    asked["monthly_report"] = f"start={rfc3339(end - timedelta(days=30))}&end={rfc3339(end)}"
    asked |= {name: f"job={job}" for name, job in jobs.items()}
    return {
        name: measured(pid, 3, lambda query=query: ask(socket, f"/v1/report?{query}&format=json"))  # type: ignore[misc]
        for name, query in asked.items()
    }


def by_command(ledger: Path, since: Path) -> dict[str, float]:
    """`audit verify --since` beside the daemon, its own start included."""
    began = time.monotonic()
    words = [
        sys.executable,
        "-m",
        "carbonsched",
        "audit",
        "verify",
        "--ledger",
        str(ledger),
        "--since",
        str(since),
    ]
    before = os.times()
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CarbonschedError(done.stdout + done.stderr)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {"wall_s": round(time.monotonic() - began, 3), "cpu_s": round(cpu, 3)}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--no-full", action="store_true", help="leave the whole verification out")
    asked = parser.parse_args(argv)
    path, since = asked.folder / "ledger.db", asked.folder / "heads.json"
    with Ledger.open(f"sqlite:///{path}") as ledger:
        end_jobs(ledger)
        jobs = ledger.jobs()
        last = ledger.jobs()[-1].id
        hour_ago = next(iter(ledger.rows(start=BEGAN + timedelta(days=asked.days, hours=-1))))
        since.write_text(Head(hour_ago["hash"], "0" * 64, hour_ago["id"], 0).line(), encoding="utf-8")
        rows, hours = ledger.held()
        kept = keep_effects(ledger, asked.folder / "state")
    with daemon(asked.folder) as (socket, pid):
        found = reports(socket, pid, {"job_report": last, "old_job_report": jobs[0].id}, asked.days)
        found["incremental_verify"] = by_command(path, since)
        if not asked.no_full:
            found["full_verify"] = measured(pid, 1, lambda: ask(socket, "/v1/audit"))
    for name, aim in AIMS.items():
        if name in found:
            found[name]["aim_s"] = aim
    print(
        json.dumps(
            {
                "rows_held": rows,
                "hours": hours,
                "database_bytes": path.stat().st_size,
                "kept_effects": kept,
                **found,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
