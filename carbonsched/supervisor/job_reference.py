"""Finds the job that a person means: by its id, the first letters of it, its name, or as `latest`.

An exact id wins over a name, a name over first letters. What fits several jobs is refused with their ids: a cancel must not
guess. `latest` is the caller's own job that was submitted last.
"""

from collections.abc import Sequence

from carbonsched.errors import InputError, NotFoundError

LATEST = "latest"
_TOLD = 5
"""Ids that a refusal lists."""


def pick(reference: str, ids: Sequence[str]) -> str:
    """The one of `ids` that `reference` means; they are newest first. Raises NotFoundError, InputError for several.

    Example:
        >>> pick("sci", ["scitldr-7f3a1c", "dialogsum-0b1e22"])
        'scitldr-7f3a1c'
        >>> pick("sci", ["scitldr-7f3a1c", "scitldr-0b1e22"])
        Traceback (most recent call last):
        carbonsched.errors.InputError: ID: sci fits 2 jobs: scitldr-7f3a1c, scitldr-0b1e22; give more of the id, or latest
    """
    if reference in ids:
        return reference
    named = [job_id for job_id in ids if job_id.rpartition("-")[0] == reference]
    fitting = named or [job_id for job_id in ids if reference and job_id.startswith(reference)]
    if not fitting:
        raise NotFoundError(f"there is no job {reference}; carbonsched ps lists them")
    if len(fitting) > 1:
        told = ", ".join(fitting[:_TOLD]) + (", …" if len(fitting) > _TOLD else "")
        problem = f"{reference} fits {len(fitting)} jobs: {told}"
        raise InputError("ID", problem, "give more of the id, or latest")
    return fitting[0]
