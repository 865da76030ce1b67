"""Checks at submit, and opens at start, the files that a job will read; both with the submitter's rights (`inputs`).

If the daemon is not root, jobs run as the daemon's user, which may read more than the submitter. So that nobody reads through a job what
they may not, the daemon opens its files at the start and passes the descriptors to the shim; the trainer reads them under `inputs/` of the
job's folder, not by names that somebody could redirect. If the daemon is root, the job's process runs as its owner, and the kernel checks
every file.
"""

import json
import logging
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from carbonsched.errors import InputError
from carbonsched.launch.inputs import close_all, make_room, open_all, wanted
from carbonsched.launch.rights import Who
from carbonsched.model.job import DATA_SUFFIXES, JobSpec, Owner

log = logging.getLogger(__name__)

FOLDER = "inputs"
LISTING = ".handed.json"
"""File in that folder that tells the shim which descriptor stands for which file."""
_TIMEOUT_S = 30.0
_CHILD = (
    "import sys; sys.path.insert(0, sys.argv[1]); from carbonsched.launch.inputs import main; "
    "sys.exit(main(sys.stdin.read()))"
)


@dataclass(frozen=True, slots=True)
class Handed:
    """The opened files of a job that is about to start.

    Example:
        >>> Handed().fds
        ()
    """

    fds: tuple[int, ...] = ()
    options: tuple[str, ...] = ()
    """Options for the shim."""


def runs_as_owner(owner: Owner) -> bool:
    """Whether a job's process runs as its owner, which only root can arrange."""
    return os.geteuid() == 0 and owner.uid != 0


def check_readable(spec: JobSpec, owner: Owner, python: str) -> None:
    """Raise InputError if `owner`, or the user that the job runs as, may not read what `spec` names on this box."""
    wants = wanted(spec)
    if not wants:
        return
    if runs_as_owner(owner):
        _ask_as_owner(json.dumps([wants, DATA_SUFFIXES]), owner, python)
    else:
        open_all(wants, Who.of(owner.user, owner.uid, owner.gid), DATA_SUFFIXES, keep=False)


@contextmanager
def handed_over(job_dir: Path, spec: JobSpec | None, owner: Owner) -> Iterator[Handed]:
    """The opened files for the shim; closed here once the shim has them. Raises InputError, OSError."""
    folder = job_dir / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    # the daemon's user has its own rights either way, and an owner's process the owner's
    if spec is None or owner.uid == os.geteuid() or os.geteuid() == 0:
        yield Handed()
        return
    make_room()
    opened = open_all(wanted(spec), Who.of(owner.user, owner.uid, owner.gid), DATA_SUFFIXES)
    try:
        fds = {}
        for found in opened:
            file = folder / found.name
            file.parent.mkdir(parents=True, exist_ok=True)
            if found.copy is not None:
                file.write_bytes(found.copy)
            else:
                fds[found.name] = found.fd
        if fds:
            (folder / LISTING).write_text(json.dumps(fds), encoding="utf-8")
        yield Handed(tuple(fds.values()), ("--inputs", str(folder / LISTING)) if fds else ())
    finally:
        close_all(opened)


def _ask_as_owner(text: str, owner: Owner, python: str) -> None:
    who = Who.of(owner.user, owner.uid, owner.gid)
    try:
        done = subprocess.run(
            [python, "-I", "-S", "-c", _CHILD, str(Path(__file__).parents[2])],
            input=text,
            capture_output=True,
            text=True,
            cwd="/",
            env={},
            user=owner.uid,
            group=owner.gid,
            extra_groups=sorted(who.groups),
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as e:
        raise InputError(
            "",
            f"the job's files did not answer within {_TIMEOUT_S:g} s",
            "see whether their file system is there",
        ) from e
    except OSError as e:  # the interpreter is where the owner may not look: the job itself will report that
        log.warning("what %s may read was not checked: %s", owner.user, e)
        return
    if done.returncode == 1 and done.stdout:
        raise InputError(*json.loads(done.stdout))
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        log.warning("what %s may read was not checked: exit code %d, %s", owner.user, done.returncode, last)
