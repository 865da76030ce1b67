"""Asks a Prometheus for what a site meters or works out itself: any query that gives one series, of g/kWh or of another kind.

What intensities mean only the operator knows: `basis` says it, else it is unstated and stands beside no other. The query is
evaluated at whole steps of `step`, each value holding until the next, so that a value asked for again is the same one; the
two days that have passed are asked for once an hour, for recording rules may be filled in late. There is no forecast. No limit
but the server's own; 11,000 points a series. Anything that speaks its HTTP API will do (Thanos, Mimir, VictoriaMetrics).
https://prometheus.io/docs/prometheus/latest/querying/api/
"""

from base64 import b64encode
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from carbonsched.errors import FeedError
from carbonsched.feeds.base import Answer, FeedSettings, Make, Site, V, Values
from carbonsched.feeds.http_settings import LoginKeys, TokenKeys
from carbonsched.feeds.provider import SETTLE_EVERY_S, Answered, HttpFeed, HttpSource, Interval, Value
from carbonsched.feeds.transport import Body
from carbonsched.model.base import Duration, refusal
from carbonsched.model.grid import Basis, Kind, Reading, Source
from carbonsched.units import plain_number

_HINT: Final = "try the query on the server's own page"


def _number(value: Any) -> Any:
    """Values are text, so that NaN and Inf can be sent; those are refused."""
    return plain_number(value) if isinstance(value, str) else None


_Sample = tuple[Value, Annotated[Value, BeforeValidator(_number)]]
"""(Unix seconds, value)."""


class _Series(Answered):
    value: _Sample | None = None
    values: list[_Sample] = []


class _Data(Answered):
    kind: str = Field(alias="resultType")
    result: list[Any]


class _Document(Answered):
    data: _Data


class PrometheusKeys(TokenKeys, LoginKeys):
    """Keys of whatever asks a Prometheus.

    Example::

        class PrometheusPriceSettings(PrometheusKeys):
            provider: Literal["prometheus"]
    """

    query: Annotated[str, StringConstraints(min_length=1, max_length=4000)]
    """PromQL that gives one series: of intensities in gCO2e per kWh."""
    step: Annotated[Duration, Field(ge=60, le=86_400)] = 300.0
    """How long one value holds; the query is evaluated at whole steps since 1970."""
    username: str | None = None
    """Where the server wants a login; its password is in one of `password_env`, `password_file`, `password_credential`."""

    @property
    def has_token(self) -> bool:
        return any((self.token_env, self.token_file, self.token_credential))

    @property
    def has_password(self) -> bool:
        return any((self.password_env, self.password_file, self.password_credential))

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.url is None:
            raise refusal("url", "is missing", "give your server's address, like http://10.0.0.2:9090")
        if self.has_password and self.username is None:
            raise refusal("username", "is missing", "set it, or drop the password")
        if self.username is not None and self.has_token:
            raise refusal("username", "is set, and so is a token", "keep one of the two")
        return self


class PrometheusSettings(PrometheusKeys, FeedSettings):
    """Keys of `[[feeds]]` with provider = "prometheus".

    Example:
        >>> PrometheusSettings(provider="prometheus", url="http://10.0.0.2:9090", query="site_g_per_kwh").step
        300.0
    """

    provider: Literal["prometheus"]

    def build(self, site: Site) -> "PrometheusFeed":
        return PrometheusFeed(self, site)


class PrometheusSource(HttpSource[V]):
    """Asks a Prometheus for values of any kind.

    Example::

        prices = PrometheusSource(settings, site, Price.of)
        readings = prices.poll().readings
    """

    SHOWN = "Prometheus"
    HINTS = MappingProxyType({400: _HINT, 422: _HINT})

    def __init__(
        self, settings: PrometheusKeys, site: Site, make: Make[V], states: Basis | None = None
    ) -> None:
        HttpSource.__init__(self, settings, site, site.zone.name, states)
        self._query, self._step, self._make = settings.query, timedelta(seconds=settings.step), make
        self._username = settings.username
        self._token = settings.token() if settings.has_token else None
        self._password = settings.password() if settings.username is not None else None

    def poll(self) -> Values[V]:
        return Values(self.known())

    def known(self) -> tuple[V, ...]:
        """What holds now, last: one request; once an hour a second one, for the two days that have passed."""
        first = datetime(1970, 1, 1, tzinfo=UTC)
        at = first + (self._clock.now() - first) // self._step * self._step
        present = self._asked("/api/v1/query", {"time": f"{at.timestamp():.3f}"}, "vector")
        if [reading.start for reading in present] != [at]:
            raise FeedError(f"{self._url}: the answer is not of the time that was asked for")
        past = self.once_in(SETTLE_EVERY_S, "past two days", lambda: self._past(at))
        return (*(past or ()), *present)

    def reading(self, start: datetime, end: datetime, value: float, source: Source) -> V:
        return self._make(start, end, value, source)

    def _past(self, at: datetime) -> list[V]:
        span = {
            "start": f"{(at - self.settles // self._step * self._step).timestamp():.3f}",
            "end": f"{(at - self._step).timestamp():.3f}",
            "step": f"{self._step.total_seconds():.3f}",
        }
        found = self._asked("/api/v1/query_range", span, "matrix")
        return [reading for reading in found if reading.start < at]

    def _asked(self, path: str, asked: dict[str, str], kind: str) -> tuple[V, ...]:
        body = self.ask(path, {"query": self._query} | asked, self._headers())
        return self.readings(self._intervals(body, kind), self.source(Kind.ACTUAL, body))

    def _intervals(self, body: Body, kind: str) -> list[Interval]:
        data = self.parse(_Document, body.json).data
        if not data.result:
            raise FeedError(f"{self._url}: the query gives nothing for the time that was asked for")
        if data.kind != kind or len(data.result) != 1:
            raise FeedError(
                f"{self._url}: the query gives {len(data.result)} series of a {data.kind[:20]!r}; one of a {kind!r} is needed: "
                "aggregate it to one, like avg(…)"
            )
        series = self.parse(_Series, data.result[0])
        samples = [series.value] if series.value is not None else series.values
        try:
            starts = {datetime.fromtimestamp(seconds, UTC): value for seconds, value in samples}
            return [(start, start + self._step, value) for start, value in starts.items()]
        except (ValueError, OverflowError, OSError) as e:
            raise FeedError(f"{self._url}: the answer holds a time outside the years 1970 to 2999") from e

    def _headers(self) -> dict[str, str]:
        if self._token is not None:
            return {"Authorization": f"Bearer {self._token.read()}"}
        if self._password is not None:
            pair = f"{self._username}:{self._password.read()}"
            return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}
        return {}


class PrometheusFeed(PrometheusSource[Reading], HttpFeed):
    """Asks a Prometheus for intensities.

    Example::

        settings = PrometheusSettings(provider="prometheus", url="http://10.0.0.2:9090", query="site_g_per_kwh")
        answer = PrometheusFeed(settings, site).poll()
    """

    def __init__(self, settings: PrometheusSettings, site: Site) -> None:
        self.basis = settings.basis or Basis.AVERAGE_UNSTATED
        PrometheusSource.__init__(self, settings, site, Reading.of, self.basis)

    def poll(self) -> Answer:
        return self.answer(self.known())
