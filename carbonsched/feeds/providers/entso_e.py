"""Polls the Transparency Platform of Europe's transmission system operators (ENTSO-E): what each bidding zone generates.

Actual generation per type (A75, realised: A16), quarters or hours, about an hour late, of one zone; revised for days. The
intensity is made of it here (see `generation_mix`): production-based, average, lifecycle or direct as `basis` or the zone's says, an
estimate. What storage takes in, and what plants take from the grid, are series of their own, out of the zone; they are
left out. Free; a token is given on request by mail once an account is there. 400 requests a minute, then a ban of ten
minutes. An answer is cut at 1,000 rows without a word (see `entso_e_documents`): eight hours are asked for at a time, which
is fewer. The Web API was reported out since 2026-08-30, so have another feed behind this one. Documentation:
https://documenter.getpostman.com/view/7009892/2s93JtP3F6.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Annotated, Final, Generic, Literal, TypeVar
from xml.etree import ElementTree

from pydantic import StringConstraints, ValidationError

from carbonsched.errors import FeedError, InputError
from carbonsched.feeds.base import Answer, Site
from carbonsched.feeds.consumption_mix import Consumed, Inflow, consumption
from carbonsched.feeds.entso_e_borders import BORDERS, CODES, borders_of
from carbonsched.feeds.entso_e_documents import (
    HINTS,
    LIMITS,
    URL,
    NothingToldError,
    code_of,
    document,
    not_documented,
    points,
)
from carbonsched.feeds.generation_mix import FACTORS, Mix, Output, Plant, mixes
from carbonsched.feeds.http_settings import TokenSettings
from carbonsched.feeds.provider import SETTLE_EVERY_S, HttpFeed, Interval, offered, place
from carbonsched.feeds.transport import Body, RetryLaterError
from carbonsched.model.base import Duration
from carbonsched.model.grid import Kind, Reading

_AT_A_TIME: Final = timedelta(hours=8)
"""22 series of quarters are 704 rows."""
_QUARTER: Final = timedelta(minutes=15)
"""No resolution is finer, and all others are so many of it."""
_MOST_FAILURES: Final = 2
"""Of what is asked of neighbours in one poll: a server that hangs is not waited for at every border."""

_T = TypeVar("_T")

PLANTS: Final = {
    "B01": Plant.BIOMASS,
    "B02": Plant.LIGNITE,
    "B03": Plant.COAL,
    "B04": Plant.GAS,
    "B05": Plant.COAL,
    "B06": Plant.OIL,
    "B07": Plant.OIL_SHALE,
    "B08": Plant.PEAT,
    "B09": Plant.GEOTHERMAL,
    "B10": Plant.STORAGE,
    "B11": Plant.HYDRO,
    "B12": Plant.HYDRO,
    "B13": Plant.MARINE,
    "B14": Plant.NUCLEAR,
    "B15": Plant.BIOMASS,
    "B16": Plant.SOLAR,
    "B17": Plant.OTHER,
    "B18": Plant.WIND_OFFSHORE,
    "B19": Plant.WIND_ONSHORE,
    "B20": Plant.OTHER,
    "B25": Plant.STORAGE,
}
"""psrType → kind of plant: gas made of coal burns like coal, "other renewable" is mostly biogas, B17 is waste; any other is
`other`."""


class EntsoeSettings(TokenSettings):
    """Keys of `[[feeds]]` with provider = "entso-e".

    Example:
        >>> EntsoeSettings(provider="entso-e", zone="DE-LU", token_env="ENTSOE_TOKEN").every
        900.0
    """

    provider: Literal["entso-e"]
    every: Duration = 900.0
    max_age: Duration = 14_400.0
    zone: Annotated[str, StringConstraints(min_length=1)] | None = None
    """Bidding zone, by name or EIC code; None: the config's."""

    mix: Literal["production", "consumption"] = "production"
    """Whether what neighbours send in is counted."""

    def build(self, site: Site) -> "EntsoeFeed":
        return (EntsoeFeed if self.mix == "production" else _OfConsumption)(self, site)


