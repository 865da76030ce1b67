"""A job's folder and what the trainer makes in it: its submitter reads and copies it, nobody else does."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.as_user import as_user

from carbonsched.launch import job_folder
from carbonsched.launch.job_folder import make_written, open_to_owner, readable_umask, share_written
from carbonsched.model.job import Owner
from trainer.job.job_dir import give_modes

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

DAEMON, ALICE, BOB = 65534, 12345, 12346


@pytest.fixture
def job_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        path = Path(name) / "job"
        path.mkdir()
        os.chown(path, DAEMON, DAEMON)
        yield path


def make_output(job_dir: Path, umask: int) -> None:
    """As daemon, shim and trainer do one after the other."""
    os.umask(umask)
    open_to_owner(job_dir, Owner(uid=ALICE, gid=ALICE, user="alice"))
    make_written(job_dir)
    os.umask(readable_umask())
    part = job_dir / "output" / ".part"
    (part / "adapter").mkdir(parents=True)
    for name in ("model.safetensors", "adapter/model.safetensors", "README.md"):
        (part / name).touch(mode=0o600 if name.endswith("safetensors") else 0o666)
    give_modes(part)
    for new in part.iterdir():
        new.rename(job_dir / "output" / new.name)
    part.rmdir()


def read(job_dir: Path) -> list[str]:
    found = sorted(str(path.relative_to(job_dir)) for path in job_dir.rglob("*"))
    for name in found:
        if (job_dir / name).is_file():
            (job_dir / name).read_bytes()
    return found


def refused(job_dir: Path) -> bool:
    try:
        list(job_dir.iterdir())
    except PermissionError:
        return True
    return False


@pytest.mark.parametrize("daemon", [DAEMON, 0])
@pytest.mark.parametrize("umask", [0o027, 0o022, 0o077])
def test_the_submitter_reads_all_of_it_and_nobody_else_any(job_dir: Path, daemon: int, umask: int) -> None:
    os.chown(job_dir, daemon, daemon)
    as_user(daemon, lambda: make_output(job_dir, umask))
    whole = ["checkpoints", "events.jsonl", "output", "output/README.md", "output/adapter",
             "output/adapter/model.safetensors", "output/model.safetensors"]  # fmt: skip
    assert as_user(ALICE, lambda: read(job_dir)) == whole
    assert as_user(BOB, lambda: refused(job_dir))
    assert as_user(BOB, lambda: refused(job_dir), groups=[daemon]), "the daemon's group is no way in"
    with pytest.raises(PermissionError):
        as_user(ALICE, lambda: (job_dir / "output" / "README.md").write_text("mine"))


def test_without_acls_its_group_reads_it_and_a_line_says_so(
    job_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(job_folder.os, "setxattr", none)
    open_to_owner(job_dir, Owner(uid=ALICE, gid=ALICE, user="alice"))
    assert "without ACLs" in caplog.text
    assert (job_dir.stat().st_mode & 0o777, job_dir.stat().st_gid) == (0o750, ALICE)


def test_ones_own_folder_is_ones_own(job_dir: Path) -> None:
    open_to_owner(job_dir, Owner(uid=os.geteuid(), gid=0, user="me"))
    assert job_dir.stat().st_mode & 0o777 == 0o700


class TestShared:
    """A job that runs as its submitter while the daemon is not root."""

    def test_both_write_whoever_made_it_and_nobody_else_does(self, job_dir: Path) -> None:
        def as_daemon() -> None:
            os.umask(0o027)
            open_to_owner(job_dir, Owner(uid=ALICE, gid=ALICE, user="alice"))
            (job_dir / "checkpoints/10").mkdir(parents=True)  # of a start without a unit
            (job_dir / "checkpoints/10/model").write_text("old")
            share_written(job_dir, Owner(uid=ALICE, gid=ALICE, user="alice"))

        def as_alice() -> None:
            os.umask(0o027)
            assert (job_dir / "checkpoints/10/model").read_text() == "old"
            (job_dir / "checkpoints/10/model").unlink()
            (job_dir / "checkpoints/20").mkdir()
            (job_dir / "checkpoints/20/model").write_text("new")
            with (job_dir / "events.jsonl").open("a") as events:
                events.write("hi\n")

        def tidy() -> str:
            found = (job_dir / "checkpoints/20/model").read_text()
            shutil.rmtree(job_dir / "checkpoints")
            return found

        as_user(DAEMON, as_daemon)
        as_user(ALICE, as_alice)
        for name in ("control.json", "run.json"):
            with pytest.raises(PermissionError):
                as_user(ALICE, lambda name=name: (job_dir / name).write_text("mine"))  # type: ignore[misc]
        assert as_user(BOB, lambda: refused(job_dir), groups=[ALICE])
        assert as_user(DAEMON, tidy) == "new"
        assert (job_dir / "events.jsonl").read_text() == "hi\n"

    @pytest.mark.parametrize("plant", ["symlink", "link", "folder"])
    def test_what_its_owner_plants_opens_no_other_file_of_the_daemon(self, job_dir: Path, plant: str) -> None:
        alice = Owner(uid=ALICE, gid=ALICE, user="alice")
        ledger = job_dir.parent / "ledger.db"
        ledger.write_text("rows")
        os.chown(ledger, DAEMON, DAEMON)
        ledger.chmod(0o600)
        as_user(DAEMON, lambda: (open_to_owner(job_dir, alice), share_written(job_dir, alice)))
        output = job_dir / "output"
        if plant == "link":
            os.link(ledger, output / "x")  # root may; the kernel's protected_hardlinks keeps alice from it
        else:
            (output / "x").symlink_to(ledger if plant == "symlink" else job_dir.parent)
        as_user(DAEMON, lambda: share_written(job_dir, alice))
        with pytest.raises(PermissionError):
            as_user(ALICE, lambda: ledger.read_text())

    def test_without_acls_it_cannot_be(self, job_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def none(*_: object) -> None:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")

        monkeypatch.setattr(job_folder.os, "setxattr", none)
        os.chown(job_dir, 0, 0)
        with pytest.raises(OSError, match="not supported"):
            share_written(job_dir, Owner(uid=ALICE, gid=ALICE, user="alice"))
