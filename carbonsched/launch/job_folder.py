"""Makes a job's folder readable by its submitter and by no other user.

The folder stays the daemon's. A POSIX ACL, which a folder's owner may set without being root, admits the submitter, and its default part
applies to everything created inside. On a file system without ACLs the daemon's group can read it as before. A job that runs as its
submitter while the daemon is not root writes by such an ACL too (`share_written`).
"""

import contextlib
import errno
import logging
import os
import stat
import struct
from pathlib import Path

from carbonsched.model.job import Owner

log = logging.getLogger(__name__)

WRITTEN = ("events.jsonl", "checkpoints", "output")
"""What the trainer writes; in a job that runs as its owner, the owner."""
_OWNER, _USER, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x10, 0x20
_NAMELESS = 0xFFFFFFFF
_NO_ACL = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


def open_to_owner(job_dir: Path, owner: Owner) -> None:
    """Let `owner` read, the daemon's user write, and no other user do either. Raises OSError."""
    job_dir.chmod(0o700)
    if owner.uid == os.geteuid():
        return
    try:
        _set_acl(job_dir, owner.uid)
    except OSError as e:
        if e.errno not in _NO_ACL:
            raise
        log.warning(
            "%s lies on a file system without ACLs: everybody in the group that owns it may read this job's output",
            job_dir,
        )
        job_dir.chmod(0o750)
        with contextlib.suppress(PermissionError):  # give the folder the owner's group, if this process may
            os.chown(job_dir, -1, owner.gid)


def make_written(job_dir: Path) -> list[Path]:
    """The trainer's own files and folders, created if missing."""
    written = [job_dir / name for name in WRITTEN]
    written[0].touch(mode=0o644)
    for folder in written[1:]:
        folder.mkdir(exist_ok=True)
    return written


def share_written(job_dir: Path, owner: Owner) -> None:
    """Let both `owner` and the daemon's user write what the trainer writes, whichever of them creates a file.

    Files that an earlier start left as the daemon's are shared from now on; links and other users' files are skipped. Raises OSError, also
    on a file system without ACLs.
    """
    for path in make_written(job_dir):
        if not path.is_dir():
            _share(path, owner.uid, folder=False)
            continue
        for _, _, names, here in os.fwalk(path, follow_symlinks=False):
            _share(here, owner.uid, folder=True)
            for name in names:
                _share_in(here, name, owner.uid)


def _share_in(folder: int, name: str, uid: int) -> None:
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        _share(fd, uid, folder=False)
    finally:
        os.close(fd)


def _share(file: Path | int, uid: int, *, folder: bool) -> None:
    """file: a path that its owner cannot change, or a descriptor."""
    info = os.stat(file, follow_symlinks=isinstance(file, int))  # noqa: PTH116 - of a descriptor, too
    plain = stat.S_ISREG(info.st_mode) and info.st_nlink == 1
    if info.st_uid != os.geteuid() or not (plain or stat.S_ISDIR(info.st_mode)):
        return  # a hard link may be another name of a file that must not be shared
    where = f"/proc/self/fd/{file}" if isinstance(file, int) else file
    rights = 7 if folder else 6
    both = [(_USER, rights, name) for name in sorted({uid, os.geteuid()})]
    others = [(_GROUP, 0, _NAMELESS), (_MASK, rights, _NAMELESS), (_OTHER, 0, _NAMELESS)]
    packed = _packed([(_OWNER, rights, _NAMELESS), *both, *others])
    for kind in ("default", "access") if folder else ("access",):
        os.setxattr(where, f"system.posix_acl_{kind}", packed)


def readable_umask() -> int:
    """This process's umask without the bits that would keep the group, and with it the ACL, from reading a job's files."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8) & ~0o050
    return 0o027


def _set_acl(folder: Path, uid: int) -> None:
    """user::rwx user:UID:r-x group::--- mask::r-x other::---, for the folder and as its default; acl(5)."""
    entries = [
        (_OWNER, 7, _NAMELESS),
        (_USER, 5, uid),
        (_GROUP, 0, _NAMELESS),
        (_MASK, 5, _NAMELESS),
        (_OTHER, 0, _NAMELESS),
    ]
    packed = _packed(entries)
    for kind in ("default", "access"):
        os.setxattr(folder, f"system.posix_acl_{kind}", packed)


def _packed(entries: list[tuple[int, int, int]]) -> bytes:
    """The kernel's format of an ACL: tag, rights and name of each entry, ordered by tag and name."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
