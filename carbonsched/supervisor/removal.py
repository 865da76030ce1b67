"""Removes the folders of jobs that are over, on request and by `[retention]`. The ledger keeps what it knows of them.

A removal is journalled first, so that nobody resumes the job meanwhile; a folder that cannot be deleted is retried every hour.
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
    """Delete the folder of a job that is over. Raises StateError if the job is not over, or if the folder cannot be deleted."""
    with supervisor.lock:
        row = supervisor.ledger.job(job_id)
        if job_id in supervisor.runs or not row.state.ended:
            raise StateError(f"job {job_id} is {row.state}; carbonsched cancel {job_id} ends it")
        if job_id not in supervisor.ledger.removed_ids():
            supervisor.ledger.note(job_id, "removed", {"reason": reason}, actor, supervisor.clock.now())
            supervisor.starter.forget(job_id)
            log.info("job %s: %s", job_id, reason)
    return Removed(id=job_id, freed_bytes=_delete(supervisor, job_id))


def refuse_removed(ledger: Ledger, job_id: str) -> None:
    """Raise StateError for a job that was removed: it cannot be resumed."""
    if job_id in ledger.removed_ids():
        raise StateError(f"job {job_id} was removed with its checkpoints; submit it again")


@dataclass(slots=True)
class Pruning:
    """Removes, once an hour, the folders that `[retention]` selects, and those that an earlier removal could not delete.

    Example::

        Pruning(supervisor).poll()  # every second or so
    """

    supervisor: Supervisor
    _due_s: float = 0.0

    def poll(self) -> None:
        """Never raises; failures are retried in an hour."""
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
            except CarbonschedError as e:  # one that cannot be deleted must not delay the others
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
    """As `delete_folder`, and as the job's owner for folders that are closed to the daemon."""
    path = supervisor.job_dir(job_id)
    if closed := _closed(path):
        try:
            supervisor.launcher.open_written(path, supervisor.ledger.job(job_id).owner)
        except LaunchError as e:  # the account may be gone
            log.warning(
                "job %s: %s is closed to the daemon, and its owner's rights are not to be had: %s",
                job_id,
                closed,
                e,
            )
    return delete_folder(path)


def delete_folder(path: Path) -> int:
    """Delete a folder and return the bytes it held on disk. Links in it are not followed. Raises StateError that says who can delete the rest."""
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
    """Why a folder is still there, and who can delete it."""
    text = f"{path} cannot be deleted: {error.strerror}"
    if (each := _closed(path)) is None:
        return text
    owner, me = name_of(each.lstat().st_uid), name_of(os.geteuid())
    return (
        f"{text}: {each.relative_to(path)} in it is {owner}'s, and closed to {me}; "
        f"{owner} opens it with chmod -R a+rwX {each}, or root deletes it"
    )


def _closed(path: Path) -> Path | None:
    """A folder in it that this process may not empty."""
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
