"""Lists the parts of a box that a report's energy includes, and those that it does not, by the meters in its rows."""

import re
from collections.abc import Iterable
from typing import Final

from carbonsched.model.base import Doc

_RAM: Final = re.compile(r"\+ram=([0-9.e+-]+)W")
_DRAM: Final = "+dram"
_NEVER: Final = ("losses of the power supply", "fans", "network", "disks", "the hardware's making")
"""No meter reads these. A PUE above 1 that the operator states covers the room, not these."""


class Boundary(Doc):
    """The parts that are metered, and those that are not.

    Example:
        >>> boundary([("GPU-1f2e", "nvml"), ("host", "codecarbon:rapl+ram=6W")]).inside
        ('1 board (nvml)', 'CPU (rapl)', 'RAM, taken to draw 6 W')
    """

    inside: tuple[str, ...]
    outside: tuple[str, ...]

    @property
    def sentence(self) -> str:
        return (
            f"Energy is that of {', '.join(self.inside) or 'nothing'}; not in it: {', '.join(self.outside)}."
        )


def boundary(meters: Iterable[tuple[str, str]]) -> Boundary:
    """meters: (board, meter) of every row that counts."""
    found = sorted({(board, meter) for board, meter in meters if not meter.startswith("imported from ")})
    hosts = [meter for board, meter in found if board == "host"]
    boards: dict[str, set[str]] = {}
    for board, meter in found:
        if board != "host":
            boards.setdefault(meter, set()).add(board)
    inside = [
        f"{len(each)} board{'' if len(each) == 1 else 's'}{f' ({meter})' if meter else ''}"
        for meter, each in boards.items()
    ]
    outside: list[str] = []
    ways = sorted({_RAM.sub("", meter).removesuffix(_DRAM).removeprefix("codecarbon:") for meter in hosts})
    counted = any(meter.endswith(_DRAM) for meter in hosts)
    ram_w = sorted({float(match[1]) for meter in hosts if (match := _RAM.search(meter))})
    if hosts:
        inside.append(f"CPU ({', '.join(ways)})" if any(ways) else "CPU")
    if ram_w:
        inside.append(f"RAM, taken to draw {', '.join(f'{watts:g}' for watts in ram_w)} W")
    outside += [] if hosts else ["CPU"]
    if counted:
        inside.append("RAM (rapl)")
    outside += [] if ram_w or counted else ["RAM"]
    return Boundary(inside=tuple(inside), outside=(*outside, *_NEVER))
