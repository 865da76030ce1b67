"""Real processes of a job: waiting for what they do, and what the launcher recorded of them."""

import json
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from carbonsched.launch import shim
from carbonsched.launch.local import LocalLauncher


def until(look: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if look():
            return
        time.sleep(0.02)
    pytest.fail(f"did not come true within {seconds} s")


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", textwrap.dedent(code)]


def gone(pid: int) -> bool:
    try:
        return shim.stat_fields(pid)[0] in "ZX"
    except OSError:
        return True


def record(job_dir: Path, name: str) -> dict[str, object]:
    return json.loads((job_dir / name).read_text())


def ended(launcher: LocalLauncher, job_dir: Path) -> bool:
    return launcher.poll(job_dir).state != "running"
