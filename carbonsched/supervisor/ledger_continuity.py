"""Compares the ledger with the job folders before the daemon starts, and refuses a ledger that knows less than they do.

A ledger that vanished, lost its write-ahead log or was restored from a backup would silently start over: the spending of its jobs would be
forgotten, and their running processes charged to nobody. The folders are evidence that owners cannot forge: only the daemon can write a
job's folder and these records in it. An interrupted submit leaves a folder without a process, and does not stop a ledger that is in use.
"""

import logging
import re
from collections.abc import Set
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from carbonsched.clock import Clock
from carbonsched.errors import InputError, LaunchError, LedgerError
from carbonsched.launch.base import Launcher
from carbonsched.ledger.database_file import FIELD, DatabaseFile, parsed_url
from carbonsched.ledger.ledger import Ledger
from carbonsched.model.files import read
from carbonsched.model.job import SubmittedJob
from carbonsched.supervisor.jobs.actors import DAEMON

log = logging.getLogger(__name__)

_SHOWN = 3
FLAG = "--new-ledger"
LEFT_BEHIND = "left_behind"
"""In the detail of the journal entry `began`: the jobs that were knowingly left behind when a ledger began, or went on."""
_OF_A_START = re.compile(r"(run|exit)(\.\d+)?\.json|events\.jsonl")
"""What a job's folder contains from its first start on."""
_JOB_ID = re.compile(r".+-[0-9a-f]{6}")


@dataclass(slots=True)
class _Folders:
    """The names found in the folder of job directories."""

    ran: set[str] = field(default_factory=set)
    """Folders in which a process was started."""
    waiting: set[str] = field(default_factory=set)
    """Folders of jobs that were only submitted, or that cannot be read."""
    problem: str = ""
    """Why the folder cannot be listed."""

    @property
    def every(self) -> set[str]:
        return self.ran | self.waiting


def check_file(url: str, jobs: Path, *, accept: bool) -> None:
    """Check before opening the ledger, which would create it. Raises InputError if it is missing while job folders exist; with `accept`, a
    leftover write-ahead log is moved aside."""
    file = DatabaseFile.of(parsed_url(url))
    if file is None or file.size():
        return
    if accept:
        file.set_log_aside()
        return
    found, gone = _look(jobs), f"{file.path} is {'empty' if file.path.exists() else 'not there'}"
    if found.problem:
        raise InputError(
            FIELD, f"{gone}, and {found.problem}", f"make it readable, or start once with {FLAG}"
        )
    if found.every:
        raise InputError(FIELD, f"{gone}, but folders of {_named(found.every)} are in {jobs}", _way_out(jobs))


def check_jobs(ledger: Ledger, jobs: Path, launcher: Launcher, clock: Clock, *, accept: bool) -> None:
    """Raise InputError if there are folders of jobs that the ledger does not know. With `accept` they are journalled, and their running
    processes asked to end, since nobody would meter them.

    An empty ledger was never in use, so it cannot have had an interrupted submit: any folder counts.
    """
    known, begun = _known(ledger), ledger.begun
    found = _look(jobs, known)
    if found.problem:
        log.warning("%s: whether the ledger knows all jobs cannot be told", found.problem)
    ran = {name for name in found.ran if _id(jobs / name) not in known}
    waiting = found.waiting
    lost = ran if begun else ran | waiting
    if lost and not ledger.lasting:
        log.warning("the ledger is in memory alone: what %s spent is forgotten", _named(lost))
    elif lost and not accept:
        less = "knows nothing of" if begun else "is empty, and knows nothing of"
        raise InputError(
            FIELD, f"the ledger {less} {_named(lost)}, whose folders are in {jobs}", _way_out(jobs)
        )
    elif waiting - lost:
        log.warning("%s: submitted, but the ledger never took it; submit again", _named(waiting - lost))
    if accept and not lost:
        log.warning("%s was not needed: without it a ledger that vanishes later is refused", FLAG)
    for name in sorted(lost):
        _leave(jobs / name, launcher)
    if (lost or not begun) and ledger.lasting:
        _note(ledger, lost, clock)


def _known(ledger: Ledger) -> set[str]:
    """Jobs in the ledger, and those knowingly left behind."""
    left = (entry.get(LEFT_BEHIND, ()) for entry in ledger.history(None, kinds=("began",)))
    return ledger.job_ids() | {str(name) for names in left for name in names}


def _note(ledger: Ledger, lost: set[str], clock: Clock) -> None:
    text = f"goes on without {_named(lost)}" if lost else "begins"
    if lost:
        log.warning("the ledger goes on without %s: what they spent is not in it", _named(lost))
    try:
        ledger.note(None, "began", {"text": text, LEFT_BEHIND: sorted(lost)}, DAEMON, clock.now())
    except LedgerError as e:  # a full disk: checked and journalled at the next start
        log.warning("%s", e)


def _leave(folder: Path, launcher: Launcher) -> None:
    try:
        if launcher.poll(folder).state == "running":
            log.warning("job %s still runs, and nobody meters it: it is told to end", folder.name)
            launcher.terminate(folder)
    except LaunchError as e:
        log.warning("%s", e)


def _look(jobs: Path, known: Set[str] = frozenset()) -> _Folders:
    """Sort the folders of unknown jobs."""
    found = _Folders()
    try:
        folders = [entry for entry in jobs.iterdir() if entry.name not in known and entry.is_dir()]
    except FileNotFoundError:
        return found
    except OSError as e:
        found.problem = f"{jobs} cannot be looked into: {e.strerror}"
        return found
    for folder in folders:
        try:
            names = {entry.name for entry in folder.iterdir()}
        except OSError:
            names = {"spec.json"} if _JOB_ID.fullmatch(folder.name) else set()
        if any(_OF_A_START.fullmatch(name) for name in names):
            found.ran.add(folder.name)
        elif "spec.json" in names:
            found.waiting.add(folder.name)
    return found


def _id(folder: Path) -> str:
    """The job id of a folder, which may be somebody's copy."""
    with suppress(OSError, ValidationError):
        return read(folder / "spec.json", SubmittedJob).id
    return folder.name


def _named(ids: set[str]) -> str:
    names = sorted(ids)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"job{'s' * (len(names) > 1)} {', '.join(names[:_SHOWN])}{more}"


def _way_out(jobs: Path) -> str:
    return (
        f"put the ledger back from its newest backup, or move these folders out of {jobs}, "
        f"or start once with {FLAG}: what they spent is then left out"
    )
