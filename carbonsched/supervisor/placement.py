"""Chooses the devices of a job, says in its environment which board that is, and checks that it trains there.

A job sees the board whose energy it is charged and no other: it could train on one that nobody meters, or beside another job.
What its trainer then reports must be that board. A fall-back to the CPU, or to another board, would leave an idle board's
energy on its account, labelled as counted.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from carbonsched.config import Config
from carbonsched.model.protocol import Started
from carbonsched.power.base import Device, Meter
from carbonsched.supervisor.jobs.job_run import JobRun

VISIBLE = "CUDA_VISIBLE_DEVICES"
_CAUSES = (
    "likely a torch without CUDA or for a newer driver, nvidia-uvm not loaded, or a container without `compute`: "
    "docs/install.md, Devices"
)


@dataclass(frozen=True, slots=True)
class Placement:
    """Which devices a job gets.

    Example::

        devices = placement.free(live_runs)
        launcher.start(job_dir, argv, placement.env(devices), owner)
    """

    meter: Meter
    config: Callable[[], Config]
    """As it is now: SIGHUP may change it."""

    def free(self, live: Collection[JobRun]) -> tuple[str, ...] | None:
        """The devices of one free slot: a GPU of its own, and the host's share; None where all slots are taken."""
        gpus = self._gpus()
        hosts = tuple(device.id for device in self.meter.devices if device.kind == "host")
        slots = self.config().launch.slots or max(len(gpus), 1)
        if len(live) >= slots:
            return None
        taken = {device for run in live for device in run.process.devices}
        free = [device.id for device in gpus if device.id not in taken]
        if gpus and not free:
            return None
        return (*free[:1], *hosts)

    def env(self, devices: Collection[str]) -> dict[str, str]:
        """What shows a job its board and hides all others; nothing for a meter that does not know boards by NVML's UUIDs."""
        board = next((device.id for device in self._gpus() if device.id in devices), "")
        return {} if board and not _is_uuid(board) else {VISIBLE: board}

    def contradiction(self, run: JobRun, started: Started) -> str | None:
        """Why what a trainer reports is not what it was given; None where it is, or where it says too little to tell."""
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
        if reported is None:
            # a script of somebody's own may name its device and not its UUID
            if started.device != "cpu":
                return None
            return f"it trains on the CPU, board {mine[0]} was given to it; {_CAUSES}"
        if _digits(reported) == _digits(mine[0]):
            return None
        return (
            f"it trains on board {reported}, {mine[0]} was given to it: leave {VISIBLE} as the daemon sets it"
        )

    def _gpus(self) -> list[Device]:
        return [device for device in self.meter.devices if device.kind == "gpu"]


def _is_uuid(device: str) -> bool:
    return device.startswith(("GPU-", "MIG-"))


def _digits(uuid: str) -> str:
    """torch says `GPU-` of an instance of MIG, too."""
    return uuid.lower().removeprefix("gpu-").removeprefix("mig-")
