"""Kills a real daemon, its jobs and their shims by SIGKILL at random instants, and holds what is left against what was done.

    PYTHONPATH=tests python -m support.kills [--daemon 200] [--jobs 100] [--seed 0] [--out kills.jsonl]

In rounds of ten kills of the daemon and five of trainers or shims, each with a box of its own and a seed of its own, so a failure is met
again by `--only SEED`. Rounds that `--out` holds are not run again. A round submits jobs (tests/support/kills_trainer.py plays their
trainer), cancels, pauses and resumes some, kills now in a start of the daemon, now while it is away, and lets all of them run out.
`support.kills_check` then looks at every job, every process and every row.
"""

import argparse
import contextlib
import http.client
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.kills_check import MARK, check
from support.rig import checked

from benchmarks.daemon_with_many import Connection
from carbonsched.launch import shim
from carbonsched.model.job import JobSpec

CONFIG = """
state_dir = "state"
pue = 1.2
pue_source = "made up"
[[feeds]]
provider = "static"
g_per_kwh = 300
basis = "average-lifecycle"
source = "made up"
[power]
gpu = "replay"
host = "none"
replay_file = "watts.csv"
tick_s = 0.2
[ledger]
row_s = 1
[launch]
python = "{folder}/python"
jobs_per_board = {per_board}
stop_s = 2
[api]
socket = "api.sock"
"""
WATTS = "seconds,watts\n0,100\n7,250\n13,60\n20,180\n"
OPEN = 5
"""So many jobs are kept that are not over."""
PATIENCE_S = 300.0
"""Nothing that is waited for takes so long, on the busiest box."""
KINDS = ("well", "well", "well", "exit-7", "deaf")
OVER = ("finished", "failed", "cancelled", "stopped")


@dataclass
class Job:
    """What was done to one job, by which its end is judged."""

    id: str
    kind: str
    attempts: int
    cancelled: bool = False
    told: bool = False
    """It was paused or cancelled at some time: its trainer may have met SIGTERM before it could listen."""
    killed: dict[int, str] = field(default_factory=dict)
    """Shim's pid → which of the two was killed, `trainer` or `shim`."""


@contextlib.contextmanager
def held(pid: int) -> Iterator[int]:
    """A descriptor of this very process, readable once it has ended."""
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def trains(pid: int) -> bool:
    """Whether that is a trainer, not a worker that it left."""
    return b"kills_trainer" in Path(f"/proc/{pid}/cmdline").read_bytes()


