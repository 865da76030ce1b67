"""A daemon's side of the job directory for trainer tests: answers events by writing control.json, as a thread."""

import contextlib
import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from trainer.job.job_dir import JobDir
from trainer.run import run_job

Answer = Callable[[dict[str, Any]], dict[str, Any] | None]
FAR = datetime(2099, 1, 1, tzinfo=UTC)


def directive(k: int, rho: float | None = None, **fields: Any) -> dict[str, Any]:
    """control.json's content, `seq` apart. Fields: action, until, reason, checkpoint, max_steps, lease_s."""
    lease_s = fields.pop("lease_s", None)
    valid_until = FAR if lease_s is None else datetime.now(UTC) + timedelta(seconds=lease_s)
    lease = {"valid_until": valid_until.isoformat(), "max_steps": fields.pop("max_steps", 10_000)}
    return {"k": k, "action": "train", "rho": rho, "lease": lease, "reason": "test", **fields}


def write_control(job: Path, document: dict[str, Any]) -> None:
    temporary = job / ".control.tmp"
    temporary.write_text(json.dumps(document), encoding="utf-8")
    temporary.replace(job / "control.json")


def read_events(job: Path) -> list[dict[str, Any]]:
    """Every whole event so far; a line that a kill tore is passed over, as the daemon does."""
    file = job / "events.jsonl"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    found = []
    for line in text.split("\n")[:-1]:
        with contextlib.suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found


def of(job: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_events(job) if event["event"] == kind]


class FakeDaemon(threading.Thread):
    """`with FakeDaemon(job, answer):` — every event is given to `answer`, what it returns becomes control.json."""

    def __init__(self, job: Path, answer: Answer) -> None:
        super().__init__(daemon=True)
        self.job, self.answer = job, answer
        self.seq = 0
        self._seen = len(read_events(job))
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.is_set():
            events = read_events(self.job)
            for event in events[self._seen :]:
                self._seen += 1
                found = self.answer(event)
                if found is not None:
                    self.send(found)
            time.sleep(0.005)

    def send(self, found: dict[str, Any]) -> None:
        self.seq += 1
        write_control(self.job, {"seq": self.seq, **found})

    def __enter__(self) -> "FakeDaemon":
        self.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._done.set()
        self.join(5)


def always(rho: float) -> Answer:
    """Every segment at `rho`."""
    return lambda event: directive(event["k"], rho) if event["event"] == "segment_ready" else None


def stopped_in(k: int, rho: float, steps: int) -> Answer:
    """Every segment at `rho`; but segment k under a lease of `steps` steps only, and then the job is stopped."""

    def answer(event: dict[str, Any]) -> dict[str, Any] | None:
        if event["event"] == "segment_ready":
            return directive(event["k"], rho, max_steps=steps if event["k"] == k else 10_000)
        if event["event"] == "waiting":
            return directive(k, action="stop", reason="enough")
        return None

    return answer


def train(job: Path, answer: Any = None, **options: Any) -> str:
    """Run the job in `job`, every segment at ρ = 0.8 if `answer` says nothing else."""
    (job / "control.json").unlink(missing_ok=True)  # as the daemon does before each start
    with FakeDaemon(job, answer or always(0.8)):
        return run_job(JobDir(job), options.pop("stopping", lambda: False), **options)
