"""A job of another user, as deploy/as-owner.conf has it: its directory stays root's, the trainer becomes its owner."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.models import job_folder, tiny_llama, tiny_spec, word_data
from support.steer import of

from carbonsched.model.files import save
from carbonsched.model.protocol import Directive, Lease

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
]

NOBODY = 65534
# the first run, as root, loads every module: this interpreter's folder may be closed to others
CHILD = f"""
import os, sys
from pathlib import Path
from carbonsched.launch.local import _as_owner
from carbonsched.model.job import Owner
from trainer.commands.run import run
warm, job = map(Path, sys.argv[1:])
assert run(warm) == 0
_as_owner(job, Owner(uid={NOBODY}, gid={NOBODY}, user="nobody"))
os.setgroups([{NOBODY}])
os.setgid({NOBODY})
os.setuid({NOBODY})
sys.exit(run(job))
"""


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.fixture
def folder() -> Iterator[Path]:
    """pytest's own temporary folders are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_an_owners_job_goes_from_spec_to_model(folder: Path) -> None:
    spec = tiny_spec(tiny_llama(folder / "llama"), word_data(folder / "data"), train={"epochs": 1})
    (folder / "llama" / "model.safetensors").chmod(0o644)  # safetensors makes it for its user alone
    lease = Lease(valid_until=datetime.now(UTC) + timedelta(hours=1), max_steps=100)
    with umask(0o027):  # as the service has it
        warm, job = (job_folder(folder / name, spec) for name in ("warm", "job"))
        for path in (warm, job):
            save(
                path / "control.json",
                Directive(seq=1, k=0, action="train", rho=0.8, lease=lease, reason="test"),
            )
        (job / "output").mkdir()
        (job / "output" / "stale.txt").write_text("of an earlier attempt")
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        child = [sys.executable, "-c", CHILD, str(warm), str(job)]
        ended = subprocess.run(child, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    assert [d["rho_directed"] for d in of(job, "segment_done")] == [0.8]
    assert of(job, "finished")[0]["output"] == "output"
    names = {file.name for file in (job / "output").iterdir()}
    assert {"model.safetensors", "config.json", "metrics.json", "README.md"} <= names
    assert not {"stale.txt", ".part"} & names
    assert (job / "output" / "model.safetensors").stat().st_uid == NOBODY
    assert job.stat().st_uid == 0