class EntsoeFeed(HttpFeed):
    """Polls the Transparency Platform's actual generation per type.

    Example::

        answer = EntsoeFeed(EntsoeSettings(provider="entso-e", zone="FR", token_env="ENTSOE_TOKEN"), site).poll()
    """

    URL, SHOWN, LIMITS, HINTS = URL, "ENTSO-E", LIMITS, HINTS

    def __init__(self, settings: EntsoeSettings, site: Site) -> None:
        name = place(settings.zone, site, "zone")
        code = code_of(name)
        basis, self._factors = offered(settings, site, FACTORS)
        super().__init__(settings, site, name, basis)
        self._token, self._eic = settings.token(), code

    def poll(self) -> Answer:
        """One request: the past eight hours; once an hour five more, for the two days that have passed."""
        now = self._clock.now()
        # whole hours: a period is named by its begin
        end = now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        body, own = self._mixes(self.zone, self._eic, end - _AT_A_TIME, end)
        if not own:
            raise FeedError(
                f"{self._url}: no interval of which every type is known for {self.zone} in the past eight hours"
            )
        self._look_around(end)
        found = self._of(body, own)
        if not found:
            raise FeedError(
                f"{self._url}: what flows into {self.zone} is known of no interval of the past eight hours"
            )
        before = self.once_in(SETTLE_EVERY_S, "past two days", lambda: self._past(end))
        return self.answer([*(before or ()), *found])

    def _look_around(self, end: datetime) -> None:
        """Asks what else the readings are made of."""

    def _of(self, body: Body, own: Sequence[Mix]) -> list[Reading]:
        source = self.source(Kind.ESTIMATED, body, note=self._factors.note)
        return list(self.readings(((mix.start, mix.end, mix.g_per_kwh) for mix in own), source))

    def _past(self, end: datetime) -> list[Reading]:
        """The two days before the past eight hours, oldest first."""
        return [
            reading
            for since in reversed(self._stretches(end)[1:])
            for reading in self._of(*self._mixes(self.zone, self._eic, since, since + _AT_A_TIME))
        ]

    def _stretches(self, end: datetime) -> list[datetime]:
        """When those begin that the two days before `end` are asked for in, the newest first."""
        return [end - i * _AT_A_TIME for i in range(1, self.settles // _AT_A_TIME + 1)]

    def _mixes(self, zone: str, code: str, since: datetime, until: datetime) -> tuple[Body, list[Mix]]:
        """What a zone generated."""
        asked = {"documentType": "A75", "processType": "A16", "in_Domain": code}
        body, root = self._document(asked, "GL_MarketDocument", zone, since, until)
        found = mixes(self._parsed(lambda: list(self._outputs(root, code))), self._factors.g_per_kwh)
        return body, [mix for mix in found if since <= mix.start < until]

    def _document(
        self, asked: dict[str, str], kind: str, zone: str, since: datetime, until: datetime
    ) -> tuple[Body, ElementTree.Element]:
        token = {"securityToken": self._token.read()}
        period = {"periodStart": f"{since:%Y%m%d%H%M}", "periodEnd": f"{until:%Y%m%d%H%M}"}
        body = self.ask("/api", token | asked | period, {"Accept": "application/xml"}, json=False)
        return body, document(body, kind, self._url, zone)

    def _parsed(self, read: Callable[[], _T]) -> _T:
        try:
            return read()
        except ValidationError as e:
            raise not_documented(e, self._url) from e

    def _outputs(self, root: ElementTree.Element, code: str) -> Iterator[Output]:
        for series in root.iterfind("{*}TimeSeries"):
            zone = series.findtext("{*}inBiddingZone_Domain.mRID")
            if zone is None:
                continue  # what storage or a plant takes out of the zone
            if zone != code:
                raise FeedError(f"{self._url}: the answer is of {zone[:20]!r}, asked was {code}")
            kind = series.findtext("{*}MktPSRType/{*}psrType") or ""
            for start, end, power in self._points(series):
                yield Output(start, end, kind, PLANTS.get(kind, Plant.OTHER), power)

    def _points(self, series: ElementTree.Element) -> Iterator[Interval]:
        holds = series.findtext("{*}curveType") == "A03"
        for period in series.iterfind("{*}Period"):
            yield from points(period, "quantity", self._url, holds=holds)


class _OfConsumption(EntsoeFeed):
    TRIES = 2

    def __init__(self, settings: EntsoeSettings, site: Site) -> None:
        super().__init__(settings, site)
        self._neighbours = borders_of(self._eic)
        if not self._neighbours:
            problem = f"is consumption, and no borders of {self.zone} are listed: it has production only"
            raise InputError("mix", problem, f"leave it at production, or give one of {', '.join(BORDERS)}")
        self._flows: dict[str, _Held[Inflow]] = {}
        self._theirs: dict[str, _Held[Mix]] = {}
        self._failures = 0

    def _look_around(self, end: datetime) -> None:
        """Once an hour the flows over each border, and the mix of who sent anything; else what was told before holds.

        What failed is asked for last, so that the rest has its turn.
        """
        self._failures = 0
        for name in sorted(self._neighbours, key=lambda name: f"flows with {name}" in self._missing):
            flows = self._asked(f"flows with {name}", partial(self._border, name, end))
            if flows is not None:
                self._flows[name] = flows
        since = end - self.settles
        told = {name for name, held in self._flows.items() if held.told and held.told[-1].end > since}
        untold = [name for name in self._neighbours if name not in told]
        if untold:
            raise FeedError(
                f"{self._url}: no flow between {self.zone} and {', '.join(untold)} is told in the past two days, so what "
                "is used is not known: leave mix at production where that stays so"
            )
        for name in sorted(self._neighbours, key=lambda name: f"mix of {name}" in self._missing):
            if any(flow.power > 0 for flow in self._flows[name].told):
                mix = self._asked(f"mix of {name}", partial(self._mix_of, name, end))
                if mix is not None:
                    self._theirs[name] = mix

    def _asked(self, what: str, find: "Callable[[], _Held[_T]]") -> "_Held[_T] | None":
        def counted() -> _Held[_T]:
            try:
                return find()
            except FeedError as e:
                self._failures += _MOST_FAILURES if isinstance(e, RetryLaterError) else 1
                raise

        return self.once_in(SETTLE_EVERY_S, what, counted) if self._failures < _MOST_FAILURES else None

    def _border(self, name: str, end: datetime) -> "_Held[Inflow]":
        """What flowed in, less what flowed out, where both are told."""
        since = end - self.settles
        into, one = self._flow(CODES[name], self._eic, since, end)
        out, other = self._flow(self._eic, CODES[name], since, end)
        flows = [Inflow(at, at + _QUARTER, into[at] - out[at]) for at in sorted(into.keys() & out.keys())]
        return _Held(flows, [(since, end, sha256) for sha256 in (*one, *other)])

    def _flow(
        self, source: str, sink: str, since: datetime, until: datetime
    ) -> tuple[dict[datetime, float], tuple[str, ...]]:
        """By quarter; none where ENTSO-E has no data of it."""
        asked = {"documentType": "A11", "in_Domain": sink, "out_Domain": source}
        try:
            body, root = self._document(asked, "Publication_MarketDocument", self.zone, since, until)
        except NothingToldError:
            return {}, ()
        told = self._parsed(lambda: list(self._directed(root, source, sink)))
        found = {at: power for start, end, power in told for at in _quarters(start, end)}
        return {at: power for at, power in found.items() if since <= at < until}, (body.sha256,)

    def _directed(self, root: ElementTree.Element, source: str, sink: str) -> Iterator[Interval]:
        for series in root.iterfind("{*}TimeSeries"):
            ends = [series.findtext(f"{{*}}{way}_Domain.mRID") or "none" for way in ("out", "in")]
            if ends != [source, sink]:
                said = " to ".join(end[:20] for end in ends)
                raise FeedError(f"{self._url}: the answer is of {said!r}, asked was {source} to {sink}")
            yield from self._points(series)

    def _mix_of(self, name: str, end: datetime) -> "_Held[Mix]":
        """Of the two days; nothing more is asked of one who tells nothing of late."""
        found: _Held[Mix] = _Held([], [])
        for since in self._stretches(end):
            until = since + _AT_A_TIME
            try:
                body, told = self._mixes(name, CODES[name], since, until)
            except NothingToldError:
                if not found.told:
                    break
                continue
            found = _Held([*told, *found.told], [*found.read, (since, until, body.sha256)])
        return found

    def _of(self, body: Body, own: Sequence[Mix]) -> list[Reading]:
        parts = [
            replace(mix, start=at, end=at + _QUARTER) for mix in own for at in _quarters(mix.start, mix.end)
        ]
        flows = {name: held.told for name, held in self._flows.items()}
        theirs = {name: held.told for name, held in self._theirs.items()}
        return [
            reading
            for used in consumption(parts, flows, theirs)
            for reading in self.readings(
                [(used.start, used.end, used.g_per_kwh)],
                self.source(Kind.ESTIMATED, body, note=self._sources_note(used)),
            )
        ]

    def _sources_note(self, used: Consumed) -> str:
        senders = (*used.counted, *used.without)
        helds = (held.get(name) for name in senders for held in (self._flows, self._theirs))
        read = [
            sha256[:12]
            for held in helds
            if held is not None
            for since, until, sha256 in held.read
            if since <= used.start < until
        ]
        return used.note(self._factors.note) + (f"; also read from {', '.join(read)}" if read else "")


@dataclass(frozen=True, slots=True)
class _Held(Generic[_T]):
    """What was told of a neighbour, for the polls until it is asked for again."""

    told: list[_T]
    read: list[tuple[datetime, datetime, str]]
    """(begin, end, hash) of the answers that it was read from."""


def _quarters(start: datetime, end: datetime) -> Iterator[datetime]:
    return (start + i * _QUARTER for i in range((end - start) // _QUARTER))
