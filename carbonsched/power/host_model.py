"""Asks codecarbon once what it takes this box to be: the processor's rated power, the memory's, and whether RAPL can be read.

    python -P host_model.py [RAPL_DIR]

prints one JSON object. It is run as a program of its own, for codecarbon's modules take 25 MB that the daemon would hold ever after
for these four values. This file imports nothing of carbonsched.
"""

import csv
import json
import logging
import os
import sys
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

RAPL_DIR: Final = "/sys/class/powercap/intel-rapl/subsystem"


@dataclass(frozen=True, slots=True)
class HostModel:
    """The values that codecarbon's model of a box uses.

    Example:
        >>> HostModel(cpu="EPYC 7763", tdp_w=280.0, tdp_known=True, ram_w=40.0, rapl=False).tdp_w
        280.0
    """

    cpu: str
    """The processor's name; empty where the kernel tells none."""
    tdp_w: float
    tdp_known: bool
    """If false, `tdp_w` is codecarbon's default for an unknown processor."""
    ram_w: float
    """Constant, from the installed memory."""
    rapl: bool
    """The processor's own energy counters can be read."""


def host_model(rapl_dir: str) -> HostModel:
    """By codecarbon, in this process."""
    # what codecarbon would say at every start, `Device.name` and `meter` say in every row
    logging.getLogger("codecarbon").setLevel(logging.ERROR)
    from codecarbon.core.cpu import is_rapl_available
    from codecarbon.external.ram import RAM

    cpu = cpu_model()
    tdp_w, known = rated_power(cpu)
    return HostModel(cpu, tdp_w, known, float(RAM().total_power().W), bool(is_rapl_available(rapl_dir)))


def cpu_model() -> str:
    """The processor's name as the kernel gives it; codecarbon's own, slower way where it gives none (ARM)."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    from codecarbon.core.util import detect_cpu_model

    return str(detect_cpu_model() or "")


def rated_power(model: str) -> tuple[float, bool]:
    """(watts, whether the model is known) by codecarbon's table and its matching, read without pandas.

    An unknown model gets codecarbon's default of 4 W a hardware thread.
    """
    from codecarbon.core.cpu import DEFAULT_POWER_PER_CORE, TDP

    table = files("codecarbon").joinpath("data/hardware/cpu_power.csv").read_text(encoding="utf-8")
    tdp = {row["Name"]: row["TDP"] for row in csv.DictReader(table.splitlines())}
    # TDP() itself loads the table with pandas, 70 MB for one look-up; its matching takes any column of names
    match = TDP._get_matching_cpu(TDP.__new__(TDP), model, {"Name": list(tdp)}) if model else None
    if match is not None:
        return float(tdp[match]), True
    return float((os.cpu_count() or 1) * DEFAULT_POWER_PER_CORE), False


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(host_model(sys.argv[1] if sys.argv[1:] else RAPL_DIR))) + "\n")
