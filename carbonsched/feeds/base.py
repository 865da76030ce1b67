"""Defines what every grid feed offers: settings that build it, and a poll that returns readings and perhaps a forecast."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

from carbonsched.clock import Clock
from carbonsched.feeds.transport import Limit, Transport
from carbonsched.feeds.zone import Zone
from carbonsched.model.base import Duration
from carbonsched.model.grid import Basis, Forecast, Reading, Source, TimedValue
from carbonsched.settings import ProviderSettings

if TYPE_CHECKING:
    from carbonsched.feeds.limits import RequestCount


SETTLES: Final = timedelta(hours=48)
"""Values older than this are no longer revised, unless a feed states another age (`settles`)."""

V = TypeVar("V", bound=TimedValue)
V_co = TypeVar("V_co", bound=TimedValue, covariant=True)


@dataclass(frozen=True, slots=True)
class Values(Generic[V_co]):
    """The result of one poll. Readings are ascending; the last one may extend into the future, or lie there.

    Example::

        Values((Price(start=now, end=now + timedelta(hours=1), eur_per_kwh=0.08, source=source),))
    """

    readings: tuple[V_co, ...]


@dataclass(frozen=True, slots=True)
class Answer(Values[Reading]):
    """The result of one poll of intensities, with the provider's forecast if it makes one.

    Example::

        Answer((Reading(start=now, end=now + timedelta(minutes=30), g_per_kwh=212.0, source=source),))
    """

    forecast: Forecast | None = None


class Make(Protocol[V_co]):
    """Makes a reading from a number: `Price.of`, or what a kind adds to each of its values.

    Example::

        make: Make[Price] = Price.of
        price = make(now, now + timedelta(hours=1), 0.08, source)
    """

    def __call__(
        self,
        start: datetime,
        end: datetime,
        value: float,
        source: Source,
        grid_start: datetime | None = None,
        /,
    ) -> V_co:
        """Raises ValidationError for an invalid time or value."""


class ValueFeed(Protocol[V_co]):
    """One source of values of one kind, as a chain polls it.

    Example::

        newest = feed.poll().readings[-1].value
    """

    name: str
    zone: str
    every_s: float
    max_age_s: float
    local: bool
    """Answers from this box: polled even while feeds before it are healthy, so that it also covers times that they do not."""
    # settles: timedelta, optional: how long after a time its value is still revised; SETTLES where a feed does not say

    def poll(self) -> Values[V_co]:
        """Ask the provider. Raises FeedError in one line, secrets redacted."""


class Feed(ValueFeed[Reading], Protocol):
    """One source of intensities.

    Example::

        answer = feed.poll()
        newest = answer.readings[-1].g_per_kwh
    """

    basis: Basis

    def poll(self) -> Answer:
        """Ask the provider. Raises FeedError in one line, secrets redacted."""


@dataclass(frozen=True)
class Site:
    """The box that a feed is built for.

    Example::

        feed = NesoSettings(provider="neso").build(Site(Zone(name="GB"), SystemClock(), Path("/var/lib/carbonsched")))
    """

    zone: Zone
    clock: Clock
    state_dir: Path
    """Where a feed may keep what it must remember over a restart."""
    network: Transport | None = None
    """None: requests, loaded when the first feed needs it."""

    @cached_property
    def transport(self) -> Transport:
        """The network access of this box's feeds, one session for all."""
        if self.network is not None:
            return self.network
        from carbonsched.feeds.http import HttpTransport
        from carbonsched.feeds.raw_bodies import RawBodies

        return HttpTransport(keep=RawBodies(self.state_dir / "bodies").keep)

    @cached_property
    def _counts(self) -> "dict[str, RequestCount]":
        return {}

    def count(self, account: str, limits: tuple[Limit, ...]) -> "RequestCount":
        """The request count of an account, shared by all feeds of this box that use it."""
        from carbonsched.feeds.limits import RequestCount

        return self._counts.setdefault(account, RequestCount(limits, self.clock))


class SourceSettings(ProviderSettings):
    """Keys that every source of values takes, whatever they are of.

    Example::

        class SunPriceSettings(SourceSettings):
            provider: Literal["sun"]
    """

    name: str | None = None
    """Shown in `grid` and reports; None: the provider's name."""
    max_age: Duration = 7200.0
    """A reading older than this is stale and the next feed is asked."""
    every: Duration = 300.0
    """Pause between polls."""

    @property
    def shown_name(self) -> str:
        """What `grid`, reports and the ledger call the feed."""
        return self.name or self.provider


class FeedSettings(SourceSettings):
    """Keys of `[[feeds]]` that every provider takes; a feed's own file adds its keys, their checks and `build`.

    Example::

        class SunSettings(FeedSettings):
            provider: Literal["sun"] = "sun"

            def build(self, site: Site) -> Feed:
                return SunFeed(self, site)
    """

    basis: Basis | None = None
    """What the values mean; None: what the provider's mean, else the zone's."""

    def build(self, site: Site) -> Feed:
        """The feed. Raises InputError whose field is one of these keys, or a file."""
        raise NotImplementedError
