"""A launcher, and a job's folder that another user may enter and that is swept at the end."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes import until

from carbonsched.launch.local import LocalLauncher


@pytest.fixture
def job_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:  # not tmp_path: another user must be able to enter it
        Path(folder).chmod(0o755)
        path = Path(folder) / "job-1"
        path.mkdir()
        yield path
        LocalLauncher().kill(path)
        until(lambda: LocalLauncher().poll(path).state != "running")


@pytest.fixture
def launcher() -> LocalLauncher:
    return LocalLauncher()
