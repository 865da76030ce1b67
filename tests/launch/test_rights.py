"""Files opened with another user's rights, held against what the kernel lets that user do."""

import os
import random
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.as_user import as_user

from carbonsched.errors import InputError
from carbonsched.launch.rights import Opener, Who

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

ALICE, BOB, TEAM = 12345, 12346, 12400
WHO = Who("alice", ALICE, frozenset({ALICE, TEAM}))


@pytest.fixture
def folder() -> Iterator[Path]:
    """pytest's own temporary folders are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def file(path: Path, text: str = "x", *, mode: int = 0o644, uid: int = ALICE, gid: int = ALICE) -> Path:
    path.write_text(text)
    os.chown(path, uid, gid)
    path.chmod(mode)
    return path


def readable(path: Path) -> bool:
    try:
        fd = Opener("data.name_or_path", WHO).walk(str(path))
    except InputError:
        return False
    try:
        os.close(Opener("data.name_or_path", WHO).read(fd, str(path)))
    except InputError:
        return False
    finally:
        os.close(fd)
    return True


def opens(path: Path) -> bool:
    try:
        path.read_text()
    except OSError:
        return False
    return True


def test_rights_are_those_that_the_kernel_gives(folder: Path) -> None:
    rng = random.Random(7)
    tried: list[Path] = []
    for n in range(150):
        inner = folder / f"d{n}"
        inner.mkdir()
        path = inner / "f"
        file(path, mode=rng.choice([0o600, 0o640, 0o604, 0o060, 0o006, 0o000, 0o644]), uid=rng.choice([ALICE, BOB]),
             gid=rng.choice([BOB, TEAM, ALICE]))  # fmt: skip
        if rng.random() < 0.6:
            named = sorted(
                rng.sample([(0x02, ALICE), (0x02, BOB), (0x08, TEAM), (0x08, ALICE), (0x08, BOB)], 2)
            )
            rights = [rng.choice([0, 4, 6]) for _ in range(6)]
            entries = [(0x01, 6, 0xFFFFFFFF), *((tag, rights[i], who) for i, (tag, who) in enumerate(named) if tag == 0x02),
                       (0x04, rights[2], 0xFFFFFFFF), *((tag, rights[i], who) for i, (tag, who) in enumerate(named) if tag == 0x08),
                       (0x10, rights[3], 0xFFFFFFFF), (0x20, rights[4], 0xFFFFFFFF)]  # fmt: skip
            os.setxattr(
                path,
                "system.posix_acl_access",
                struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in entries),
            )
        os.chown(inner, rng.choice([ALICE, BOB]), rng.choice([TEAM, BOB]))
        inner.chmod(rng.choice([0o755, 0o711, 0o700, 0o750, 0o705]))
        tried.append(path)
    kernel = as_user(ALICE, lambda: [opens(path) for path in tried], groups=[TEAM])
    assert [readable(path) for path in tried] == kernel
    assert 20 < sum(kernel) < 130


def test_links_are_followed_with_the_submitters_rights(folder: Path) -> None:
    for name, uid in (("alice", ALICE), ("bob", BOB)):
        (folder / name).mkdir()
        file(folder / name / "rows.jsonl", f"of {name}", uid=uid, gid=uid)
        os.chown(folder / name, uid, uid)
    (folder / "bob").chmod(0o700)
    links = {"plain": "rows.jsonl", "up": "../alice/rows.jsonl", "root": str(folder / "alice/rows.jsonl"),
             "other": "../bob/rows.jsonl", "others": str(folder / "bob/rows.jsonl"), "loop": "loop", "none": "gone"}  # fmt: skip
    for name, target in links.items():
        (folder / "alice" / name).symlink_to(target)
    found = {name: readable(folder / "alice" / name) for name in links}
    assert found == {n: n in ("plain", "up", "root") for n in links}
    with pytest.raises(
        InputError, match=r"alice may not look into .*/bob for .*/other \(mode 0700, of 12346\)"
    ):
        Opener("data.name_or_path", WHO).walk(str(folder / "alice" / "other"))
    with pytest.raises(InputError, match="more than 40 links"):
        Opener("data.name_or_path", WHO).walk(str(folder / "alice" / "loop"))


def test_what_was_asked_for_is_what_is_opened(folder: Path) -> None:
    secret = file(folder / "secret", "bob's", mode=0o600, uid=BOB, gid=BOB)
    mine = file(folder / "rows.jsonl", "alice's")
    opener = Opener("data.name_or_path", WHO)
    fd = opener.walk(str(mine))
    mine.unlink()
    mine.symlink_to(secret)
    with os.fdopen(opener.read(fd, str(mine))) as opened:
        assert opened.read() == "alice's"
    os.close(fd)


def test_only_plain_files_are_read(folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    for path in (
        folder / "fifo",
        folder,
        Path("/dev/zero"),
        Path(f"/proc/{os.getpid()}/status"),
        Path("/sys/kernel/notes"),
    ):
        fd = Opener("data.name_or_path", None).walk(str(path))
        with pytest.raises(InputError, match="is not a plain file"):
            Opener("data.name_or_path", None).read(fd, str(path))
        os.close(fd)
