"""Starts the processes of a distributed training through torchrun, and ends all of them together.

A stop is sent to the ranks and not to torchrun, which would kill them after 30 s: they agree on a step, write a checkpoint however long
that takes, and exit, and torchrun with them. This process needs no torch.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from carbonsched.model.job import TrainPart

LOOK_S: Final = 0.2
"""Seconds between two checks for a stop."""
_PR_SET_PDEATHSIG: Final = 1
_libc = ctypes.CDLL(None)


def takes_several(train: TrainPart) -> bool:
    """Whether this process has to start others: its spec asks for several, and torchrun has not started it."""
    return train.processes is not None and "WORLD_SIZE" not in os.environ


def launch(train: TrainPart, arguments: Sequence[str], stopping: Callable[[], bool]) -> int:
    """Run `python -m trainer` with these arguments in as many processes as `train` asks for; returns 0 if all succeeded, else 1. stopping:
    polled; once it holds, each rank gets SIGTERM."""
    count = train.processes or 1
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"),
        *(f"--nproc-per-node={count}", "-m", "trainer", *arguments),
    ]
    # a session of its own: this process passes on what a terminal sends to the whole group, as by Ctrl-C
    torchrun = subprocess.Popen(
        command, env=os.environ | environment(train, count), start_new_session=True, preexec_fn=_die_with_us
    )
    told: set[int] = set()
    while True:
        try:
            return 1 if torchrun.wait(LOOK_S) else 0
        except subprocess.TimeoutExpired:
            for rank in children(torchrun.pid) - told if stopping() else ():
                told.add(rank)
                os.kill(rank, signal.SIGTERM)


def environment(train: TrainPart, count: int) -> dict[str, str]:
    """Additions to the ranks' environment: they share this box's cores, and communicate only on it."""
    threads = train.threads or max((os.cpu_count() or count) // count, 1)
    wanted = {"OMP_NUM_THREADS": str(threads), "GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    return {key: value for key, value in wanted.items() if key not in os.environ}


def children(parent: int) -> set[int]:
    """Live processes that `parent` has started."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                state, ppid = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
            except (OSError, ValueError):
                continue  # it ended meanwhile
            if int(ppid) == parent and state != "Z":
                found.add(int(entry.name))
    return found


def _die_with_us() -> None:
    """torchrun ends its ranks when it is told to, but would not notice that this process was killed."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
