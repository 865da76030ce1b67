"""Everything that a daemon may hang on at once: a disk whose fsync takes its time, a launcher and a feed that never answer.

Run by tests/supervisor/test_measured_lock.py in a process of its own, under a library that makes fsync slow; prints how long the lock was held.
"""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.replay_launcher import ReplayLauncher
from support.rig import ME, Rig, spec

from carbonsched.feeds.chain import Chain
from carbonsched.model.command import RunEnd, RunRequest
from carbonsched.model.protocol import RunRecord

SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>
static int slow(const char *name, int fd) { usleep(MILLISECONDS * 1000L); return ((int (*)(int))dlsym(RTLD_NEXT, name))(fd); }
int fsync(int fd) { return slow("fsync", fd); }
int fdatasync(int fd) { return slow("fdatasync", fd); }
"""


def library(folder: Path, milliseconds: int) -> Path:
    """For LD_PRELOAD. Raises OSError, CalledProcessError where there is no compiler."""
    (folder / "slow.c").write_text(SOURCE.replace("MILLISECONDS", str(milliseconds)))
    made = folder / "slow.so"
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-o", str(made), str(folder / "slow.c"), "-ldl"],
        check=True,
        capture_output=True,
    )
    return made


@dataclass
class Hung(ReplayLauncher):
    """Starts of jobs called `hangs` never come back."""

    def start(self, job_dir: Path, *args: Any, **kwargs: Any) -> RunRecord:
        if job_dir.name.startswith("hangs"):
            time.sleep(3600)
        return ReplayLauncher.start(self, job_dir, *args, **kwargs)


def silent_feed() -> dict[str, Any]:
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=lambda: [listener.accept() for _ in range(100)], daemon=True).start()
    return {
        "provider": "prometheus",
        "url": f"http://127.0.0.1:{listener.getsockname()[1]}",
        "query": "grid",
        "basis": "average-lifecycle",
    }


def main(folder: Path) -> None:
    static = {"provider": "static", "g_per_kwh": 400.0, "basis": "average-lifecycle", "source": "test"}
    extra = {"launch": {"slots": 8}, "ledger": {"row_s": 1}, "feeds": [silent_feed(), static]}
    chain_polled = Chain.poll_due
    Chain.poll_due = lambda self: None  # type: ignore[method-assign]  # the rig's own poll would wait for it
    rig = Rig(folder, extra=extra, devices=8, launchers=Hung)
    Chain.poll_due = chain_polled  # type: ignore[method-assign]
    service, supervisor = rig.service, rig.supervisor
    threading.Thread(target=rig.chain.poll_due, daemon=True).start()
    supervisor.starter.starts.tick_wait_s = 0.05
    told: dict[str, tuple[float, float]] = {}

    def step(name: str, work: Callable[[], Any]) -> Any:
        supervisor.lock.longest_s, began = 0.0, time.monotonic()
        answer = work()
        told[name] = time.monotonic() - began, supervisor.lock.longest_s
        return answer

    first = step("submit", lambda: service.submit(spec("first"), ME))
    step("tick that starts it", lambda: rig.run(1))
    for _ in range(3):
        service.submit(spec("hangs"), ME)
    step("tick that starts three which hang", lambda: rig.run(1))
    step("ticks meanwhile", lambda: rig.run(2))
    asked = RunRequest.parse(
        {"name": "make", "command": {"argv": ["make"]}, "pid": 7, "budget_g": 5, "share": True}
    )
    run = step("run begins", lambda: service.begin_run(asked, ME))
    step("run ends", lambda: service.end_run(run.id, RunEnd(code=0), ME))
    step("budget", lambda: service.budget(first.id, 200.0, ME))
    step("drain", lambda: service.drain("test", ME))
    step("undrain", lambda: service.undrain(ME))
    step("cancel", lambda: service.cancel(first.id, ME))
    step("flush", supervisor.flush)
    assert rig.ledger.verify().ok
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
