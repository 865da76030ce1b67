"""Turns the meter's deltas into ledger rows: whose energy it was and at which intensity, split without losing a millijoule.

A delta is cut where a job starts or ends, a segment changes, or the intensity or price changes. Pieces that agree in all of these are
joined into one open row per device, until that is `row_s` old. A kill -9 loses open rows but no energy, since the counter is read on from
the last written row; hence a device's very first row is written at once.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

from carbonsched.config import Config
from carbonsched.feeds.chain import Chain
from carbonsched.feeds.value_chain import ValueChain
from carbonsched.model.energy import Account, EnergyDelta, Interval
from carbonsched.model.grid import Price, Reading, Supply
from carbonsched.power.attribution import Cut, estimate, share, share_by, split
from carbonsched.power.base import Mark
from carbonsched.supervisor.host_shares import HostShares, HostTick
from carbonsched.supervisor.jobs.job_run import JobRun
from carbonsched.supervisor.jobs.process_state import BoardPart
from carbonsched.supervisor.pue_watch import PueWatch
from carbonsched.supervisor.supply_shares import SupplyShares
from carbonsched.supervisor.value_window import ValueWindow
from carbonsched.units import MJ_PER_J, grams

NOBODY: Mapping[str, str] = {}
_NO_HOST = HostTick()
_WHOLE = 1e-9
"""Shares whose sum is this close to all leave no remainder."""


@dataclass(frozen=True, slots=True)
class _Known:
    """The feeds' values during a tick; None: there are no deltas, or no such feed."""

    grid: ValueWindow[Reading] | None
    prices: ValueWindow[Price] | None


