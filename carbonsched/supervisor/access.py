"""Decides who may ask the API for what: one table of operations, applied to the uid and groups that the kernel reports for the socket's
peer.

A *user* may submit: `api.users`, or without it the group `carbonsched` where the box has one, else whoever the socket's mode lets in. A
job's *owner*, the admins that `api.admins` names, root and the daemon's own user may see and change it. A caller over `api.tcp` without the
token is *anonymous*. Everybody else may read nothing.

A user who may not read a job still sees what explains the box's capacity and budget (`public_view`): owner, state, devices, watts, joules,
grams and times. The rest (reasons, which may hold paths; losses, ρ and progress; spec, log, history) is hidden.
"""

import grp
import logging
import os
import pwd
from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from carbonsched.errors import DeniedError
from carbonsched.model.job import Owner
from carbonsched.model.pools import PoolJob
from carbonsched.model.views import JobView

log = logging.getLogger(__name__)

USERS = "carbonsched"
"""The group whose members may submit if `api.users` is empty and the box has such a group."""


class Right(StrEnum):
    """The callers that an operation is open to. Each right includes those after it.

    Example:
        >>> OPERATIONS["cancel"].right
        <Right.OWNER: 'owner'>
    """

    USER = "user"
    OWNER = "owner"
    """The owner of the job in question, or an admin."""
    ADMIN = "admin"
    """An admin; root and the daemon's own user are admins too."""


class Operation(NamedTuple):
    """One operation, and who may ask for it.

    Example:
        >>> OPERATIONS["submit"].anonymous
        False
    """

    right: Right
    what: str
    """Completes the refusal: only … may `what`."""
    anonymous: bool = False
    """Open over TCP without the token: it changes nothing, reveals nothing private and costs little."""


_OTHERS = "(carbonsched ps shows everybody's)"
OPERATIONS: Final[Mapping[str, Operation]] = MappingProxyType(
    {
        "submit": Operation(Right.USER, "submit jobs"),
        "submitted": Operation(Right.USER, "submit jobs"),
        "explain": Operation(Right.USER, "ask what a job would cost"),
        "jobs": Operation(Right.USER, "list jobs", anonymous=True),
        "show": Operation(Right.OWNER, f"read job {{job}} {_OTHERS}"),
        "log": Operation(Right.OWNER, f"read job {{job}} {_OTHERS}"),
        "cancel": Operation(Right.OWNER, "cancel job {job}"),
        "pause": Operation(Right.OWNER, "pause job {job}"),
        "resume": Operation(Right.OWNER, "resume job {job}"),
        "remove": Operation(Right.OWNER, "remove job {job}"),
        "budget": Operation(Right.OWNER, "change the budget of job {job}"),
        "begin_run": Operation(Right.USER, "have a command metered"),
        "run_status": Operation(Right.OWNER, f"read run {{job}} {_OTHERS}"),
        "end_run": Operation(Right.OWNER, "end run {job}"),
        "import_log": Operation(Right.ADMIN, "import into the box's ledger"),
        "drain": Operation(Right.ADMIN, "drain the box"),
        "drained": Operation(Right.USER, "ask whether the box is drained"),
        "undrain": Operation(Right.ADMIN, "have the box start jobs again"),
        "job_report": Operation(Right.OWNER, f"read job {{job}} {_OTHERS}"),
        "report": Operation(Right.USER, "read the box's report"),
        "grid": Operation(Right.USER, "ask for the grid's intensity", anonymous=True),
        "pools": Operation(Right.USER, "list the pools", anonymous=True),
        "metrics": Operation(Right.USER, "read the metrics", anonymous=True),
        "audit": Operation(Right.USER, "have the ledger verified"),
        "audit_progress": Operation(Right.USER, "see how far that came"),
        "version": Operation(Right.USER, "ask for the version", anonymous=True),
        "openapi": Operation(Right.USER, "read the API's description", anonymous=True),
    }
)
"""Route name → operation. A route that is not listed is refused."""

_PRIVATE: dict[str, Any] = {
    "reason": "",
    "segment": None,
    "segments": None,
    "segments_over": None,
    "step": None,
    "steps": None,
    "rho": None,
    "loss": None,
    "starts_why": None,
    "labels": {},
}
"""Fields of a `JobView` that are blanked for callers who may not read the job."""


