"""Reads the memory's own energy counters: the zones that RAPL calls `dram`, one beneath each processor package of a server.

They count what the package's counter does not, so both are added. `psys` counts the whole platform, memory included, and is never added
to either: where RAPL shows no package, codecarbon takes psys, and these zones are left alone.
Source: the kernel's powercap documentation, and Intel's manual, volume 3, "RAPL domains".
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_UJ_PER_J: Final = 1_000_000
_NAME, _ENERGY, _RANGE = "name", "energy_uj", "max_energy_range_uj"


@dataclass(slots=True)
class DramCounters:
    """All of a box's.

    Example::

        dram = DramCounters.of("/sys/class/powercap/intel-rapl/subsystem")
        watts = dram.watts(elapsed_s) if dram is not None else ram_w
    """

    before_uj: dict[Path, int]
    """Zone → its counter when it was read last."""

    @classmethod
    def of(cls, rapl_dir: str) -> "DramCounters | None":
        """None where there are none, where one of them cannot be read, or where no package is counted beside them."""
        try:
            zones = {folder.name: folder for folder in _zones(Path(rapl_dir))}
            names = {folder: (folder / _NAME).read_text().strip() for folder in zones.values()}
            found = {folder: _read(folder / _ENERGY) for folder, name in names.items() if name == "dram"}
        except (OSError, ValueError):
            return None
        return cls(found) if found and any(name.startswith("package") for name in names.values()) else None

    def watts(self, elapsed_s: float) -> float:
        """Mean power over the seconds since it was asked last. Raises OSError, ValueError where the kernel does not tell."""
        used_uj = 0
        for folder, before in self.before_uj.items():
            now = _read(folder / _ENERGY)
            used_uj += now - before if now >= before else now - before + _read(folder / _RANGE)
            self.before_uj[folder] = now
        return used_uj / _UJ_PER_J / elapsed_s


def _zones(root: Path) -> Iterator[Path]:
    """Of the interface by registers: that by memory (intel-rapl-mmio) shows the same counters once more."""
    yield from sorted(root.glob("intel-rapl:*"))
    yield from sorted(root.glob("intel-rapl:*/intel-rapl:*"))


def _read(file: Path) -> int:
    return int(file.read_text())
