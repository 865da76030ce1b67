"""Chooses the devices of a job, sets the environment that shows it its board, and checks that it trains there.

A job sees only the board whose energy it is charged; otherwise it could train on an unmetered board, or beside another job. The board that
its trainer reports must be that one: a trainer that fell back to the CPU, or took another board, would have an idle board's energy on its
account, labelled as metered.

A board that somebody else computes on is given to no job. If somebody joins later, the job's energy becomes an estimate, since the counter
does not separate the board's users.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from carbonsched.config import Config
from carbonsched.errors import InputError, StateError
from carbonsched.launch.base import Launcher
from carbonsched.model.command import ALL, AUTO, HOST
from carbonsched.model.energy import NOT_ALONE
from carbonsched.model.job import JobSpec
from carbonsched.model.protocol import Started
from carbonsched.power.base import Device, KnowsOccupants, Meter
from carbonsched.power.boards import VISIBLE
from carbonsched.supervisor.bounded_call import BoundedCalls, CallTimeoutError
from carbonsched.supervisor.jobs.job_run import JobRun
from carbonsched.supervisor.jobs.process_state import BoardPart, Seat
from carbonsched.text import several

log = logging.getLogger(__name__)

CPU = "cpu"
"""Name of a place without a board, on a box that has boards."""
TAKEN = "waits for a board that nobody else uses"
"""The reason of a job whose boards somebody else computes on begins with these words."""
_LOOK_S = 10.0
"""Seconds between two checks of who computes on our jobs' boards."""
_CAUSES = (
    "likely a torch without CUDA or for a newer driver, nvidia-uvm not loaded, or a container without `compute`: "
    "docs/install.md, Devices"
)


