"""Who may see and change a job: its owner, root, the daemon's own user, and the admins that `api.admins` names.

Everybody else who can open the socket sees of it what the box's capacity and budget are made of (`public_view`): whose it is,
its state, its devices, watts, joules, grams and times. What its owner wrote or what came of it (reasons, which may hold paths;
losses, ρ and progress; spec, log, history) is not theirs to read.
"""

import grp
import logging
import os
import pwd
from collections.abc import Iterable
from typing import Any

from carbonsched.errors import DeniedError
from carbonsched.model.job import Owner
from carbonsched.model.views import JobView, PoolJob

log = logging.getLogger(__name__)

_PRIVATE: dict[str, Any] = {
    "reason": "",
    "segment": None,
    "segments": None,
    "segments_over": None,
    "step": None,
    "steps": None,
    "rho": None,
    "loss": None,
    "labels": {},
}
"""Fields of a `JobView` that are shown as not known to those who may not read the job."""


def reads_all(actor: Owner, admins: Iterable[str]) -> bool:
    """Whether `actor` may do with every job all that its owner may."""
    return actor.uid in (0, os.getuid()) or _is_admin(actor, admins)


def check(actor: Owner, owner: Owner, admins: Iterable[str], what: str = "do this") -> None:
    """Raises DeniedError that names who may."""
    if actor.uid != owner.uid and not reads_all(actor, admins):
        raise DeniedError(
            f"only {owner.user}, an admin of carbonsched, root or the daemon's user may {what}, you are {actor.user}"
        )


def public_view(view: JobView) -> JobView:
    """What of it everybody may see; the name is what the id shows of it."""
    return view.model_copy(update=_PRIVATE | {"name": _public_name(view.id)})


def public_pool_job(job: PoolJob) -> PoolJob:
    return job.model_copy(update={"reason": "", "name": _public_name(job.id)})


def warn_of_unknown(admins: Iterable[str]) -> None:
    """A misspelt admin has no rights, silently, unless somebody says so."""
    for name in admins:
        try:
            grp.getgrnam(name[1:]) if name.startswith("@") else pwd.getpwnam(name)
        except KeyError:
            kind = "group" if name.startswith("@") else "user"
            log.warning("api.admins: this box knows no %s %r: nobody is an admin by it", kind, name)


def _public_name(job_id: str) -> str:
    return job_id.rpartition("-")[0] or job_id


def _is_admin(actor: Owner, admins: Iterable[str]) -> bool:
    admins = tuple(admins)
    if not admins:
        return False
    try:
        user = pwd.getpwuid(actor.uid).pw_name
        groups = set(os.getgrouplist(user, actor.gid))
    except KeyError:  # a uid without an account is in no group but its own, and has no name to be listed by
        user, groups = "", {actor.gid}
    for name in admins:
        if name.startswith("@"):
            try:
                if grp.getgrnam(name[1:]).gr_gid in groups:
                    return True
            except KeyError:
                continue
        elif name == user:
            return True
    return False
