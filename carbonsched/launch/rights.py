"""Opens files with another user's rights: every step of a path is asked for, and what was asked for is what is opened.

Each component is opened by itself (openat, O_PATH, O_NOFOLLOW), symlinks are resolved here and not by the kernel, and the
right to search or read is asked of the very descriptor that is opened afterwards: a link or file swapped in between
changes nothing. Standard library alone, also in what it imports: `inputs` runs in a child with `-I -S`.
"""

import errno
import os
import pwd
import stat
import struct
from typing import NamedTuple

from carbonsched.errors import InputError

MOST_LINKS = 40
"""Symlinks on the way to one file at most, as in the kernel."""
SEARCH, READ = 1, 4
_O_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_USER, _GROUP_OBJ, _GROUP, _MASK = 0x02, 0x04, 0x08, 0x10
"""Tags of acl(5), as the kernel packs them."""
_HEADER = 4


class UnreachableFileError(InputError):
    """The submitter may read the file, but the daemon's user may not.

    Example:
        >>> issubclass(UnreachableFileError, InputError)
        True
    """


class Who(NamedTuple):
    """The user whose rights count.

    Example:
        >>> Who("alice", 1000, frozenset({1000})).may(READ, mode=0o640, uid=0, gid=1000)
        True
    """

    user: str
    uid: int
    groups: frozenset[int]

    @classmethod
    def of(cls, user: str, uid: int, gid: int) -> "Who":
        """With the groups of this box's accounts; a uid without an account has only its own."""
        try:
            return cls(user, uid, frozenset({gid, *os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)}))
        except KeyError:
            return cls(user, uid, frozenset({gid}))

    def may(self, bit: int, mode: int, uid: int, gid: int, acl: bytes | None = None) -> bool:
        """Whether a file of that mode, owner, group and POSIX ACL grants `bit`, by the rule of acl(5)."""
        if self.uid == 0:
            return True
        if self.uid == uid:
            return bool(mode >> 6 & bit)
        if acl is None or not mode & 0o070:  # with an empty mask the kernel ignores the entries
            return bool(mode >> (3 if gid in self.groups else 0) & bit)
        entries = [struct.unpack_from("<HHI", acl, at) for at in range(_HEADER, len(acl), 8)]
        mask = next((rights for tag, rights, _ in entries if tag == _MASK), 7)
        for tag, rights, name in entries:
            if tag == _USER and name == self.uid:
                return bool(rights & mask & bit)
        of_groups = [
            rights
            for tag, rights, name in entries
            if (tag == _GROUP_OBJ and gid in self.groups) or (tag == _GROUP and name in self.groups)
        ]
        if of_groups:
            return any(rights & mask & bit for rights in of_groups)
        return bool(mode & bit)


class Opener:
    """Opens the files that one setting of a job names. Every method raises InputError that names the setting, OSError (EMFILE) if too many
    files are open.

    Example::

        opener = Opener("data.name_or_path", Who.of("alice", 1000, 1000))
        fd = opener.walk("/home/alice/rows.jsonl")
        content = opener.read(fd, "/home/alice/rows.jsonl")
    """

    def __init__(self, field: str, who: Who | None) -> None:
        """who: None if this process is the submitter's and the kernel does the checks."""
        self.field, self.who = field, who

    def walk(self, way: str, folder: int | None = None, path: str | None = None) -> int:
        """An O_PATH descriptor of `way` from `folder` (None: the root). path: the whole of it, for messages."""
        path = path or way
        here = os.open("/", _O_PATH) if folder is None else os.dup(folder)
        todo, links = way.split("/")[::-1], 0
        try:
            while todo:
                name = todo.pop()
                if name in ("", "."):
                    continue
                there = self._step(here, name, path)
                if not stat.S_ISLNK(os.fstat(there).st_mode):
                    os.close(here)
                    here = there
                    continue
                try:
                    target = os.readlink("", dir_fd=there)
                finally:
                    os.close(there)
                links += 1
                self._limit(links, path)
                if target.startswith("/"):
                    root = os.open("/", _O_PATH)
                    os.close(here)
                    here = root
                todo += target.split("/")[::-1]
        except BaseException:
            os.close(here)
            raise
        return here

    def read(self, fd: int, path: str) -> int:
        """Open for reading what an O_PATH descriptor stands for: the same file, whatever its name means by now."""
        info = os.fstat(fd)
        # files in /proc and /sys are about the process that reads them
        if not stat.S_ISREG(info.st_mode) or info.st_dev in _kernel_devices():
            raise self.refused(f"{path} is not a plain file", "give a plain file")
        self._need(fd, READ, path)
        try:
            return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as e:
            raise self._why(e, fd, path) from e

    def names(self, folder: int, path: str) -> list[str]:
        """The names in a folder."""
        self._need(folder, READ, path)
        try:
            fd = os.open(f"/proc/self/fd/{folder}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as e:
            raise self._why(e, folder, path) from e
        try:
            return sorted(os.listdir(fd))  # noqa: PTH208 - of a descriptor
        finally:
            os.close(fd)

    def refused(self, problem: str, hint: str) -> InputError:
        return InputError(self.field, problem, hint)

    def _step(self, here: int, name: str, path: str) -> int:
        self._need(here, SEARCH, path)
        try:
            return os.open(name, _O_PATH, dir_fd=here)
        except OSError as e:
            raise self._why(e, here, path) from e

    def _limit(self, links: int, path: str) -> None:
        if links > MOST_LINKS:
            raise self.refused(f"{path} goes through more than {MOST_LINKS} links", "fix the links")

    def _need(self, fd: int, bit: int, path: str) -> None:
        info = os.fstat(fd)
        if bit == SEARCH and not stat.S_ISDIR(info.st_mode):
            raise self._missing(path)
        if self.who is not None and not self.who.may(bit, info.st_mode, info.st_uid, info.st_gid, _acl(fd)):
            raise self.refused(
                f"{self.who.user} may not {_do(bit, fd, path)}", "give files that you may read"
            )

    def _why(self, error: OSError, fd: int, path: str) -> InputError:
        """What the kernel refused this process at `fd` although the submitter may."""
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return self._missing(path)
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise error
        if error.errno not in (errno.EACCES, errno.EPERM):
            return self.refused(f"{path} cannot be read: {error.strerror}", "fix that file")
        bit = READ if stat.S_ISREG(os.fstat(fd).st_mode) else SEARCH
        me = name_of(os.geteuid())
        if self.who is None:
            return self.refused(f"{me} may not {_do(bit, fd, path)}", "give files that you may read")
        return UnreachableFileError(
            self.field,
            f"the daemon's user {me} may not {_do(bit, fd, path)}",
            "let it (chmod, setfacl), put the files elsewhere, or have jobs run as their owners: docs/install.md",
        )

    def _missing(self, path: str) -> InputError:
        return self.refused(f"there is no {path}", "give an existing file or folder")


def name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _acl(fd: int) -> bytes | None:
    try:
        return os.getxattr(f"/proc/self/fd/{fd}", "system.posix_acl_access")
    except OSError:  # none, or a file system that knows none
        return None


def _kernel_devices() -> set[int]:
    return {os.stat(path).st_dev for path in ("/proc", "/sys")}  # noqa: PTH116


def _do(bit: int, fd: int, path: str) -> str:
    info = os.fstat(fd)
    where = os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115
    what = where if where == path else f"{where} for {path}"
    rights = f"mode {stat.S_IMODE(info.st_mode):04o}, of {name_of(info.st_uid)}"
    return f"{'look into' if bit == SEARCH else 'read'} {what} ({rights})"