@dataclass(slots=True)
class Metering:
    """Charges metered energy to jobs, or to idle time.

    Example::

        pieces, rows = metering.charge(meter.read(), live_runs)
        ledger.append(rows)
    """

    config: Callable[[], Config]
    """The current config: SIGHUP may change it."""
    chain: Chain
    pue: PueWatch
    supply_shares: SupplyShares = field(default_factory=SupplyShares)
    open: dict[tuple[str, str | None], Interval] = field(default_factory=dict)
    """The open row of each (device, job)."""
    watts: dict[str, float | None] = field(default_factory=dict)
    """Last known power of each device."""
    peak_w: dict[str, float] = field(default_factory=dict)
    """The highest power of each device since the daemon began."""
    idle_w: dict[str, float] = field(default_factory=dict)
    """Power of each device that no job uses, as a slow mean."""
    prices: ValueChain[Price] | None = None
    reach: dict[str, datetime] = field(default_factory=dict)
    """The time up to which each device is accounted for."""
    host_shares: HostShares = field(default_factory=HostShares)

    def resume(self, marks: Mapping[str, Mark]) -> None:
        """Continue where the ledger ends."""
        self.reach.update({device: mark.at for device, mark in marks.items()})
        least_w = {device: mark.least_w for device, mark in marks.items()}
        self.host_shares.least_w.update({device: w for device, w in least_w.items() if w is not None})

    def charge(
        self,
        deltas: Sequence[EnergyDelta],
        runs: Sequence[JobRun],
        strangers: Mapping[str, str] = NOBODY,
        hosts: HostTick = _NO_HOST,
    ) -> tuple[list[Interval], list[Interval]]:
        """Charge new deltas. Returns the new pieces, and the rows that are now complete, ordered by time. strangers: device → other users
        of it, in words. hosts: which devices are hosts, and the CPU time of the same stretch."""
        pieces: list[Interval] = []
        complete: list[Interval] = []
        self.supply_shares.begin(deltas)
        known = self._known(deltas)
        first = {delta.device for delta in deltas} - self.reach.keys()
        cut: list[tuple[EnergyDelta, list[tuple[Cut, EnergyDelta]]]] = []
        for delta in deltas:
            self.watts[delta.device], self.reach[delta.device] = delta.power_w, delta.end
            self.peak_w[delta.device] = max(self.peak_w.get(delta.device, 0.0), delta.power_w or 0.0)
            if delta.device in hosts.idle_w:
                self.host_shares.note(delta)
            here = [run for run in runs if delta.device in run.process.devices]
            stretches = self._cut_up(delta, here, known)
            cut.append((delta, list(self._charged(delta, stretches, strangers.get(delta.device), hosts))))
        # all devices share one supply, so all have to be read before its share is known
        supplies = iter(
            self.supply_shares.given([part for _, parts in cut for _, part in parts], self.pue.applied().pue)
        )
        for delta, parts in cut:
            for owner, part in parts:
                piece = self._interval(owner, part, next(supplies), known)
                pieces.append(piece)
                complete += self._add(piece, delta.device in first)
            complete += self._close(delta)
        return pieces, sorted(complete, key=lambda row: (row.delta.device, row.delta.start))

    def lags(self, devices: Sequence[str], at: datetime) -> bool:
        """Whether one of these is not accounted for up to then: it has not told, or has told once, which is where its account begins."""
        return any((reach := self.reach.get(device)) is None or reach < at for device in devices)

    def note_power(self, runs: Sequence[JobRun]) -> None:
        """Record the current power of each live job, and the idle power of devices. A shared device counts in equal parts, a host by the
        shares that were last charged."""
        self.host_shares.forget_all_but(runs)
        users: dict[str, int] = {}
        for run in runs:
            for device in run.process.devices:
                users[device] = users.get(device, 0) + 1
        for run in runs:
            part = run.process.part
            known = [
                (
                    self.watts.get(device),
                    part.share
                    if part.id and device == run.process.devices[0]
                    else self.host_shares.last.get((device, run.id), 1 / users[device]),
                )
                for device in run.process.devices
            ]
            watts = [power * share for power, share in known if power is not None]
            run.process.note_power(sum(watts) if known and len(watts) == len(known) else None)
        for device, power in self.watts.items():
            if device not in users and power is not None:
                self.idle_w[device] = 0.9 * self.idle_w.get(device, power) + 0.1 * power

    def flush(self) -> list[Interval]:
        """The open rows so far."""
        rows = sorted(self.open.values(), key=lambda row: row.delta.start)
        self.open.clear()
        return rows

    def box_kw(self, *, most: bool = False, rated_w: Mapping[str, float] | None = None) -> float | None:
        """Current power of the box with PUE; None if unknown. most: the highest power seen so far, or the devices' rating if that is known
        and higher."""
        known = self.peak_w if most else {d: w for d, w in self.watts.items() if w is not None}
        for device, watts in (rated_w or {}).items():
            known = {**known, device: max(watts, known.get(device, 0.0))}
        return sum(known.values()) / 1000 * self.pue.applied().pue if known else None

    def _known(self, deltas: Sequence[EnergyDelta]) -> _Known:
        """The feeds' values during the time that these deltas cover together."""
        if not deltas:
            return _Known(None, None)
        start, end = min(delta.start for delta in deltas), max(delta.end for delta in deltas)
        prices = None if self.prices is None else ValueWindow(self.prices, start, end)
        return _Known(ValueWindow(self.chain, start, end), prices)

    def _cut_up(
        self, delta: EnergyDelta, runs: Sequence[JobRun], known: _Known
    ) -> Iterable[tuple[Cut, list[tuple[Cut, JobRun]], EnergyDelta]]:
        """Cut a delta into pieces in which nothing changes, and return the jobs that lived in each."""
        edges = {delta.start, delta.end}
        for run in runs:
            edges |= {t for t in (run.process.alive_from, run.process.alive_to) if t is not None}
            edges.update(run.process.cuts(delta.start, delta.end))
        edges |= self.supply_shares.edges(delta.start, delta.end) | self.pue.edges(delta.start, delta.end)
        for window in (known.grid, known.prices):
            if window is not None:
                edges |= window.inside(delta.start, delta.end)
        times = sorted(t for t in edges if delta.start <= t <= delta.end)
        owners: dict[tuple[datetime, datetime], list[tuple[Cut, JobRun]]] = {}
        cuts: list[Cut] = []
        for start, end in pairwise(times):
            here = [(_cut(run, start, end), run) for run in runs if run.process.lived_at(start)]
            owners[start, end] = here
            cuts.append(here[0][0] if here else Cut(start, end, Account.IDLE, None, None, None))
        for cut, piece in split(delta, cuts):
            yield cut, owners.get((cut.start, cut.end), []), piece

    def _charged(
        self,
        delta: EnergyDelta,
        stretches: Iterable[tuple[Cut, list[tuple[Cut, JobRun]], EnergyDelta]],
        stranger: str | None,
        hosts: HostTick,
    ) -> Iterable[tuple[Cut, EnergyDelta]]:
        for cut, sharers, piece in stretches:
            if sharers and stranger is not None:
                piece = estimate(piece, stranger)
            by_cpu = None
            if delta.device in hosts.idle_w:
                by_cpu = self.host_shares.charge(delta, sharers, piece, hosts, self.config().power.host_idle)
            yield from _shares(cut, delta.device, sharers, piece) if by_cpu is None else by_cpu

    def _interval(self, cut: Cut, delta: EnergyDelta, supply: Supply | None, known: _Known) -> Interval:
        reading = None if known.grid is None else known.grid.reading_at(delta.start)
        pue, source = self.pue.at(delta.start)
        return Interval(
            account=cut.account,
            job_id=cut.job_id,
            segment=cut.segment,
            delta=delta,
            intensity=reading,
            pue=pue,
            pue_source=source,
            rho=cut.rho,
            grams=_grams(delta, reading, pue),
            price=None if known.prices is None else known.prices.reading_at(delta.start),
            supply=supply,
        )

    def _add(self, piece: Interval, first: bool) -> list[Interval]:
        key, config = (piece.delta.device, piece.job_id), self.config()
        growing = self.open.get(key)
        closed: list[Interval] = []
        if growing is not None:
            joined = join(growing, piece, piece.pue)
            if joined is not None:
                piece = joined
            else:
                closed.append(growing)
        span = (piece.delta.end - piece.delta.start).total_seconds()
        # at the nearest tick, so that all devices' rows close together
        if first or span >= config.ledger.row_s - config.power.tick_s / 2 or piece.delta.bridged:
            closed.append(piece)
            self.open.pop(key, None)
        else:
            self.open[key] = piece
        return closed

    def _close(self, delta: EnergyDelta) -> list[Interval]:
        """Close the rows of a device that changed hands. On a shared device all close together, so that the last row tells how far the
        device is accounted for."""
        here = [key for key in self.open if key[0] == delta.device]
        stale = [key for key in here if self.open[key].delta.end != delta.end]
        if len(here) - len(stale) > 1 and any(
            (self.open[key].delta.end - self.open[key].delta.start).total_seconds()
            >= self.config().ledger.row_s / 2
            for key in here
        ):
            stale = here
        return [self.open.pop(key) for key in stale]


