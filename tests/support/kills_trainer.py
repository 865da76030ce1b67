"""A trainer that trains nothing: it speaks docs/protocol.md, keeps checkpoints, and costs 10 MB instead of a gigabyte.

    python -I -S kills_trainer.py -m trainer run JOB_DIR

The job's name says how it ends: `exit-7-…` with that code after its second segment, `deaf-…` is deaf to SIGTERM, any other trains to its
end. A worker of its own sleeps beside it, which nothing but the shim's or the daemon's sweep ends. Standard library alone.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from types import FrameType
from typing import Any

STEP_S = 0.05
SEGMENT, SEGMENTS = 4, 3
FRONTIER = [{"rho": rho, "importance": gain} for rho, gain in ((0.4, 0.1), (0.6, 0.7), (1.0, 1.0))]


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class StandIn:
    """One life of a job.

    Example::

        sys.exit(StandIn(job_dir).run())
    """

    def __init__(self, job_dir: str) -> None:
        self.dir = job_dir
        with open(f"{job_dir}/spec.json") as file:  # noqa: PTH123
            self.name: str = json.load(file)["spec"]["name"]
        self.told_to_stop = False
        self.waits = False
        found = re.match(r"exit-(\d+)", self.name)
        self.exit_code = int(found[1]) if found else 0
        try:
            with open(f"{job_dir}/checkpoints/step") as file:  # noqa: PTH123
                self.step = int(file.read())
        except FileNotFoundError:
            self.step = 0

    def say(self, event: str, **fields: Any) -> None:
        """One line, on the disk: what a killed one has said is said."""
        line = json.dumps({"at": now(), "event": event, **fields}).encode() + b"\n"
        fd = os.open(f"{self.dir}/events.jsonl", os.O_RDWR | os.O_APPEND | os.O_CREAT)
        try:
            os.write(fd, line)
            os.fsync(fd)
        finally:
            os.close(fd)

    def save(self, k: int) -> None:
        os.makedirs(f"{self.dir}/checkpoints", exist_ok=True)  # noqa: PTH103
        path = f"{self.dir}/checkpoints/step"
        with open(path + ".tmp", "w") as file:  # noqa: PTH123
            file.write(str(self.step))
            file.flush()
            os.fsync(file.fileno())
        os.rename(path + ".tmp", path)  # noqa: PTH104
        self.say("checkpoint", k=k, step=self.step, path="checkpoints/step", seconds=0.0, bytes=8)

    def control(self) -> dict[str, Any]:
        try:
            with open(f"{self.dir}/control.json") as file:  # noqa: PTH123
                return json.load(file)  # type: ignore[no-any-return]
        except FileNotFoundError:
            return {"k": -1, "action": "train"}

    def directive(self, k: int) -> dict[str, Any] | None:
        """The one for segment k, waited for as long as it takes; None: stop."""
        while True:
            told = self.control()
            if self.told_to_stop or told["action"] == "stop":
                return None
            if told["k"] == k and told["action"] == "train" and told["lease"]["valid_until"] > now():
                if self.waits:
                    self.waits = False
                    self.say("resumed", k=k, step=self.step)
                return told
            if told["k"] == k and not self.waits:
                self.waits = True
                self.say("waiting", k=k, step=self.step, until=told["until"], reason=told["reason"])
            time.sleep(0.02)

    def train(self, k: int) -> bool:
        """One segment; False: stopped in it."""
        self.say(
            "segment_ready", k=k, segments=SEGMENTS, first_step=self.step, steps=SEGMENT, importance_batches=1, frontier=FRONTIER,
            steps_left=SEGMENTS * SEGMENT - self.step, flops_full=1e12, rho_floor=0.4, seconds_per_step=STEP_S, importance_seconds=0.0,
        )  # fmt: skip
        began, first = time.monotonic(), self.step
        told = self.directive(k)
        while told is not None and self.step < first + SEGMENT:
            time.sleep(STEP_S * told["rho"])
            self.step += 1
            self.say(
                "step",
                k=k,
                step=self.step,
                steps=SEGMENTS * SEGMENT,
                loss=2.0,
                lr=1e-4,
                seconds=STEP_S,
                rho=told["rho"],
            )
            told = self.directive(k)
        if self.step < first + SEGMENT:
            self.step = first  # half a segment is trained again
            return False
        rho = 0.5 if told is None else told["rho"]
        self.say(
            "segment_done", k=k, first_step=first, steps=SEGMENT, rho_directed=rho, rho_planned=rho, rho_realised=rho, flops=rho * 1e12,
            flops_full=1e12, loss=2.0, seconds=time.monotonic() - began, importance_seconds=0.0, selection_seconds=0.0, selected=["a"],
            directive_seq=None if told is None else told["seq"],
        )  # fmt: skip
        return True

    def run(self) -> int:
        if self.name.startswith("deaf"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        else:
            signal.signal(signal.SIGTERM, self._stop)
        subprocess.Popen(["/bin/sleep", "600"])
        self.say(
            "started", pid=os.getpid(), segments=SEGMENTS, steps=SEGMENTS * SEGMENT, first_step=self.step, params=1000, device="cpu",
            protocol=2,
        )  # fmt: skip
        for k in range(self.step // SEGMENT, SEGMENTS):
            if not self.train(k):
                self.save(k)
                self.say("finished", step=self.step, reason="stopped")
                return 0
            self.save(k)
            if self.exit_code and k >= 1:
                return self.exit_code
        if self.exit_code:
            return self.exit_code  # tried again when all was trained already
        self.say("finished", step=self.step, reason="done")
        return 0

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self.told_to_stop = True


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(StandIn(sys.argv[-1]).run())
