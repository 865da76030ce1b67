"""Builds the stand-in for NVIDIA's library and runs programs that find it in place of the real one."""

import os
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("fake_nvml.c")


def build_fake_nvml(folder: Path) -> Path:
    """Compile the library into `folder` (made if need be), which then goes to LD_LIBRARY_PATH. Returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / "libnvidia-ml.so.1"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(library), str(SOURCE)],
        check=True,
        timeout=60,
    )
    return folder


def fake_nvml_env(folder: Path, **settings: str) -> dict[str, str]:
    """This process's environment with the fake library in front; `settings` are added as they are."""
    path = os.environ.get("LD_LIBRARY_PATH")
    return {**os.environ, "LD_LIBRARY_PATH": f"{folder}:{path}" if path else str(folder), **settings}


def run_with_fake_nvml(folder: Path, program: str, **settings: str) -> str:
    """Run a Python program to its end; returns what it printed, raises with its stderr where it failed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=fake_nvml_env(folder, **settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return done.stdout
