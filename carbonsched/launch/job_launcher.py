"""Starts one job as the user who submitted it, and holds it: what carbonsched-job@.service runs, from files that are root's.

    python -I -m carbonsched.launch.job_launcher INSTANCE [FOLDER]

It begins as the daemon's user with three capabilities: two to become another user, and one to signal that user's processes. What
to start the daemon wrote to FOLDER/INSTANCE.json, and it says there for which uid, as the kernel told it of the submitter. Whatever
that file says, the job becomes a user of this box with a uid of 1000 or more, of the daemon's group, with the groups and
the home of the accounts and not of the file; anything else is refused (exit code 3). So a broken daemon can act as a member of its
group, and as nobody else.

Nothing of the job's owner is opened here: the process that does is the owner's by then, without a capability. The
one that stays is the job's shim (`shim`): the daemon's user, with the right to signal and no other.

Standard library only, as the shim is.
"""

import grp
import json
import os
import pwd
import re
import stat
import sys
from typing import Any, NamedTuple

from carbonsched.launch import shim
from carbonsched.systemd_notify import Notifier

STARTS = "/run/carbonsched/starts"
"""Where the daemon writes what to start; only its user has access."""
UID_FROM = 1000
"""Lower uids are the system's own users."""
REFUSED = 3
_MOST_BYTES = 1 << 20
_INSTANCE = re.compile(r"[0-9a-z-]{1,128}")


class RefusedError(Exception):
    """The request may not be started; the message says why.

    Example:
        >>> str(RefusedError("uid 0 is one of the system's"))
        "uid 0 is one of the system's"
    """


class Account(NamedTuple):
    """The account that a job runs as.

    Example:
        >>> Account("ada", 1000, 1000, (1000, 994), "/home/ada", "/bin/bash").ids
        (1000, 1000, (1000, 994))
    """

    user: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str

    @property
    def ids(self) -> shim.Ids:
        return self.uid, self.gid, self.groups

    @property
    def environment(self) -> dict[str, str]:
        return {"HOME": self.home, "USER": self.user, "LOGNAME": self.user, "SHELL": self.shell}


class Start(NamedTuple):
    """What the daemon wants started.

    Example:
        >>> Start("/var/lib/carbonsched/jobs/tiny-7f3a1c", 1000, ["python"], {}, 4096).uid
        1000
    """

    job_dir: str
    uid: int
    argv: list[str]
    env: dict[str, str]
    log_bytes: int


def instance_of(job_id: str) -> str:
    """The part of a unit's name that stands for a job.

    Example:
        >>> instance_of("My_job.v2-7f3a1c")
        'my-job-v2-7f3a1c'
    """
    return re.sub(r"[^0-9a-z-]", "-", job_id.lower())


def account_of(uid: int, group: int) -> Account:
    """The account of a uid that a job may run as; group: its members may. Raises RefusedError."""
    if uid < UID_FROM:
        raise RefusedError(f"uid {uid} is one of the system's, below {UID_FROM}: jobs are people's")
    if uid == os.geteuid():
        raise RefusedError(f"uid {uid} is the daemon's own")
    try:
        found = pwd.getpwuid(uid)
    except KeyError:
        raise RefusedError(f"uid {uid} has no account here") from None
    groups = os.getgrouplist(found.pw_name, found.pw_gid)
    if group not in groups:
        raise RefusedError(f"{found.pw_name} is not in the group {_name(group)}")
    return Account(found.pw_name, uid, found.pw_gid, tuple(groups), found.pw_dir, found.pw_shell)


def read_start(folder: str, instance: str) -> Start:
    """Read the daemon's request for this unit. Raises RefusedError, OSError."""
    if os.geteuid() == 0:
        raise RefusedError("User= of the unit must be the daemon's, not root")
    if not _INSTANCE.fullmatch(instance):
        raise RefusedError(f"{instance!r} is no name of a job's unit")
    fd = os.open(f"{folder}/{instance}.json", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o077:
            raise RefusedError("what is to be started is no file of the daemon's alone")
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise RefusedError("what is to be started is longer than a mebibyte")
    start = parse(content)
    if instance_of(start.job_dir.rpartition("/")[2]) != instance:
        raise RefusedError(f"{start.job_dir} is not the folder of {instance}")
    info = os.lstat(start.job_dir)
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid():
        raise RefusedError(f"{start.job_dir} is no folder of the daemon's")
    return start


def parse(content: bytes) -> Start:
    """Raises RefusedError if it is not in the daemon's format."""
    try:
        document: Any = json.loads(content)
        start = Start(**document)
    except (ValueError, TypeError, RecursionError):
        raise RefusedError("what is to be started cannot be read") from None
    numbers = all(type(number) is int for number in (start.uid, start.log_bytes))
    if not numbers or start.log_bytes < 1 or not 0 <= start.uid < 2**32 - 1:
        raise RefusedError("uid and log_bytes must be whole numbers")
    if not isinstance(start.argv, list) or not start.argv or not all(map(_plain, start.argv)):
        raise RefusedError("argv must be a list of words")
    if not isinstance(start.env, dict) or not all(
        _plain(key) and "=" not in key and _plain(value) for key, value in start.env.items()
    ):
        raise RefusedError("env must be names and values")
    if not _plain(start.job_dir) or start.job_dir != os.path.realpath(start.job_dir):
        raise RefusedError("job_dir must be a whole path without links")
    return start


def _plain(text: Any) -> bool:
    return isinstance(text, str) and "\0" not in text


def _name(group: int) -> str:
    try:
        return grp.getgrgid(group).gr_name
    except KeyError:
        return str(group)


def main(arguments: list[str]) -> int:
    if len(arguments) not in (1, 2):
        sys.stderr.write("usage: job_launcher INSTANCE [FOLDER]\n")
        return 2
    notifier = Notifier.from_env()
    try:
        start = read_start(arguments[1] if len(arguments) == 2 else STARTS, arguments[0])
        account = account_of(start.uid, os.getegid())
        env = start.env | account.environment
        shim.hold(
            start.job_dir,
            start.argv,
            env,
            notifier.ready,
            ids=account.ids,
            log_bytes=start.log_bytes,
        )
    except RefusedError as e:
        sys.stderr.write(f"carbonsched: refused: {e}\n")
        return REFUSED
    except OSError as e:
        sys.stderr.write(f"carbonsched: {arguments[0]} ends: {e}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
