"""Energy that other tools measured in the past, on its way into the ledger: kept apart from what is metered here."""

from typing import Annotated

from pydantic import Field

from carbonsched.model.base import Doc, UtcTime
from carbonsched.model.grid import Basis


class ImportedPart(Doc):
    """What one part of a box used in a run.

    Example:
        >>> ImportedPart(name="gpu", energy_mj=3_600_000).energy_mj / 3.6e9
        0.001
    """

    name: Annotated[str, Field(min_length=1, max_length=40)]
    energy_mj: Annotated[int, Field(ge=0, le=2**62)]
    """Without PUE."""


class ImportedRun(Doc):
    """One run of another tool's log.

    Example::

        runs = codecarbon.read(Path("emissions.csv"), zone)
        print(runs[0].key, runs[0].g_per_kwh)
    """

    key: Annotated[str, Field(min_length=1, max_length=80)]
    """Names it for good: a second import of it is no second run."""
    name: str
    start: UtcTime
    end: UtcTime
    parts: Annotated[tuple[ImportedPart, ...], Field(min_length=1)]
    pue: Annotated[float, Field(ge=1)] = 1.0
    g_per_kwh: Annotated[float, Field(ge=0, le=5000)] | None = None
    """None: the log does not say, and nobody else did."""
    zone: str = ""
    tool: str
    """With its version, where the log says it."""
    where: str
    """File and line."""


class ImportBody(Doc):
    """Body of POST /v1/imports.

    Example:
        >>> ImportBody(source="zeus", file="log.csv", sha256="0" * 64, basis="average-unstated", runs=[]).runs
        ()
    """

    source: str
    file: str
    sha256: str
    basis: Basis
    runs: tuple[ImportedRun, ...]
    left_out: int = 0
    """Lines that stand for no run of their own: earlier states of one, windows inside another."""


class Imported(Doc):
    """`import`: what was booked.

    Example:
        >>> Imported(source="zeus", runs=0, rows=0, energy_j=0, grams=None, known=3, changed=[], left_out=0,
        ...     metered_beside_j=0).known
        3
    """

    source: str
    runs: int
    rows: int
    energy_j: float
    grams: float | None
    """None: of no run the intensity is known."""
    known: int
    """Runs that had been imported before, and were not again."""
    changed: tuple[str, ...]
    """Of these, those that now say something else: what was booked first stands."""
    left_out: int
    metered_beside_j: float
    """What was metered here in the same hours: counted twice where the log is of this very box."""
