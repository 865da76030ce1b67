"""The one lock: how long it is held is counted, and nothing under it waits for a disk, a launcher or a feed."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support import slow_disk

from carbonsched.supervisor.measured_lock import MeasuredLock

FSYNC_MS = 800


def test_a_hold_is_counted_once_however_deep_and_what_comes_after_waits_behind_it() -> None:
    free: list[bool] = []

    def after() -> None:
        def look() -> None:
            free.append(lock.acquire(blocking=False))
            lock._lock.release()

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()

    lock = MeasuredLock()
    lock._after = after
    with lock, lock:
        assert lock.held.count == 0
    assert (lock.held.count, free) == (1, [True])
    assert lock.longest_s == lock.held.sum_s > 0


def test_one_that_another_holds_is_not_had() -> None:
    lock, had = MeasuredLock(), []
    with lock:
        thread = threading.Thread(target=lambda: had.append(lock.acquire(timeout=0.01)))
        thread.start()
        thread.join()
    assert had == [False]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="no compiler: fsync cannot be made slow")
def test_nothing_under_it_waits_for_a_disk_a_launcher_or_a_feed(tmp_path: Path) -> None:
    """Every fsync takes 0.8 s, three starts never come back, a feed never answers: what waits for one of them shows."""
    env = os.environ | {
        "LD_PRELOAD": str(slow_disk.library(tmp_path, FSYNC_MS)),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    argv = [sys.executable, "-m", "support.slow_disk", str(tmp_path / "box")]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    sys.stdout.write(
        "".join(f"{name}: {took:.2f} s, lock {held:.3f} s\n" for name, (took, held) in told.items())
    )
    waited = {name for name, (took, _) in told.items() if took >= FSYNC_MS / 1000}
    assert {"submit", "run begins", "budget", "cancel", "drain"} <= waited, (
        "an answer comes when the disk has it"
    )
    held = {name: held for name, (_, held) in told.items()}
    assert max(held.values()) < 0.8 * FSYNC_MS / 1000, held
