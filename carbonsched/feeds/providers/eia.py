"""Polls the United States' Energy Information Administration, form EIA-930: what each balancing authority generates.

Hourly net generation by energy source, one to two hours late, of one of some 60 balancing authorities or a region; revised
for days. The intensity is made of it here (see `generation_mix`): production-based, average, lifecycle or direct as `basis`
or the zone's says, an estimate. There is no forecast of it. A free key: https://www.eia.gov/opendata/register.php; public
domain; fewer than 9,000 requests an hour and 5 a second, else the key is suspended. A period is UTC and names the end of its hour, as in the
six-month files of the same form. Storage (BAT, PS and the like) is left out.
With mix = "consumption" what neighbours send in is counted, too (see `consumption_mix`): hourly interchange by neighbour, positive where it leaves
`fromba` (as Electricity Maps reads it, parsers/EIA.py), and the neighbours' own generation; Canada's and Mexico's is not told. That is
three requests a poll, five once an hour, so none is tried twice. An answer repeats the key that it was asked with.
https://www.eia.gov/opendata/documentation.php, https://www.eia.gov/electricity/gridmonitor/about
"""

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlencode

from pydantic import AfterValidator, BeforeValidator, StringConstraints

from carbonsched.errors import FeedError, InputError
from carbonsched.feeds.base import Answer, Site
from carbonsched.feeds.consumption_mix import Inflow, consumption
from carbonsched.feeds.generation_mix import FACTORS, Mix, Output, Plant, mixes
from carbonsched.feeds.http_settings import TokenSettings
from carbonsched.feeds.provider import Answered, HttpFeed, Value, offered
from carbonsched.feeds.transport import Body, Limit
from carbonsched.model.base import Duration, utc
from carbonsched.model.grid import Kind, Reading
from carbonsched.units import plain_number

_HOUR: Final = timedelta(hours=1)
_RECENT: Final = timedelta(hours=12)
"""What a poll asks for while the past two days are not due."""
_MOST_ROWS: Final = 5000
_CODE: Final = r"^[A-Z0-9]{2,5}$"
_PATH: Final = "/v2/electricity/rto/fuel-type-data/data/"
_FLOWS_PATH: Final = "/v2/electricity/rto/interchange-data/data/"
_MOST_NEIGHBOURS: Final = 16
"""Whose mix is asked for, those who send most first: none has many more."""

PLANTS: Final = {
    "BIO": Plant.BIOMASS,
    "BM": Plant.BIOMASS,
    "COL": Plant.COAL,
    "NG": Plant.GAS,
    "GEO": Plant.GEOTHERMAL,
    "WAT": Plant.HYDRO,
    "NUC": Plant.NUCLEAR,
    "OIL": Plant.OIL,
    "SUN": Plant.SOLAR,
    "SNB": Plant.SOLAR,
    "WND": Plant.WIND_ONSHORE,
    "WNB": Plant.WIND_ONSHORE,
    "BAT": Plant.STORAGE,
    "PS": Plant.STORAGE,
    "OES": Plant.STORAGE,
    "UES": Plant.STORAGE,
}
"""EIA's code of an energy source → what burns or does not; any other is `other`."""
_SOURCES: Final = len(PLANTS) + 1
"""Rows of an hour of one respondent, at most."""


_NO_NUMBER: Final = frozenset({"", "-", "--", "na", "n/a", "null", "none"})


def _hour(value: Any) -> Any:
    """`2026-03-12T10`, which is UTC."""
    # another value is refused as what it is: no datetime of a known zone
    return datetime.strptime(value, "%Y-%m-%dT%H").replace(tzinfo=UTC) if isinstance(value, str) else None


def _number(value: Any) -> Any:
    """Numbers come as numbers or as text, by the API's version; a text that says there is none is as good as null."""
    if not isinstance(value, str):
        return value
    told = None if value.strip().lower() in _NO_NUMBER else plain_number(value)
    return told if told is None or math.isfinite(told) else None


class _Row(Answered):
    period: Annotated[datetime, BeforeValidator(_hour), AfterValidator(utc)]
    respondent: str
    fueltype: str
    value: Annotated[Value | None, BeforeValidator(_number)] = None


class _Response(Answered):
    data: list[_Row]


class _Document(Answered):
    response: _Response


class _Flow(Answered):
    period: Annotated[datetime, BeforeValidator(_hour), AfterValidator(utc)]
    fromba: str
    toba: Annotated[str, StringConstraints(pattern=_CODE)]
    value: Annotated[Value | None, BeforeValidator(_number)] = None


class _Flows(Answered):
    data: list[_Flow]


class _FlowDocument(Answered):
    response: _Flows


class EiaSettings(TokenSettings):
    """Keys of `[[feeds]]` with provider = "eia".

    Example:
        >>> EiaSettings(provider="eia", respondent="CISO", token_env="EIA_KEY").max_age
        14400.0
    """

    provider: Literal["eia"]
    max_age: Duration = 14_400.0
    respondent: Annotated[str, StringConstraints(pattern=_CODE)] | None = None
    """Balancing authority or region by EIA's code, e.g. `CISO`, `ERCO`, `US48`; None: the zone, or its last part."""

    mix: Literal["production", "consumption"] = "production"
    """Whether what neighbours send in is counted."""

    def build(self, site: Site) -> "EiaFeed":
        return (EiaFeed if self.mix == "production" else _OfConsumption)(self, site)


