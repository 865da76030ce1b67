"""Defines what every source of prices is: its settings, and for those over HTTP how an answer in EUR/MWh is read.

The day-ahead market's price is what a settled auction gave: it is published about 12 hours before its day begins, for all of
its hours, is not revised, and may lie below 0. Grid fees, taxes and a supplier's margin are not in it: `static` takes a tariff
that has them.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from carbonsched.errors import FeedError
from carbonsched.feeds.base import Site, SourceSettings, ValueFeed, Values
from carbonsched.feeds.http_settings import HttpKeys
from carbonsched.feeds.provider import HttpSource, Interval
from carbonsched.feeds.transport import Body
from carbonsched.model.base import Duration
from carbonsched.model.grid import Kind, Price

MWH_PER_KWH: Final = 1e-3
STEP: Final = timedelta(minutes=15)
"""The market's time unit since 2025-10-01; an hour before, and in places still."""
LONGEST: Final = timedelta(hours=1)
PAST: Final = timedelta(days=7)
"""Asked for once a day: what hours cost whose price is not published yet is expected by it."""
LATELY: Final = timedelta(days=1)
AHEAD: Final = timedelta(days=2)
_DAY_S: Final = 86_400.0


class PriceSettings(SourceSettings):
    """Keys of `[[prices]]` that every provider takes; its own file adds its keys, their checks and `build`.

    Example::

        class SunPriceSettings(PriceSettings):
            provider: Literal["sun"]

            def build(self, site: Site) -> ValueFeed[Price]:
                return SunPrices(self, site)
    """

    every: Duration = 3600.0
    """Pause between polls."""

    def build(self, site: Site) -> ValueFeed[Price]:
        """The source. Raises InputError whose field is one of these keys, or a file."""
        raise NotImplementedError


class HttpPriceSettings(HttpKeys, PriceSettings):
    """Keys of a source of prices over HTTP.

    Example::

        class SunPriceSettings(HttpPriceSettings):
            provider: Literal["sun"]
    """

    every: Duration = 3600.0
    """Pause between polls."""


class MarketPrices(HttpSource[Price]):
    """A provider of day-ahead prices that is asked over HTTP.

    Example::

        class SunPrices(MarketPrices):
            URL, SHOWN = "https://sun.example.org", "the Sun"

            def poll(self) -> Values[Price]:
                body = self.ask("/prices")
                return self.answer(self.intervals(body), body)
    """

    VALUES = Price

    def since(self) -> timedelta:
        """How far back is asked for this time: a week once a day, else a day."""
        return PAST if self.is_due("past", _DAY_S) else LATELY

    def answer(self, eur_per_mwh: Iterable[Interval], body: Body, note: str = "") -> Values[Price]:
        """The prices of one poll. Raises FeedError where none is of now."""
        found = tuple((start, end, value * MWH_PER_KWH) for start, end, value in eur_per_mwh)
        now = self._clock.now()
        if not any(start <= now < end for start, end, _ in found):
            self.ask_soon("past")
            raise FeedError(f"{self._url}: the answer holds no price for now")
        return Values(self.readings(found, self.source(Kind.ACTUAL, body, note=note)))
