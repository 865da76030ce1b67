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
from support.as_user import as_user
from support.models import job_folder, tiny_llama, tiny_spec, word_data
from support.steer import of

from carbonsched.model.files import save
from carbonsched.model.protocol import Directive, Lease

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
]

NOBODY, ALICE = 65534, 12345
# the first run, as root, loads every module: this interpreter's folder may be closed to others
CHILD = f"""
import os, sys
from pathlib import Path
from carbonsched.launch import shim
from carbonsched.launch.handover import handed_over
from carbonsched.launch.job_folder import make_written, open_to_owner, readable_umask
from carbonsched.launch.local import _as_owner
from carbonsched.model.job import Owner
from trainer.commands.run import run
from trainer.job.job_dir import JobDir
warm, job, other = map(Path, sys.argv[1:])
assert run(warm) == 0
b"x".decode("unicode-escape")  # jinja's
nobody, alice = Owner(uid={NOBODY}, gid={NOBODY}, user="nobody"), Owner(uid={ALICE}, gid={ALICE}, user="alice")
open_to_owner(job, nobody)
_as_owner(job, nobody)
for path in (other, *other.iterdir()):
    os.chown(path, {NOBODY}, {NOBODY})
os.setgroups([{NOBODY}])
os.setgid({NOBODY})
os.setuid({NOBODY})
assert run(job) == 0
# another's job, of a daemon that is not root: as launcher and shim do it
open_to_owner(other, alice)
make_written(other)
os.umask(readable_umask())
with handed_over(other, JobDir(other).spec().spec, alice) as handed:
    shim._link(handed.options[1])
    os.environ["CARBONSCHED_JOB_DIR"] = str(other)
    sys.exit(run(other))
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
        lora = spec | {"train": spec["train"] | {"method": "lora"}}
        jobs = {"warm": spec, "job": spec, "other": lora}
        warm, job, other = (job_folder(folder / name, jobs[name]) for name in jobs)
        for path in (warm, job, other):
            save(
                path / "control.json",
                Directive(seq=1, k=0, action="train", rho=0.8, lease=lease, reason="test"),
            )
        (job / "output").mkdir()
        (job / "output" / "stale.txt").write_text("of an earlier attempt")
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        child = [sys.executable, "-c", CHILD, str(warm), str(job), str(other)]
        ended = subprocess.run(child, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    assert [d["rho_directed"] for d in of(job, "segment_done")] == [0.8]
    assert of(job, "finished")[0]["output"] == "output"
    names = {file.name for file in (job / "output").iterdir()}
    assert {"model.safetensors", "config.json", "metrics.json", "README.md"} <= names
    assert not {"stale.txt", ".part"} & names
    assert (job / "output" / "model.safetensors").stat().st_uid == NOBODY
    assert (job / "output" / "model.safetensors").stat().st_mode & 0o777 == 0o640, "as the umask says"
    assert job.stat().st_uid == 0
    assert as_user(ALICE, lambda: sum(len(f.read_bytes()) for f in files(other))) > 10_000
    assert len(files(other)) > 5
    with pytest.raises(PermissionError):
        as_user(12346, lambda: [f.read_bytes() for f in files(other)])
    told = "".join(file.read_text(errors="replace") for file in files(other))
    assert str(folder / "llama") in told
    assert "/inputs/" not in told, "what was read by descriptor is called what its owner calls it"


def files(job: Path) -> list[Path]:
    written = [*(job / "output").rglob("*"), *(job / "checkpoints").rglob("*"), job / "events.jsonl"]
    return [path for path in written if path.is_file()]