@dataclass(slots=True)
class Placement:
    """Chooses devices for jobs.

    Example::

        seat, why_not = placement.find_seat(live_runs)
        if seat is not None:
            launcher.start(job_dir, argv, placement.env(seat), owner)
    """

    meter: Meter
    launcher: Launcher
    config: Callable[[], Config]
    """The current config: SIGHUP may change it."""
    strangers: dict[str, str] = field(default_factory=dict)
    """Board with a job of ours → who else computes on it, as of the last check."""
    driver_calls: BoundedCalls = field(default_factory=BoundedCalls)
    _looked_s: float = -_LOOK_S
    _logged: str = ""

    def check(self, spec: JobSpec) -> None:
        """Raise InputError if the job takes more boards than this box has."""
        train = spec.train
        if train.parallel != "none" and train.processes is None:
            raise InputError(
                "train.processes",
                f"is missing, {train.parallel!r} takes several",
                "give how many, each on a board of its own",
            )
        if train.parallel == "fsdp2" and not self._gpus():
            raise InputError(
                "train.parallel", "'fsdp2' takes boards, this box has none", "set it to 'ddp' or 'none'"
            )
        if train.device == "cpu" and self._gpus():
            self._check_cpu()
        if not self.has_room(boards_of(spec)):
            whole = sum(not gpu.split for gpu in self._gpus())
            raise InputError(
                "train.processes",
                f"{train.processes} take as many whole boards, this box has {whole}",
                "give fewer",
            )

    def _check_cpu(self) -> None:
        """Raise InputError if this box, which has boards, takes no jobs of the CPU."""
        if not self.config().launch.cpu_slots:
            raise InputError(
                "train.device",
                "'cpu' has no slot here: launch.cpu_slots is 0",
                "leave it out, or ask the box's admin",
            )
        if not any(device.kind == "host" for device in self.meter.devices):
            raise InputError(
                "train.device",
                "'cpu' uses nothing that is metered here: power.host is none",
                "leave it out, or ask the box's admin",
            )

    def has_boards(self) -> bool:
        return bool(self._gpus())

    def places(self, live: Collection[JobRun]) -> list[tuple[str, str]]:
        """(name of the board, job on it or an empty text) for each job that the box can run at a time; `CPU` for a slot without a board on
        a box that has boards."""
        gpus, slots = self._gpus(), self.slots()
        if not gpus:
            holders = [run.id for run in live if run.command is None]
            return [("", holder) for holder in [*holders, *[""] * slots][: max(slots, len(holders))]]
        found: list[tuple[str, str]] = []
        for gpu in gpus:
            holders = [run.id for run in live if gpu.id in run.process.devices]
            name = f"gpu {gpu.index}" if gpu.index is not None else gpu.id
            room = max(self._room(gpu), len(holders))
            found += [(name, holder) for holder in [*holders, *[""] * room][:room]]
        taken = sum(bool(holder) for _, holder in found)
        free = [place for place in found if not place[1]][: max(slots - taken, 0)]
        holders = [run.id for run in self._on_cpu(live)]
        room = max(self.config().launch.cpu_slots, len(holders))
        on_cpu = [(CPU, holder) for holder in [*holders, *[""] * room][:room]]
        return [place for place in found if place[1]] + free + on_cpu

    def has_room(self, boards: int) -> bool:
        """Whether the empty box would have this many whole boards for one job; always true if it has no board."""
        gpus = self._gpus()
        return boards == 1 or not gpus or boards <= sum(not gpu.split for gpu in gpus)

    def find_seat(self, live: Collection[JobRun], boards: int = 1) -> tuple[Seat | None, str]:
        """A free seat: an unused board or part of one, and the host. (None, why) if there is none; the reason is empty if only our own jobs
        are in the way. boards: whole boards wanted, none of them a MIG instance; 0: a slot of the CPU. A box without boards has one seat all the same."""
        gpus = self._gpus()
        if not self.has_room(boards):
            return None, f"waits for {boards} boards, this box has {sum(not gpu.split for gpu in gpus)}"
        hosts = tuple(device.id for device in self.meter.devices if device.kind == "host")
        on_cpu = self._on_cpu(live)
        if gpus and not boards:
            return (Seat(hosts) if len(on_cpu) < self.config().launch.cpu_slots else None), ""
        if sum(run.command is None for run in live) - len(on_cpu) >= self.slots():
            return None, ""
        if not gpus:
            return Seat(hosts), ""
        why, free = "", list[str]()
        for device, part in self._free_parts(gpus, live):
            if boards > 1 and part.id:
                continue
            occupant = self._occupant(part.id if part.id else device.id, live)
            if occupant is not None:
                why = why or f"{TAKEN}: {device.id}: {occupant}"
                continue
            free.append(device.id)
            if len(free) == boards:
                return Seat((*free, *hosts), part), ""
        if boards > 1:
            why = why or f"waits for {boards} boards: {len(free)} of {len(gpus)} are free"
        return None, why

    def seat_of_command(
        self, wanted: Sequence[str], live: Collection[JobRun], *, share: bool
    ) -> tuple[Seat, tuple[str, ...]]:
        """The boards that a command named, or a free one, and what its user has to know about their figures. share: boards with other jobs
        of ours are allowed. Raises InputError for a board that is not there, StateError for one that is used."""
        hosts = tuple(device.id for device in self.meter.devices if device.kind == "host")
        boards = self._wanted(wanted, live, share)
        users = {board: [run.id for run in live if board in run.process.devices] for board in boards}
        for board, ids in users.items():
            if ids and not share:
                raise StateError(f"board {board} is used by {', '.join(ids)}; wait for it, or give --share")
        here = [run.id for run in live if not set(hosts).isdisjoint(run.process.devices)]
        notes = [f"board {board} is shared with {', '.join(ids)}" for board, ids in users.items() if ids]
        told = tuple(f"{note}: the energy is split equally, estimated" for note in notes)
        if here:
            shared = f"{' and '.join(hosts)} is shared with {', '.join(here)}"
            told = (*told, f"{shared}: the energy is split by CPU time, estimated")
        if not boards and not hosts:
            raise StateError(
                "nothing is metered that a command without a board uses; set power.host in the config"
            )
        return Seat((*boards, *hosts)), told

    def _wanted(self, wanted: Sequence[str], live: Collection[JobRun], share: bool) -> tuple[str, ...]:
        gpus = self._gpus()
        whole = [gpu for gpu in gpus if not gpu.split]
        special = next((name for name in (HOST, ALL, AUTO) if name in wanted), None)
        if special is not None and len(wanted) > 1:
            raise InputError("--device", f"{special} goes with no other", "give it alone")
        if special == HOST or (special == AUTO and not gpus):
            return ()
        if special == ALL:
            return tuple(gpu.id for gpu in whole)
        if special == AUTO:
            return self._free_board(whole, live, share)
        found: dict[str, None] = {}
        for name in wanted:
            match = [gpu for gpu in whole if gpu.id == name or (name.isdecimal() and gpu.index == int(name))]
            match = match or [gpu for gpu in whole if len(name) > 4 and gpu.id.startswith(name)]
            if len(match) != 1:
                known = ", ".join(
                    f"{gpu.index}: {gpu.id}" if gpu.index is not None else gpu.id for gpu in whole
                )
                raise InputError("--device", f"{name!r} is no board here", f"give one of: {known or 'host'}")
            found[match[0].id] = None
        return tuple(found)

    def _free_board(self, boards: list[Device], live: Collection[JobRun], share: bool) -> tuple[str, ...]:
        """An unused board; with `share`, otherwise the one with the fewest of our jobs."""
        users = {board.id: [run.id for run in live if board.id in run.process.devices] for board in boards}
        why = []
        for board, ids in sorted(users.items(), key=lambda item: len(item[1])):
            used = f"used by {', '.join(ids)}" if ids else self._occupant(board, live)
            if used is None or (ids and share):
                return (board,)
            why.append(f"{board}: {used}")
        raise StateError(
            f"no board is free ({'; '.join(why) or 'all are in MIG mode'}); wait, give --share, or --device host"
        )

    def seat_of_found(self, live: Collection[JobRun], boards: int = 1) -> Seat:
        """The most likely seat of a process that was started though nobody journalled it: the first boards that are free."""
        taken = {device for run in live for device in run.process.devices}
        free = [device.id for device in self._gpus() if device.id not in taken]
        hosts = [device.id for device in self.meter.devices if device.kind == "host"]
        return Seat((*free[:boards], *hosts))

    def slots(self) -> int:
        """How many jobs may run at a time; warns if the config asks for more than the boards can take."""
        gpus = self._gpus()
        most = sum(self._room(device) for device in gpus)
        wanted = self.config().launch.slots
        if not gpus:
            return wanted or 1
        if wanted is not None and wanted > most:
            self._warn(
                f"launch.slots = {wanted}, but the boards here take {several(most, 'job')}, {self.config().launch.jobs_per_board} a board; "
                "launch.jobs_per_board lets several share one"
            )
        return min(wanted or most, most)

    def env(self, seat: Seat) -> dict[str, str]:
        """Environment that shows a job or a command its boards and hides all others; empty for a meter that does not name boards by NVML's UUIDs."""
        if seat.part.id:
            return {VISIBLE: seat.part.id}
        known = {device.id for device in self._gpus()}
        boards = [device for device in seat.devices if device in known]
        if not all(map(_is_uuid, boards)):
            return {}
        return {VISIBLE: ",".join(boards)}

    def env_of_command(self, seat: Seat) -> dict[str, str]:
        """The same for a command; on a box without boards it is empty."""
        return self.env(seat) if self._gpus() else {}

    def contradiction(self, run: JobRun, started: Started) -> str | None:
        """Why the board that a trainer reports is not the one it was given; None if it is, or if it reports too little to tell."""
        mine = [device.id for device in self._gpus() if device.id in run.process.devices]
        if mine and not _is_uuid(mine[0]):
            return None
        reported = started.gpu_uuid
        if not mine:
            if reported is None:
                return None
            return (
                f"it trains on board {reported}, which no meter reads: it was given none ({VISIBLE} is empty)"
            )
        given = run.process.part.id or ",".join(mine)
        if reported is None:
            # a user's own script may report its device but not its UUID
            if started.device != "cpu":
                return None
            return f"it trains on the CPU, board {given} was given to it; {_CAUSES}"
        if _digits(reported) in {_digits(run.process.part.id), *map(_digits, mine)}:
            return None
        return (
            f"it trains on board {reported}, {given} was given to it: leave {VISIBLE} as the daemon sets it"
        )

    def look_for_strangers(self, live: Collection[JobRun], now_s: float) -> None:
        """Check now and then who else computes on our jobs' boards. now_s: monotonic time."""
        if now_s - self._looked_s < _LOOK_S:
            return
        self._looked_s, found = now_s, {}
        for board in {device for run in live for device in run.process.devices}:
            part = next(run.process.part.id for run in live if board in run.process.devices)
            try:
                occupant = None if part else self._asked(board, live, seen_alone=True)
            except CallTimeoutError:  # keep the last answer until the driver responds
                if board in self.strangers:
                    found[board] = self.strangers[board]
                continue
            if occupant is not None:
                found[board] = f"{NOT_ALONE}: {occupant}"
                if board not in self.strangers:
                    log.warning(
                        "board %s: %s; its energy is charged to our job and estimated", board, occupant
                    )
        self.strangers = found

    # ---- boards

    def _gpus(self) -> list[Device]:
        return [device for device in self.meter.devices if device.kind == "gpu"]

    def _on_cpu(self, live: Collection[JobRun]) -> list[JobRun]:
        """The jobs that take a slot of the CPU; none on a box without boards."""
        return (
            [run for run in live if run.command is None and not boards_of(run.spec)] if self._gpus() else []
        )

    def _room(self, device: Device) -> int:
        """How many jobs a board takes."""
        return len(device.instances) if device.split else self.config().launch.jobs_per_board

    def _free_parts(self, gpus: list[Device], live: Collection[JobRun]) -> Iterator[tuple[Device, BoardPart]]:
        """Free boards and parts of boards, the emptiest boards first."""
        users = {gpu.id: [run for run in live if gpu.id in run.process.devices] for gpu in gpus}
        for device in sorted(gpus, key=lambda gpu: len(users[gpu.id])):
            if not device.split and len(users[device.id]) < self._room(device):
                yield device, BoardPart()
            taken = {run.process.part.id for run in users[device.id]}
            slices = sum(instance.slices for instance in device.instances)
            for instance in device.instances:
                if instance.ours and instance.id not in taken:
                    yield device, BoardPart(instance.id, instance.slices / slices)

    def _occupant(self, board: str, live: Collection[JobRun]) -> str | None:
        """Who else uses a board that is to be assigned. A board whose driver hangs counts as used."""
        try:
            return self._asked(board, live)
        except CallTimeoutError:
            return "its driver does not answer who uses it"

    def _asked(self, board: str, live: Collection[JobRun], *, seen_alone: bool = False) -> str | None:
        """seen_alone: count only processes that can be seen here; beside a job of ours, used memory proves nothing. Raises CallTimeoutError."""
        if not isinstance(self.meter, KnowsOccupants):
            return None
        ours = {pid for run in live for pid in self.launcher.pids(run.dir)}
        shared = any(board in run.process.devices for run in live)

        def mine(pid: int) -> bool:
            if seen_alone and _of_another_namespace(pid):
                return True
            return shared and bool(ours & set(_ancestors(pid)))

        meter = self.meter
        return self.driver_calls.ask(board, lambda: meter.occupant(board, mine, memory=not shared))

    def _warn(self, message: str) -> None:
        if message != self._logged:
            self._logged = message
            log.warning("%s", message)


def boards_of(spec: JobSpec) -> int:
    """How many boards a job takes if there are boards: one per process; none with `train.device = "cpu"`."""
    return 0 if spec.train.device == "cpu" else spec.train.processes or 1


def _is_uuid(device: str) -> bool:
    return device.startswith(("GPU-", "MIG-"))


def _digits(uuid: str) -> str:
    """torch writes `GPU-` for a MIG instance too."""
    return uuid.lower().removeprefix("gpu-").removeprefix("mig-")


def _of_another_namespace(pid: int) -> bool:
    """A pid that names no process here, as NVML may report inside a container; unlike the pid of a process that is only hidden from us."""
    return Path("/proc/1/stat").exists() and not Path(f"/proc/{pid}").exists()


def _ancestors(pid: int) -> Iterator[int]:
    """The process and its ancestors; for a process hidden from us its process group, by the leader's pid."""
    for _ in range(100):
        yield pid
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
            pid = int(stat.rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            with contextlib.suppress(OSError):
                yield os.getpgid(pid)
            return
        if pid <= 1:
            return
