"""Plays a recording of the site's own supply back on wall time: `datetime,share` or `datetime,kw`, as `[[feeds]]` plays traces."""

from pathlib import Path
from typing import Literal

from carbonsched.errors import InputError
from carbonsched.feeds.base import Site
from carbonsched.feeds.columns import number, read_columns
from carbonsched.feeds.playback import PlaybackKeys, Replay
from carbonsched.feeds.supply.base import MOST_KW, SupplySettings
from carbonsched.model.grid import SupplyReading, SupplyUnit

_CHECKS = {
    SupplyUnit.SHARE: number("a share of the box's energy, like 0.4", most=1.0),
    SupplyUnit.KW: number("kW, like 1.5", most=MOST_KW),
}


class ReplaySupplySettings(PlaybackKeys, SupplySettings):
    """Keys of `[[supply]]` with provider = "replay".

    Example:
        >>> ReplaySupplySettings(provider="replay", file="roof.csv", unit="kw", kind="solar").hour_s
        3600.0
    """

    COLUMNS = "datetime and share, or kw"

    provider: Literal["replay"]

    def build(self, site: Site) -> Replay[SupplyReading]:
        """Reads the recording. Raises InputError with the file, the line and a hint."""
        columns = read_columns(Path(self.file), [(unit,) for unit in SupplyUnit], _check)
        told = columns.names[0]
        if told != self.unit:
            raise InputError("unit", f"is {self.unit}, but {self.file} tells {told}", f'set it to "{told}"')
        return Replay(columns, self, site, self.reader(site))


def _check(cell: str, where: str, column: str) -> float | None:
    return _CHECKS[SupplyUnit(column)](cell, where, column)
