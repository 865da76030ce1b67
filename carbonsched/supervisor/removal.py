"""Takes away the folders of jobs that are over: on request, and by `[retention]`. What the ledger knows of them stays.

A removal is noted first, so that nobody resumes the job meanwhile; a folder that could not be deleted is tried again every hour.
"""

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final

from carbonsched.errors import CarbonschedError, LaunchError, StateError
from carbonsched.launch.rights import name_of
from carbonsched.ledger.ledger import Ledger
from carbonsched.model.upkeep import Removed
from carbonsched.supervisor.job_views import PAGE
from carbonsched.supervisor.jobs.actors import DAEMON
from carbonsched.supervisor.supervisor import Supervisor

EVERY_S: Final = 3600.0

log = logging.getLogger(__name__)


def remove(supervisor: Supervisor, job_id: str, actor: str, reason: str) -> Removed:
    """Delete the folder of a job that is over. Raises StateError where it is not, or where the folder cannot be deleted."""
    with supervisor.lock:
        row = supervisor.ledger.job(job_id)
        if job_id in supervisor.runs or not row.state.ended:
            raise StateError(f"job {job_id} is {row.state}; carbonsched cancel {job_id} ends it")
        if job_id not in supervisor.ledger.removed_ids():
            supervisor.ledger.note(job_id, "removed", {"reason": reason}, actor, supervisor.clock.now())
            log.info("job %s: %s", job_id, reason)
    return Removed(id=job_id, freed_bytes=_delete(supervisor, job_id))


def refuse_removed(ledger: Ledger, job_id: str) -> None:
    """Raises StateError for a job that was removed: it cannot go on."""
    if job_id in ledger.removed_ids():
        raise StateError(f"job {job_id} was removed with its checkpoints; submit it again")


@dataclass(slots=True)
class Pruning:
    """Removes, once an hour, what `[retention]` says, and the folders that a removal had to leave.

    Example::

        Pruning(supervisor).poll()  # every second or so
    """

    supervisor: Supervisor
    _due_s: float = 0.0

    def poll(self) -> None:
        """Never raises: what cannot be done now is tried again in an hour."""
        now_s = self.supervisor.clock.monotonic()
        if now_s < self._due_s:
            return
        self._due_s = now_s + EVERY_S
        try:
            found = [*self._left(), *self._old()]
        except CarbonschedError as e:
            log.warning("old jobs are not removed now: %s", e)
            return
        for removal in found:
            try:
                removal()
            except CarbonschedError as e:  # one that cannot be deleted holds up no other
                log.warning("an old job is not removed now: %s", e)

    def _left(self) -> list[Callable[[], object]]:
        removed = sorted(self.supervisor.ledger.removed_ids())
        left = [job_id for job_id in removed if self.supervisor.job_dir(job_id).exists()]
        return [partial(_delete, self.supervisor, job_id) for job_id in left]

    def _old(self) -> list[Callable[[], object]]:
        supervisor, kept = self.supervisor, self.supervisor.config.retention
        if kept.after is None:
            return []
        before = supervisor.clock.now() - timedelta(seconds=kept.after)
        ids, _ = supervisor.ledger.listed(None)
        pages = (ids[at : at + PAGE] for at in range(0, len(ids), PAGE))
        return [
            partial(
                remove, supervisor, row.id, DAEMON, f"removed: {row.state} longer ago than retention.after"
            )
            for row in chain.from_iterable(map(supervisor.ledger.records, pages))
            if row.state in kept.states and row.ended_at is not None and row.ended_at < before
        ]


def _delete(supervisor: Supervisor, job_id: str) -> int:
    """As `delete_folder`, with the help of the job's owner where it has closed a folder to us."""
    path = supervisor.job_dir(job_id)
    if closed := _closed(path):
        try:
            supervisor.launcher.open_written(path, supervisor.ledger.job(job_id).owner)
        except LaunchError as e:  # the account is gone, say
            log.warning(
                "job %s: %s is closed to the daemon, and its owner's rights are not to be had: %s",
                job_id,
                closed,
                e,
            )
    return delete_folder(path)


def delete_folder(path: Path) -> int:
    """Bytes that it held on the disk. Links in it are not followed. Raises StateError with who can delete what is left."""
    try:
        freed = sum(_bytes(Path(folder) / name) for folder, _, names in os.walk(path) for name in names)
        shutil.rmtree(path)
    except FileNotFoundError:
        return 0
    except OSError as e:
        raise StateError(f"{_why_left(path, e)}; it is tried again every hour") from e
    except RecursionError as e:
        raise StateError(
            f"{path} cannot be deleted: its folders lie too deep in each other; rm -r does it"
        ) from e
    return freed


def _why_left(path: Path, error: OSError) -> str:
    """Why a folder is still there, and who can do something about it."""
    text = f"{path} cannot be deleted: {error.strerror}"
    if (each := _closed(path)) is None:
        return text
    owner, me = name_of(each.lstat().st_uid), name_of(os.geteuid())
    return (
        f"{text}: {each.relative_to(path)} in it is {owner}'s, and closed to {me}; "
        f"{owner} opens it with chmod -R a+rwX {each}, or root deletes it"
    )


def _closed(path: Path) -> Path | None:
    """A folder in it that this process cannot empty."""
    for folder, names, _ in os.walk(path):
        for each in (Path(folder) / name for name in names):
            if not each.is_symlink() and not os.access(each, os.R_OK | os.W_OK | os.X_OK):
                return each
    return None


def _bytes(path: Path) -> int:
    try:
        return path.lstat().st_blocks * 512
    except OSError:
        return 0
