"""Makes the id of a new job, and resolves a reference to a job: its id, the first letters of the id, its name, or `latest`.

An exact id wins over a name, and a name over first letters. An ambiguous reference is refused with the ids it fits, since a cancel must not
guess. `latest` is the caller's most recently submitted job.
"""

from collections.abc import Sequence
from pathlib import Path
from secrets import token_hex
from typing import Final

from carbonsched.errors import InputError, NotFoundError, StateError
from carbonsched.ledger.ledger import Ledger

LATEST = "latest"
_TOLD = 5
"""Ids that a refusal lists."""
_NAME_LETTERS: Final = 40
"""Letters of a job's name that its id begins with."""
_BYTES: Final = 3
"""Bytes of the random number that the id ends with."""
_TRIES: Final = 1000


def make_folder(jobs: Path, name: str, ledger: Ledger) -> Path:
    """Make the empty folder of a new job, named by its id, which no other job has or had. Raises StateError."""
    for _ in range(_TRIES):
        path = jobs / f"{name[:_NAME_LETTERS]}-{token_hex(_BYTES)}"
        if ledger.has_job(path.name):
            continue
        try:
            path.mkdir(parents=True, mode=0o700)
        except FileExistsError:
            continue
        except OSError as e:
            problem = f"no folder can be made in {jobs}: {e.strerror}; free space there, then ask again"
            raise StateError(problem) from e
        return path
    raise StateError(
        f"of {_TRIES} ids that were drawn for {name} all are of other jobs; give it another name"
    )


def by_long_name(reference: str, ledger: Ledger) -> tuple[str, ...]:
    """Ids of the jobs with exactly this name, of which their ids contain only the beginning; newest first."""
    if len(reference) <= _NAME_LETTERS:
        return ()
    ids = ledger.ids_like(f"{reference[:_NAME_LETTERS]}-")
    return tuple(job_id for job_id in ids if ledger.job(job_id).spec.name == reference)


def pick(reference: str, ids: Sequence[str]) -> str:
    """The one of `ids` (newest first) that `reference` means. Raises NotFoundError, and InputError if it fits several.

    Example:
        >>> pick("sci", ["scitldr-7f3a1c", "dialogsum-0b1e22"])
        'scitldr-7f3a1c'
        >>> pick("sci", ["scitldr-7f3a1c", "scitldr-0b1e22"])
        Traceback (most recent call last):
        carbonsched.errors.InputError: ID: sci fits 2 jobs: scitldr-7f3a1c, scitldr-0b1e22; give more of the id, or latest
    """
    if reference in ids:
        return reference
    named = [job_id for job_id in ids if job_id.rpartition("-")[0] == reference[:_NAME_LETTERS]]
    fitting = named or [job_id for job_id in ids if reference and job_id.startswith(reference)]
    if not fitting:
        raise NotFoundError(f"there is no job {reference}; carbonsched ps lists them")
    if len(fitting) > 1:
        told = ", ".join(fitting[:_TOLD]) + (", …" if len(fitting) > _TOLD else "")
        problem = f"{reference} fits {len(fitting)} jobs: {told}"
        raise InputError("ID", problem, "give more of the id, or latest")
    return fitting[0]
