"""Charges a host's energy to its live jobs and to the box, by CPU time; `carbonsched.power.cpu_share` states the rule."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from carbonsched.model.energy import Account, EnergyDelta
from carbonsched.power.attribution import Cut, share_by
from carbonsched.power.cpu_share import CpuUse, HostIdle, how, idle_part, parts_by_cpu
from carbonsched.supervisor.jobs.job_run import JobRun

_Charged = tuple[Cut, EnergyDelta]


@dataclass(frozen=True, slots=True)
class HostTick:
    """What is known of the hosts in one tick.

    Example:
        >>> HostTick().use is None
        True
    """

    idle_w: Mapping[str, float | None] = field(default_factory=dict)
    """Host → its idle power by its meter's model; None: the lowest power seen."""
    use: CpuUse | None = None
    """None: CPU time is unknown."""


@dataclass(slots=True)
class HostShares:
    """Remembers the lowest power of each host since the daemon began, and each job's last share.

    Example::

        rows = shares.charge(delta, [(cut, run)], piece, HostTick({"host": None}, use), "jobs")
    """

    least_w: dict[str, float] = field(default_factory=dict)
    last: dict[tuple[str, str], float] = field(default_factory=dict)
    """(host, job) → its share of the energy, 0 to 1."""

    def note(self, delta: EnergyDelta) -> None:
        if delta.power_w is not None and not delta.bridged:
            self.least_w[delta.device] = min(self.least_w.get(delta.device, delta.power_w), delta.power_w)

    def charge(
        self,
        delta: EnergyDelta,
        sharers: Sequence[tuple[Cut, JobRun]],
        piece: EnergyDelta,
        tick: HostTick,
        rule: HostIdle,
    ) -> list[_Charged] | None:
        """Charge a piece of `delta`, during which these jobs lived, to them and to the box; None if CPU time is unknown."""
        seconds, use = (delta.end - delta.start).total_seconds(), tick.use
        if not sharers or piece.energy_mj is None or delta.bridged or use is None or not use.covers(seconds):
            return None
        idle_w = tick.idle_w.get(delta.device)
        idle = idle_part(piece, self.least_w.get(delta.device, 0.0) if idle_w is None else idle_w)
        rates = [use.jobs_s.get(run.id, 0.0) / max(_lived_s(run, delta), 1e-3) for _, run in sharers]
        parts = parts_by_cpu(rates, use.others_s / use.seconds, idle, rule)
        for (_, run), part in zip(sharers, parts, strict=False):
            self.last[delta.device, run.id] = part
        first = sharers[0][0]
        owners = [*(cut for cut, _ in sharers), Cut(first.start, first.end, Account.IDLE, None, None, None)]
        return list(zip(owners, share_by(piece, parts, how(len(sharers), rule)), strict=True))

    def forget_all_but(self, live: Sequence[JobRun]) -> None:
        """Forget all other jobs."""
        ids = {run.id for run in live}
        self.last = {key: part for key, part in self.last.items() if key[1] in ids}


def _lived_s(run: JobRun, delta: EnergyDelta) -> float:
    """Seconds of a delta during which the job had its process."""

    def within(at: datetime | None, otherwise: datetime) -> datetime:
        return otherwise if at is None else min(max(at, delta.start), delta.end)

    process = run.process
    return (within(process.alive_to, delta.end) - within(process.alive_from, delta.start)).total_seconds()
