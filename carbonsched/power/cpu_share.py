"""Shares the energy of a host among its jobs by their CPU time. Pure.

A host's idle power is separated from its active energy. The active part is shared by CPU time; the share of other processes is the box's.
The config decides who pays the idle part (`power.host_idle`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from carbonsched.model.energy import EnergyDelta
from carbonsched.units import MJ_PER_J

HostIdle = Literal["jobs", "box"]
"""Who pays the host's idle energy: the live jobs in equal parts, or no job."""
_LONGER = 1.5
"""CPU time is not used for a stretch longer than this many times the one it was measured in."""


@dataclass(frozen=True, slots=True)
class CpuUse:
    """CPU seconds used during one stretch of time.

    Example:
        >>> CpuUse(seconds=1.0, jobs_s={"a-1": 0.9}, others_s=0.1).covers(60.0)
        False
    """

    seconds: float
    """Length of the stretch."""
    jobs_s: Mapping[str, float]
    """By job."""
    others_s: float
    """Of everything else on the box."""

    def covers(self, seconds: float) -> bool:
        """Whether it applies to a delta of that length."""
        return 0 < seconds <= _LONGER * self.seconds + 1.0


def idle_part(piece: EnergyDelta, idle_w: float) -> float:
    """The idle part, 0 to 1, of a piece's energy for a host that draws `idle_w` watts when nothing runs."""
    seconds = (piece.end - piece.start).total_seconds()
    if not piece.energy_mj or piece.energy_mj < 0:
        return 1.0
    return min(max(idle_w, 0.0) * seconds * MJ_PER_J / piece.energy_mj, 1.0)


def parts_by_cpu(jobs: Sequence[float], others: float, idle: float, rule: HostIdle) -> list[float]:
    """The part of the energy that each job gets, and last the box; their sum is 1.

    jobs, others: CPU time of each job and of everything else over the same stretch. idle: the idle part, 0 to 1. If nobody used any time,
    the active part is the box's.

    Example:
        >>> parts_by_cpu([3.0, 0.0], 1.0, 0.5, "jobs")
        [0.625, 0.25, 0.125]
        >>> parts_by_cpu([3.0, 0.0], 1.0, 0.5, "box")
        [0.375, 0.0, 0.625]
    """
    busy, each = sum(jobs) + others, idle / len(jobs) if rule == "jobs" and jobs else 0.0
    found = [each + ((1 - idle) * used / busy if busy > 0 else 0.0) for used in jobs]
    return [*found, max(1.0 - sum(found), 0.0)]


def how(jobs: int, rule: HostIdle) -> str:
    """The words for rows; `shared` and `split by` mark them as lying side by side."""
    if rule == "box":
        return "split by CPU time, the idle share is the box's"
    return f"split by CPU time, the idle share shared by {jobs} job{'' if jobs == 1 else 's'}"
