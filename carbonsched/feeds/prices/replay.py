"""Plays recorded prices back on wall time, for demonstrations and tests: CSV with the header `datetime,eur_per_kwh`.

As at a market the prices of the coming day are known ahead: so far as a recording reaches back, so far it is published.
"""

from datetime import timedelta
from pathlib import Path
from typing import Final, Literal

from carbonsched.feeds.base import Site, Values
from carbonsched.feeds.columns import number, read_columns
from carbonsched.feeds.plausibility import LEAST_EUR_PER_KWH, MOST_EUR_PER_KWH
from carbonsched.feeds.playback import MAX_ROWS, PlaybackKeys, Replay
from carbonsched.feeds.prices.base import PriceSettings
from carbonsched.model.grid import Price

_AHEAD_GRID_H: Final = 36
"""What is known at noon of a market: to the end of the next day."""
_COLUMN: Final = "eur_per_kwh"


class ReplayPriceSettings(PlaybackKeys, PriceSettings):
    """Keys of `[[prices]]` with provider = "replay".

    Example:
        >>> ReplayPriceSettings(provider="replay", file="prices.csv", hour_s=4.0).hour_s
        4.0
    """

    COLUMNS = f"datetime,{_COLUMN}"

    provider: Literal["replay"]

    def build(self, site: Site) -> "ReplayPrices":
        """Reads the recording. Raises InputError with the file, the line and a hint."""
        return ReplayPrices(self, site)


class ReplayPrices(Replay[Price]):
    """Answers the rows of a recording as if a market had published them.

    Example::

        prices = ReplayPrices(ReplayPriceSettings(provider="replay", file="prices.csv"), site).poll().readings
    """

    def __init__(self, settings: ReplayPriceSettings, site: Site) -> None:
        check = number("EUR per kWh, like 0.31", least=LEAST_EUR_PER_KWH, most=MOST_EUR_PER_KWH)
        super().__init__(read_columns(Path(settings.file), [(_COLUMN,)], check), settings, site, Price.of)

    def poll(self) -> Values[Price]:
        """The past, and what would be published by now."""
        now, play = self._clock.now(), self._playback
        due = play.due(now)
        ahead = play.index(now + timedelta(hours=_AHEAD_GRID_H / play.compression)) + 1
        rows = range(due.start, max(due.stop, min(ahead, due.start + MAX_ROWS)))
        return Values(tuple(self._reading(i, now) for i in rows))