class Drill:
    """One round on a box of its own.

    Example::

        Drill(folder, seed=7).run(daemon_kills=10, job_kills=5)
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self.jobs: dict[str, Job] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.unanswered = 0
        """Submits that the daemon died in: of those a job may be there or not."""
        for name in ("m", "d"):
            (folder / name).mkdir()
        (folder / "watts.csv").write_text(WATTS)
        (folder / "config.toml").write_text(CONFIG.format(folder=folder, per_board=1 + 2 * (seed % 2)))
        trainer = Path(__file__).with_name("kills_trainer.py")
        (folder / "python").write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {trainer} "$@"\n')
        (folder / "python").chmod(0o755)

    # ---- the daemon

    def start(self) -> None:
        with (self.folder / "daemon.log").open("ab") as log:
            argv = [
                sys.executable,
                "-m",
                "carbonsched",
                "daemon",
                "--config",
                str(self.folder / "config.toml"),
            ]
            self.process = subprocess.Popen(argv, stderr=log, env=os.environ | {MARK: str(self.folder)})

    def kill(self) -> None:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        assert self.process.wait(PATIENCE_S) == 0, self.log()

    def log(self) -> str:
        return (self.folder / "daemon.log").read_text()[-3000:]

    def ask(self, method: str, route: str, body: Any = None) -> tuple[int, Any]:
        """Status and answer; 0 where nobody answers."""
        connection = Connection(self.folder / "api.sock")
        connection.timeout = PATIENCE_S
        try:
            connection.request(
                method,
                route,
                None if body is None else json.dumps(body),
                {"Content-Type": "application/json"},
            )
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException, json.JSONDecodeError):
            return 0, None
        finally:
            connection.close()

    def until_it_answers(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + PATIENCE_S
        while self.ask("GET", "/v1/version")[0] != 200:
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, "the daemon does not answer"
            time.sleep(0.02)

    def states(self) -> dict[str, dict[str, Any]]:
        status, found = self.ask("GET", "/v1/jobs?all=true")
        return {job["id"]: job for job in found["jobs"]} if status == 200 else {}

    # ---- what people do

    def submit(self) -> None:
        kind, attempts = self.random.choice(KINDS), self.random.choice((1, 1, 3))
        spec = JobSpec.parse(
            {
                "name": f"{kind}-{len(self.jobs)}",
                "model": {"name_or_path": str(self.folder / "m")},
                "data": {"name_or_path": str(self.folder / "d")},
                "train": {"segment": 4, "max_steps": 12},
                "carbon": {"budget_g": 1000.0, "may_pause": False},
                "queue": {"max_attempts": attempts, "backoff": 1, "priority": self.random.choice((-1, 0, 1))},
            }
        )
        foreseen = checked(steps=12, segments=3, step_flops_full=1e9).dump()
        status, found = self.ask("POST", "/v1/jobs", {"spec": spec.dump(), "checked": foreseen})
        if status == 0:
            self.unanswered += 1
            return
        assert status == 201, found
        self.jobs[found["id"]] = Job(found["id"], kind, attempts)

    def meddle(self) -> None:
        """Somebody cancels, pauses or resumes a job."""
        if not self.jobs or self.random.random() < 0.6:
            return
        job = self.random.choice(list(self.jobs.values())[-OPEN:])
        what = self.random.choice(("cancel", "pause", "resume"))
        status, _ = self.ask("POST", f"/v1/jobs/{job.id}/{what}")
        job.cancelled |= what == "cancel" and status == 200
        job.told |= what in ("cancel", "pause")

    # ---- kills

    def kill_job(self) -> bool:
        """The trainer or the shim of one of the jobs that run; False: none does."""
        ids = list(self.jobs)
        self.random.shuffle(ids)
        target = self.random.choice(("trainer", "shim"))
        for job_id in ids:
            with contextlib.suppress(OSError, ValueError, StopIteration):
                run = json.loads((self.folder / "state" / "jobs" / job_id / "run.json").read_text())
                with held(run["pid"]) as holder:
                    if shim.start_time(run["pid"]) != run["start_time"]:
                        continue
                    children = map(
                        int, Path(f"/proc/{run['pid']}/task/{run['pid']}/children").read_text().split()
                    )
                    with held(next(filter(trains, children))) as trainer:
                        victim = trainer if target == "trainer" else holder
                        if select.select([trainer, holder], [], [], 0)[0]:
                            continue  # it has ended
                        signal.pidfd_send_signal(victim, signal.SIGKILL)
                        self.jobs[job_id].killed[run["pid"]] = target
                        return True
        return False

    def run(self, daemon_kills: int, job_kills: int) -> dict[str, Any]:
        self.start()
        self.until_it_answers()
        began = time.monotonic()
        try:
            todo = ["daemon"] * daemon_kills + ["job"] * job_kills
            self.random.shuffle(todo)
            for what in todo:
                self.one(what)
            self.run_out()
            found = check(self.folder, self.jobs, self.unanswered)
        finally:
            self.end()
        return found | {"seconds": round(time.monotonic() - began, 1)}

    def one(self, what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while sum(job["state"] not in OVER for job in self.states().values()) < OPEN:
            self.submit()
        self.meddle()
        time.sleep(self.random.uniform(0, 1.2))
        if what == "job":
            while not self.kill_job():
                assert time.monotonic() < deadline, f"no job runs: {self.states()}, {self.processes()}"
                if sum(job["state"] not in OVER for job in self.states().values()) < OPEN:
                    self.submit()
                self.resume_all()
                time.sleep(0.05)
            return
        self.kill()
        if self.random.random() < 0.3:
            time.sleep(self.random.uniform(0, 2))  # jobs end while nobody looks
        self.start()
        if self.random.random() < 0.3:
            time.sleep(self.random.uniform(0, 1.5))  # and once more in its start
            self.kill()
            self.start()
        self.until_it_answers()

    def resume_all(self) -> None:
        """What a kill has failed, or somebody has paused, goes on."""
        for job_id, job in self.states().items():
            known = self.jobs.get(job_id)
            if known is None or known.cancelled:
                continue
            if job["state"] == "paused" or (job["state"] == "failed" and "exit code 7" not in job["reason"]):
                status, found = self.ask("POST", f"/v1/jobs/{job_id}/resume")
                assert status in (200, 409), found

    def run_out(self) -> None:
        """Until every job is over for good."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            self.resume_all()
            states = self.states()
            if states and all(
                job["state"] in OVER and (job["state"] != "failed" or "exit code 7" in job["reason"])
                for job in states.values()
            ):
                break
            assert time.monotonic() < deadline, {i: (j["state"], j["reason"]) for i, j in states.items()}
            time.sleep(0.2)
        status, found = self.ask("GET", "/v1/audit")
        assert status == 200, found
        assert found["ok"], found
        self.stop()

    def end(self) -> None:
        """Whatever came of it, nothing is left running."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in self.processes():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def processes(self) -> dict[int, str]:
        """Everything of this round that runs: pid → its state and command."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if str(self.folder).encode() in (path / "environ").read_bytes():
                    command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    found[int(path.name)] = f"{shim.stat_fields(int(path.name))[:2]} {command}"
        return found


def rounds(daemon: int, jobs: int) -> list[tuple[int, int]]:
    """How many kills of each sort a round has."""
    count = max(-(-daemon // 10), -(-jobs // 5), 1)
    return [
        (daemon * (n + 1) // count - daemon * n // count, jobs * (n + 1) // count - jobs * n // count)
        for n in range(count)
    ]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--daemon", type=int, default=200, help="kills of the daemon")
    parser.add_argument("--jobs", type=int, default=100, help="kills of trainers and shims")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the round of this seed alone")
    parser.add_argument(
        "--out", type=Path, help="a JSON line per round; those that it holds are not run again"
    )
    options = parser.parse_args(argv)
    done = (
        [json.loads(line) for line in options.out.read_text().splitlines()]
        if options.out and options.out.exists()
        else []
    )
    seen = {line["seed"] for line in done}
    for n, (daemon, jobs) in enumerate(rounds(options.daemon, options.jobs)):
        seed = 1000 * options.seed + n
        if seed in seen or options.only not in (None, seed):
            continue
        folder = Path(tempfile.mkdtemp(prefix="carbonsched-kills-"))
        try:
            found = Drill(folder, seed).run(daemon, jobs) | {"seed": seed, "daemon": daemon, "job": jobs}
        except AssertionError:
            sys.stderr.write(f"round {seed} is kept in {folder}\n")
            raise
        shutil.rmtree(folder)
        done.append(found)
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
        if options.out:
            with options.out.open("a") as file:
                file.write(json.dumps(found) + "\n")
    names = ("daemon", "job", "jobs", "lives", "rows", "seconds")
    sums = {name: round(sum(line[name] for line in done)) for name in names}
    sys.stdout.write(json.dumps({"rounds": len(done)} | sums) + "\n")


if __name__ == "__main__":
    main()
