"""Reads the memory's own energy counters: RAPL's `dram` zones, one below each processor package of a server.

They count what the package's counter does not, so both are added. A counter that wraps is corrected by its stated range. `psys` counts the
whole platform including memory and is never added to either: if RAPL shows no package, codecarbon uses psys, and these zones are ignored.

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
    """All dram counters of a box.

    Example::

        dram = DramCounters.of("/sys/class/powercap/intel-rapl/subsystem")
        watts = dram.watts(elapsed_s) if dram is not None else ram_w
    """

    before_uj: dict[Path, int]
    """Zone → its last counter value."""

    @classmethod
    def of(cls, rapl_dir: str) -> "DramCounters | None":
        """None if there are none, if one cannot be read, or if no package is counted beside them."""
        try:
            zones = {folder.name: folder for folder in _zones(Path(rapl_dir))}
            names = {folder: (folder / _NAME).read_text().strip() for folder in zones.values()}
            found = {folder: _read(folder / _ENERGY) for folder, name in names.items() if name == "dram"}
        except (OSError, ValueError):
            return None
        return cls(found) if found and any(name.startswith("package") for name in names.values()) else None

    def watts(self, elapsed_s: float) -> float:
        """Mean power over the seconds since the last call. Raises OSError, ValueError if the kernel does not report it."""
        used_uj = 0
        for folder, before in self.before_uj.items():
            now = _read(folder / _ENERGY)
            used_uj += now - before if now >= before else now - before + _read(folder / _RANGE)
            self.before_uj[folder] = now
        return used_uj / _UJ_PER_J / elapsed_s


def _zones(root: Path) -> Iterator[Path]:
    """The zones of the MSR interface: the memory-mapped one (intel-rapl-mmio) shows the same counters again."""
    yield from sorted(root.glob("intel-rapl:*"))
    yield from sorted(root.glob("intel-rapl:*/intel-rapl:*"))


def _read(file: Path) -> int:
    return int(file.read_text())