class EiaFeed(HttpFeed):
    """Polls EIA-930's generation by energy source.

    Example::

        answer = EiaFeed(EiaSettings(provider="eia", respondent="CISO", token_env="EIA_KEY"), site).poll()
    """

    URL, SHOWN = "https://api.eia.gov", "EIA"
    HINTS = MappingProxyType({403: "a free key: https://www.eia.gov/opendata/register.php"})
    LIMITS = (Limit(9000, per_s=3600.0), Limit(5, per_s=1.0))

    def __init__(self, settings: EiaSettings, site: Site) -> None:
        respondent = settings.respondent or site.zone.name.rpartition("-")[2].upper()
        if not re.match(_CODE, respondent):
            problem = f"is missing, and zone.name is {site.zone.name!r}"
            raise InputError("respondent", problem, "give EIA's code of a balancing authority, like CISO")
        basis, self._factors = offered(settings, site, FACTORS)
        super().__init__(settings, site, respondent, basis)
        self._token = settings.token()

    def poll(self) -> Answer:
        """One request: the past twelve hours, once an hour the two days that have passed."""
        now, whole = self._clock.now(), self.is_due("past")
        since = now - (self.settles if whole else _RECENT)
        try:
            body, outputs = self._outputs([self.zone], since, now)
            own = mixes(outputs[self.zone], self._factors.g_per_kwh)
            readings = self._of(own, body, since, now)
        except FeedError:
            self.ask_soon("past")
            raise
        if not readings:
            self.ask_soon("past")
            said = "no hour of which every energy source is known" if outputs[self.zone] else "no rows"
            if own:
                said = "no hour of which what flows in is known"
            raise FeedError(f"{self._url}: {said} for respondent {self.zone}: is that EIA's code of it?")
        return Answer(readings)

    def _of(self, own: Sequence[Mix], body: Body, since: datetime, until: datetime) -> tuple[Reading, ...]:
        source = self.source(Kind.ESTIMATED, body, note=self._factors.note)
        return self.readings(((mix.start, mix.end, mix.g_per_kwh) for mix in own), source)

    def _outputs(
        self, respondents: Sequence[str], since: datetime, until: datetime
    ) -> tuple[Body, dict[str, list[Output]]]:
        """By respondent: what its plants generated."""
        body = self._rows(_PATH, "respondent", respondents, since, until)
        found: dict[str, list[Output]] = {name: [] for name in respondents}
        for row in self.parse(_Document, body.json).response.data:
            if row.respondent not in found:
                asked = ", ".join(respondents)
                raise FeedError(f"{self._url}: the answer is of {row.respondent[:20]!r}, asked was {asked}")
            if row.value is not None:
                plant = PLANTS.get(row.fueltype, Plant.OTHER)
                start = row.period - _HOUR
                found[row.respondent].append(Output(start, row.period, row.fueltype, plant, row.value))
        return body, found

    def _rows(self, path: str, facet: str, values: Sequence[str], since: datetime, until: datetime) -> Body:
        query = {
            "api_key": self._token.read(),
            "frequency": "hourly",
            "data[0]": "value",
            "start": f"{since:%Y-%m-%dT%H}",
            "end": f"{until + _HOUR:%Y-%m-%dT%H}",
            "sort[0][column]": "period",
            # where rows are cut off they are the oldest
            "sort[0][direction]": "desc",
            "length": str(_MOST_ROWS),
        }
        facets = urlencode([(f"facets[{facet}][]", value) for value in values])
        return self.ask(f"{path}?{facets}", query)


class _OfConsumption(EiaFeed):
    TRIES = 1

    def _of(self, own: Sequence[Mix], body: Body, since: datetime, until: datetime) -> tuple[Reading, ...]:
        if not own:
            return ()
        flows_body, inflows = self._inflows(since, until)
        most = sorted(inflows, key=lambda name: -sum(max(flow.power, 0.0) for flow in inflows[name]))
        asked = [name for name in most if any(flow.power > 0 for flow in inflows[name])][:_MOST_NEIGHBOURS]
        outputs: dict[str, list[Output]] = {name: [] for name in asked}
        bodies = [flows_body]
        end = until + _HOUR
        step = timedelta(hours=_MOST_ROWS // (len(asked) * _SOURCES) - 1) if asked else end - since
        while asked and since < end:
            last = min(since + step, end)
            one, found = self._outputs(asked, since, last - _HOUR)
            bodies.append(one)
            outputs = {name: outputs[name] + found[name] for name in asked}
            since = last
        theirs = {name: mixes(found, self._factors.g_per_kwh) for name, found in outputs.items()}
        hashes = ", ".join(one.sha256[:12] for one in bodies)
        return tuple(
            reading
            for used in consumption(own, inflows, theirs)
            for reading in self.readings(
                [(used.start, used.end, used.g_per_kwh)],
                self.source(
                    Kind.ESTIMATED, body, note=f"{used.note(self._factors.note)}; also read from {hashes}"
                ),
            )
        )

    def _inflows(self, since: datetime, until: datetime) -> tuple[Body, dict[str, list[Inflow]]]:
        """By neighbour, ascending. Of two of one hour the first holds."""
        body = self._rows(_FLOWS_PATH, "fromba", [self.zone], since, until)
        found: dict[str, dict[datetime, Inflow]] = defaultdict(dict)
        for row in self.parse(_FlowDocument, body.json).response.data:
            if row.fromba != self.zone:
                raise FeedError(f"{self._url}: the answer is of {row.fromba[:20]!r}, asked was {self.zone}")
            if row.value is not None:
                flow = Inflow(row.period - _HOUR, row.period, -row.value)
                found[row.toba].setdefault(row.period, flow)
        if not found:
            raise FeedError(f"{self._url}: no interchange is told of {self.zone}: leave mix at production")
        return body, {name: [by_hour[at] for at in sorted(by_hour)] for name, by_hour in found.items()}