class Caller(Owner):
    """The caller, with the groups that the kernel reports for its process.

    Example:
        >>> Caller(uid=1000, gid=1000, user="ada", groups=(1000, 27)).groups
        (1000, 27)
    """

    groups: tuple[int, ...] | None = None
    """None: the kernel did not report them; the groups of the user's account count."""
    anonymous: bool = False
    """The caller came over TCP without the token."""

    @property
    def owner(self) -> Owner:
        """The owner that is recorded with a job this caller submits."""
        return Owner(uid=self.uid, gid=self.gid, pid=self.pid, user=self.user)


ANONYMOUS: Final = Caller(uid=-1, gid=-1, user="anonymous", groups=(), anonymous=True)


def allow(operation: str, actor: Owner, users: Iterable[str] | None, admins: Iterable[str]) -> None:
    """Raise DeniedError if `actor` may not ask for this of any job. Ownership of one job is checked by `check`."""
    asked = OPERATIONS[operation]
    if isinstance(actor, Caller) and actor.anonymous:
        if not asked.anonymous:
            raise DeniedError(
                f"nobody may {asked.what.format(job='ID')} over TCP without the token of api.token_file; use the socket"
            )
    elif not is_user(actor, users, admins):
        raise DeniedError(
            f"only users of carbonsched may {asked.what.format(job='ID')}, and {actor.user} is none: "
            f"join {_allowed_groups(users)}"
        )
    elif asked.right is Right.ADMIN and not reads_all(actor, admins):
        raise DeniedError(
            f"only an admin of carbonsched, root or the daemon's user may {asked.what}, you are {actor.user}"
        )


def is_user(actor: Owner, users: Iterable[str] | None, admins: Iterable[str]) -> bool:
    """Whether `actor` may submit jobs."""
    if users is None:
        if not _has_group(USERS):
            return True  # the socket's file mode has already let them in
        users = (f"@{USERS}",)
    return is_one(actor, users) or reads_all(actor, admins)


def reads_all(actor: Owner, admins: Iterable[str]) -> bool:
    """Whether `actor` may do with every job what its owner may."""
    return actor.uid in (0, os.getuid()) or is_one(actor, admins)


def reads(actor: Owner, owner: Owner, admins: Iterable[str]) -> bool:
    """Whether `actor` may read a job of `owner`."""
    return actor.uid == owner.uid or reads_all(actor, admins)


def check(operation: str, actor: Owner, owner: Owner, admins: Iterable[str], job_id: str) -> None:
    """Raises DeniedError that names who may."""
    if not reads(actor, owner, admins):
        what = OPERATIONS[operation].what.format(job=job_id)
        raise DeniedError(
            f"only {owner.user}, an admin of carbonsched, root or the daemon's user may {what}, you are {actor.user}"
        )


def public_view(view: JobView) -> JobView:
    """The part of a job that everybody may see; of its name only what its id shows."""
    return view.model_copy(update=_PRIVATE | {"name": _public_name(view.id)})


def public_pool_job(job: PoolJob) -> PoolJob:
    return job.model_copy(update={"reason": "", "name": _public_name(job.id)})


def warn_of_unknown(key: str, names: Iterable[str]) -> None:
    """Warn about names in the config that do not exist here: a misspelt user or group would silently have no rights."""
    for name in names:
        try:
            grp.getgrnam(name[1:]) if name.startswith("@") else pwd.getpwnam(name)
        except KeyError:
            kind = "group" if name.startswith("@") else "user"
            log.warning("%s: this box knows no %s %r: nobody gains by it", key, kind, name)


def is_one(actor: Owner, names: Iterable[str]) -> bool:
    """Whether `names` (users, and groups as `@name`) includes the caller."""
    names = tuple(names)
    if not names:
        return False
    try:
        user = pwd.getpwuid(actor.uid).pw_name
    except (KeyError, OverflowError):  # a uid without an account has no name to be listed by
        user = ""
    groups: set[int] | None = None
    for name in names:
        if not name.startswith("@"):
            if name == user:
                return True
            continue
        if groups is None:
            groups = _groups(actor, user)
        try:
            if grp.getgrnam(name[1:]).gr_gid in groups:
                return True
        except KeyError:
            continue
    return False


def _groups(actor: Owner, user: str) -> set[int]:
    if isinstance(actor, Caller) and actor.groups is not None:
        return {actor.gid, *actor.groups}
    return set(os.getgrouplist(user, actor.gid)) if user else {actor.gid}


def _has_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def _allowed_groups(users: Iterable[str] | None) -> str:
    groups = [name[1:] for name in users or (f"@{USERS}",) if name.startswith("@")]
    return f"the group {' or '.join(groups)}" if groups else "those whom api.users names"


def _public_name(job_id: str) -> str:
    return job_id.rpartition("-")[0] or job_id
