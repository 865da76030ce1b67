"""Makes a job's folder its submitter's to read, and nobody else's.

The folder stays the daemon's. A POSIX ACL, which a folder's owner may set without being root, lets the submitter in, and its
default part goes on to all that is made inside. Where the file system knows no ACL, the daemon's group reads it as ever.
"""

import contextlib
import errno
import logging
import os
import struct
from pathlib import Path

from carbonsched.model.job import Owner

log = logging.getLogger(__name__)

WRITTEN = ("events.jsonl", "checkpoints", "output")
"""What the trainer writes, and in a job that runs as its owner the owner."""
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
        with contextlib.suppress(
            PermissionError
        ):  # the owner's own group, where this process may give it away
            os.chown(job_dir, -1, owner.gid)


def make_written(job_dir: Path) -> list[Path]:
    """The trainer's own files and folders, made where they are not there yet."""
    written = [job_dir / name for name in WRITTEN]
    written[0].touch(mode=0o644)
    for folder in written[1:]:
        folder.mkdir(exist_ok=True)
    return written


def readable_umask() -> int:
    """This process's umask, less what would keep the group's part, and with it the ACL, from reading what a job writes."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8) & ~0o050
    return 0o027


def _set_acl(folder: Path, uid: int) -> None:
    """user::rwx user:UID:r-x group::--- mask::r-x other::---, for the folder and as its default; acl(5)."""
    entries = [
        (0x01, 7, _NAMELESS),
        (0x02, 5, uid),
        (0x04, 0, _NAMELESS),
        (0x10, 5, _NAMELESS),
        (0x20, 0, _NAMELESS),
    ]
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    for kind in ("default", "access"):
        os.setxattr(folder, f"system.posix_acl_{kind}", packed)