def _part_of(run: JobRun, device: str) -> BoardPart:
    """The part of a device that a job has: its first board; a host is nobody's part."""
    return run.process.part if device == run.process.devices[0] else BoardPart()


def _shares(
    cut: Cut, device: str, sharers: Sequence[tuple[Cut, JobRun]], piece: EnergyDelta
) -> Iterable[tuple[Cut, EnergyDelta]]:
    """Whose energy a stretch is: one job's, several jobs', or idle. What MIG instances leave over is idle."""
    held = [_part_of(run, device) for _, run in sharers]
    if any(part.id for part in held):
        parts = [part.share for part in held]
        left = max(1.0 - sum(parts), 0.0)
        owners = [owner for owner, _ in sharers]
        if left > _WHOLE:
            parts.append(left)
            owners.append(Cut(cut.start, cut.end, Account.IDLE, None, None, None))
        return zip(owners, share_by(piece, parts, "split by the slices of MIG instances"), strict=True)
    if len(sharers) > 1:
        return zip((owner for owner, _ in sharers), share(piece, len(sharers)), strict=True)
    return [(cut, piece)]


def _cut(run: JobRun, start: datetime, end: datetime) -> Cut:
    span = run.process.span_at(start)
    segment, rho = (span.segment, span.rho) if span else (None, None)
    return Cut(start, end, Account.JOB, run.id, segment, rho)


def _grams(delta: EnergyDelta, reading: Reading | None, pue: float) -> float | None:
    if delta.energy_mj is None or reading is None:
        return None
    return grams(delta.energy_mj / MJ_PER_J, reading.g_per_kwh, pue)


def join(a: Interval, b: Interval, pue: float) -> Interval | None:
    """Join two consecutive rows that agree in everything but time and energy; None if they do not."""
    da, db = a.delta, b.delta
    same = (
        (a.account, a.segment, a.rho, a.intensity, a.pue, a.pue_source, a.price)
        == (b.account, b.segment, b.rho, b.intensity, b.pue, b.pue_source, b.price)
        and (da.method, da.counter_epoch, da.reason, da.meter)
        == (db.method, db.counter_epoch, db.reason, db.meter)
        and not da.bridged
        and not db.bridged
        and da.end == db.start
        and da.counter_end_mj == db.counter_start_mj
        and (da.energy_mj is None) == (db.energy_mj is None)
        and _like(a.supply, b.supply)
    )
    if not same:
        return None
    seconds_a, seconds_b = ((d.end - d.start).total_seconds() for d in (da, db))
    total = seconds_a + seconds_b
    energy = None if da.energy_mj is None or db.energy_mj is None else da.energy_mj + db.energy_mj
    power = None
    if da.power_w is not None and db.power_w is not None and total > 0:
        power = (da.power_w * seconds_a + db.power_w * seconds_b) / total
    coverage = (da.coverage * seconds_a + db.coverage * seconds_b) / total if total > 0 else da.coverage
    delta = da.model_copy(
        update={
            "end": db.end,
            "energy_mj": energy,
            "power_w": power,
            "counter_end_mj": db.counter_end_mj,
            "coverage": coverage,
        }
    )
    supply = _both(a.supply, b.supply, da.energy_mj or 0, db.energy_mj or 0)
    return a.model_copy(update={"delta": delta, "grams": _grams(delta, a.intensity, pue), "supply": supply})


def _like(a: Supply | None, b: Supply | None) -> bool:
    """Whether one row can stand for both. The supply's share may differ: that of a supply in kW changes at every tick."""
    if a is None or b is None:
        return a is b
    return (a.g_per_kwh, a.source) == (b.g_per_kwh, b.source)


def _both(a: Supply | None, b: Supply | None, energy_a: int, energy_b: int) -> Supply | None:
    """Join two such rows; the share becomes the mean weighted by energy."""
    if a is None or b is None or a.share == b.share or energy_b == 0:
        return a
    share = (a.share * energy_a + b.share * energy_b) / (energy_a + energy_b)
    return a.model_copy(update={"share": min(share, 1.0)})
