"""A daemon that is not root: what a job is handed at its start, and what nobody can put in its place."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.as_user import as_user

from carbonsched.errors import InputError, LaunchError
from carbonsched.launch import inputs
from carbonsched.launch.local import LocalLauncher
from carbonsched.model.job import JobSpec, Owner

PYTHON = "/usr/bin/python3"
"""That another user may run, unlike pytest's own, perhaps."""
DAEMON, ALICE, BOB = 65534, 12345, 12346
OWNER = Owner(uid=ALICE, gid=ALICE, user="alice")

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
    pytest.mark.skipif(
        os.geteuid() == 0
        and not (Path(PYTHON).exists() and as_user(ALICE, lambda: os.access(inputs.__file__, os.R_OK))),
        reason="other users cannot run this Python or read this checkout",
    ),
]


@pytest.fixture
def box() -> Iterator[Path]:
    """`state/job` of the daemon, `alice/rows.jsonl`, and `secret`, which the daemon's user alone may read."""
    with tempfile.TemporaryDirectory() as name:
        box = Path(name)
        box.chmod(0o755)
        for folder, uid in (
            ("state", DAEMON),
            ("state/job", DAEMON),
            ("alice", ALICE),
            ("alice/model", ALICE),
        ):
            (box / folder).mkdir()
            os.chown(box / folder, uid, uid)
        files = {"alice/rows.jsonl": ("alice's rows", ALICE), "secret": ("another's rows", DAEMON),
                 "alice/model/config.json": ("{}", ALICE), "alice/model/model.safetensors": ("weights", ALICE),
                 "alice/model/tokenizer_config.json": ("{}", ALICE)}  # fmt: skip
        for file, (text, uid) in files.items():
            (box / file).write_text(text)
            os.chown(box / file, uid, uid)
        (box / "secret").chmod(0o600)
        yield box
        LocalLauncher().kill(box / "state" / "job")


def spec(box: Path) -> JobSpec:
    return JobSpec.parse(
        {
            "name": "tiny",
            "model": {"name_or_path": str(box / "alice" / "model")},
            "data": {"name_or_path": str(box / "alice" / "rows.jsonl")},
            "carbon": {"budget_g": 1.0},
        }
    )


def start(box: Path, script: str, uid: int = DAEMON) -> None:
    launcher = LocalLauncher(python=PYTHON)
    as_user(
        uid,
        lambda: launcher.start(box / "state" / "job", ["sh", "-c", script], {}, OWNER, spec(box)) and None,
    )


def ended(box: Path) -> str:
    """What the job's process has printed, once it has ended."""
    job_dir, end = box / "state" / "job", time.monotonic() + 10
    while LocalLauncher().poll(job_dir).state == "running":
        assert time.monotonic() < end
        time.sleep(0.02)
    return "\n".join((job_dir / "log.txt").read_text().splitlines()[1:])


def test_a_job_reads_what_its_submitter_may_by_descriptor(box: Path) -> None:
    script = (
        "until test -e go; do sleep 0.02; done; cat inputs/data/rows.jsonl inputs/model/model.safetensors; echo;"
        "cat inputs/data/rows.jsonl; echo; readlink inputs/data/rows.jsonl; ls inputs/model;"
        "stat -c %F inputs/model/tokenizer_config.json; ls -l /proc/self/fd | grep -c alice"
    )
    start(box, script)
    # its file is swapped, removed and its folder closed: what was opened stays
    (box / "alice" / "rows.jsonl").unlink()
    (box / "alice" / "rows.jsonl").symlink_to(box / "secret")
    shutil.rmtree(box / "alice" / "model")
    (box / "alice").chmod(0o700)
    (box / "state" / "job" / "go").touch()
    first, again, link, *rest = ended(box).splitlines()
    assert (first, again) == ("alice's rowsweights", "alice's rows")
    assert link.startswith("/proc/")
    assert rest == ["config.json", "model.safetensors", "tokenizer_config.json", "regular file", "0"]


def _swap(box: Path) -> None:
    (box / "alice" / "rows.jsonl").unlink()
    (box / "alice" / "rows.jsonl").symlink_to(box / "secret")


def _point_the_index_elsewhere(box: Path) -> None:
    index = {"weight_map": {"w": str(box / "secret")}}
    (box / "alice" / "model" / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("swap", "words"),
    [
        (_swap, r"job cannot be started: data.name_or_path: alice may not read .*/secret for .*rows.jsonl"),
        (_point_the_index_elsewhere, "names weights outside of its folder"),
    ],
)
def test_what_is_swapped_after_the_check_does_not_start(
    box: Path, swap: Callable[[Path], None], words: str
) -> None:
    as_user(DAEMON, lambda: LocalLauncher(python=PYTHON).check(spec(box), OWNER))
    swap(box)
    with pytest.raises(LaunchError, match=words):
        start(box, "cat inputs/data/rows.jsonl")
    assert not (box / "state" / "job" / "log.txt").exists()
    assert not (box / "state" / "job" / "run.json").exists()


def test_of_a_job_that_runs_as_its_owner_the_kernel_is_asked(box: Path) -> None:
    launcher, bob = LocalLauncher(python=PYTHON), Owner(uid=BOB, gid=BOB, user="bob")
    (box / "alice").chmod(0o700)
    launcher.check(spec(box), OWNER)  # whatever root may see of a home on NFS or FUSE
    with pytest.raises(
        InputError, match=rf"^model.name_or_path: {BOB} may not look into .*/alice for .* \(mode 0700"
    ):
        launcher.check(spec(box), bob)
    _swap(box)
    with pytest.raises(
        InputError, match=rf"^data.name_or_path: {ALICE} may not read .*/secret for .*rows.jsonl"
    ):
        launcher.check(spec(box), OWNER)
    (box / "state" / "job" / "inputs").mkdir()
    launcher.start(
        box / "state" / "job", ["sh", "-c", "id -u; test -e inputs || echo none"], {}, OWNER, spec(box)
    )
    assert ended(box) == f"{ALICE}\nnone"
