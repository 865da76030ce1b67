"""Shared by the feeds that use HTTP: address, secrets, limits, requests, and readings with their source.

A provider's file subclasses a class here, and one of http_settings.py for its keys. It states its address, its published limits and the
meaning of its values with a source, and reads its answers; everything else (retries, size limits, hashes, no secret in a message) is done
here.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from typing import Annotated, Any, ClassVar, Final, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from carbonsched.errors import FeedError, InputError
from carbonsched.feeds.base import SETTLES, Answer, FeedSettings, Site, V
from carbonsched.feeds.http_settings import HttpKeys, HttpSettings
from carbonsched.feeds.transport import TRIES, AnswerError, Body, Limit
from carbonsched.model.base import utc
from carbonsched.model.error_words import first_words, key_path
from carbonsched.model.grid import Basis, Forecast, ForecastPoint, Kind, Reading, Source

SETTLE_EVERY_S: Final = 3600.0
_PLAN_EVERY_S: Final = 86_400.0
_AVERAGES: Final = (Basis.AVERAGE_LIFECYCLE, Basis.AVERAGE_DIRECT)
_AHEAD: Final = timedelta(hours=1)
"""This much of a forecast is also used as readings."""

log = logging.getLogger(__name__)
_M = TypeVar("_M", bound=BaseModel)
_T = TypeVar("_T")


def _as_utc(value: datetime) -> datetime:
    return utc(value.replace(tzinfo=UTC) if value.tzinfo is None else value)


Time = Annotated[datetime, AfterValidator(utc)]
"""A provider's time; one without an offset is refused."""
UtcTime = Annotated[datetime, AfterValidator(_as_utc)]
"""A provider's time, if it documents that times without an offset are UTC."""
Value = Annotated[float, Field(strict=True, allow_inf_nan=False)]
"""A number; text that looks like one is refused."""
Interval = tuple[datetime, datetime, float]
"""(start, end, value)."""


class Answered(BaseModel):
    """A provider's answer; unknown keys are ignored.

    Example:
        >>> class Row(Answered):
        ...     value: Value
        >>> Row.model_validate({"value": 3, "colour": "red"}).value
        3.0
    """

    model_config = ConfigDict(extra="ignore")


class HttpSource(Generic[V]):
    """A provider of values of one kind that is polled over HTTP.

    Example::

        class SunPrices(HttpSource[Price]):
            URL, SHOWN, VALUES = "https://sun.example.org", "the Sun", Price

            def poll(self) -> Values[Price]:
                body = self.ask("/prices")
                ...
    """

    VALUES: type[V]
    """The kind of its readings."""
    URL: ClassVar[str] = ""
    SHOWN: ClassVar[str] = ""
    """Names the document format, for error messages."""
    LIMITS: ClassVar[tuple[Limit, ...]] = ()
    """The provider's stated limits; its file names the source."""
    LIMITS_EACH_PATH: ClassVar[bool] = False
    """Whether LIMITS apply to each path separately, or to all together."""
    TRIES: ClassVar[int] = TRIES
    """Requests per call at most; 1 if the limit has no room for a second."""
    UNVERIFIED: ClassVar[str] = ""
    """Why it has not been tested against the real provider, for `grid --probe` and the docs; empty: real answers were seen."""
    HINTS: ClassVar[Mapping[int, str]] = {}
    """Status of a refusal → what the user can do about it."""
    local = False
    settles = SETTLES
    """Age up to which a value may be revised: that far back is polled again, and the ledger settled. The provider's own figure if it states one."""

    def __init__(self, settings: HttpKeys, site: Site, zone: str, states: Basis | None = None) -> None:
        """states: the basis of an intensity."""
        self.name, self.every_s, self.max_age_s = settings.shown_name, settings.every, settings.max_age
        self.zone, self._states = zone, states
        self._url, self._timeout_s = (settings.url or self.URL).rstrip("/"), settings.timeout
        self._transport, self._clock = site.transport, site.clock
        self._site, self._account = site, settings.provider
        self._count = site.count(self._account, self.LIMITS)
        self._due_s: dict[str, float] = {}
        self._missing: dict[str, str] = {}
        self._way: dict[str, int] = {}
        self._basis_note = ""

    # ---- asking

    def ask(
        self,
        path: str,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        json: bool = True,
    ) -> Body:
        """GET `path` of the provider. Raises FeedError, RetryLaterError if its stated limit is used up."""
        count = self._count
        if self.LIMITS_EACH_PATH:
            count = self._site.count(f"{self._account}{path}", self.LIMITS)
        count.take(self.TRIES)
        try:
            return self._transport.get(
                self._url + path,
                timeout_s=self._timeout_s,
                params=params,
                headers=headers,
                json=json,
                tries=self.TRIES,
            )
        except AnswerError as e:
            if (hint := self.HINTS.get(e.status)) is None:
                raise
            raise AnswerError(f"{e}; {hint}", e.status, page=e.page) from e

    def parse(self, model: type[_M], data: Any) -> _M:
        """Parse `data` as the provider documents it. Raises FeedError that names the first wrong field."""
        try:
            return model.model_validate(data)
        except ValidationError as e:
            errors = e.errors(include_url=False, include_input=False)
            where = key_path(errors[0]["loc"]) or "the whole"
            raise FeedError(
                f"{self._url}: the answer is not what {self.SHOWN} documents: {where}: {first_words(errors)}"
            ) from e

    def unless_missing(self, what: str, find: Callable[[], _T]) -> _T | None:
        """The result of `find`; None if the provider fails at it, logged once: the rest of the answer is still used."""
        try:
            found = find()
        except FeedError as e:
            if self._missing.get(what) is None:
                log.warning("feed %s: no %s: %s", self.name, what, e)
            self._missing[what] = str(e)
            return None
        if self._missing.pop(what, None) is not None:
            log.info("feed %s: %s again", self.name, what)
        return found

    def is_due(self, what: str, every_s: float = SETTLE_EVERY_S) -> bool:
        """Whether `what` was not requested within `every_s`; marks it as requested now."""
        now_s = self._clock.monotonic()
        if now_s < self._due_s.get(what, 0.0):
            return False
        self._due_s[what] = now_s + every_s
        return True

    def ask_soon(self, what: str) -> None:
        """The request failed: it is due again."""
        self._due_s.pop(what, None)

    def once_in(self, every_s: float, what: str, find: Callable[[], _T]) -> _T | None:
        """The result of `find`, requested at most once in `every_s`, but again soon after a failure, which is logged once. None: not due,
        or failed.

        A refusal (HTTP 4xx) does not pass by itself: it waits for its time.
        """
        if not self.is_due(what, every_s):
            return None
        refused = False

        def attempt() -> _T:
            nonlocal refused
            try:
                return find()
            except AnswerError as e:
                refused = 400 <= e.status < 500
                raise

        found = self.unless_missing(what, attempt)
        if found is None and not refused:
            self.ask_soon(what)
        return found

    def ask_as_planned(
        self, what: str, ways: Sequence[_T], ask: Callable[[_T], Body], refusals: tuple[int, ...]
    ) -> Body:
        """The answer to the first of `ways` that the account's plan allows; refused ways are not tried again for a day. refusals: statuses
        by which the provider refuses. Raises FeedError, the last one's if all are refused."""
        if self.is_due(f"plan of {what}", _PLAN_EVERY_S):
            self._way[what] = 0
        while True:
            try:
                return ask(ways[self._way[what]])
            except AnswerError as e:
                if e.status not in refusals or e.page or self._way[what] + 1 == len(ways):
                    raise
                self._way[what] += 1

    def may_read(self) -> str | None:
        """What the account may read, in one line for `grid --probe`; None: the provider does not tell. Raises FeedError."""
        return None

    # ---- answering

    def source(self, kind: Kind, body: Body, issued_at: datetime | None = None, note: str = "") -> Source:
        """The source of a value in `body`."""
        return Source(
            provider=self.name,
            zone=self.zone,
            basis=self._states,
            kind=kind,
            fetched_at=self._clock.now(),
            issued_at=issued_at,
            body_sha256=body.sha256,
            note="; ".join(part for part in (note, self._basis_note) if part),
        )

    def reading(self, start: datetime, end: datetime, value: float, source: Source) -> V:
        """A reading of its kind."""
        return self.VALUES.of(start, end, value, source)

    def readings(self, intervals: Iterable[Interval], source: Source) -> tuple[V, ...]:
        """Each value as a reading of `source`, ascending. Raises FeedError for a time beyond the accepted range."""
        try:
            return tuple(self.reading(start, end, value, source) for start, end, value in sorted(intervals))
        except ValidationError as e:
            raise FeedError(f"{self._url}: the answer holds a time outside the years 1970 to 2999") from e


class HttpFeed(HttpSource[Reading]):
    """A provider of intensities that is polled over HTTP.

    Example::

        class SunFeed(HttpFeed):
            URL, SHOWN = "https://sun.example.org", "the Sun"

            def poll(self) -> Answer:
                body = self.ask("/now")
                ...
    """

    VALUES = Reading
    by_zone: bool
    """Whether its basis follows `zone.basis`, because the provider states none."""

    def __init__(self, settings: HttpSettings, site: Site, zone: str, basis: Basis) -> None:
        """basis: what the provider states. Raises InputError if the config says another: the config cannot change it."""
        stated = settings.basis
        if basis is not Basis.AVERAGE_UNSTATED and stated not in (None, basis):
            problem = f"is {stated}, and what {settings.provider} answers is {basis}"
            raise InputError("basis", problem, "drop it, and set zone.basis, or drop the feed")
        self.by_zone = (
            stated is None
            and basis is Basis.AVERAGE_UNSTATED
            and site.zone.basis in _AVERAGES
            and "basis" in site.zone.model_fields_set
        )
        self.basis = site.zone.basis if self.by_zone else stated or basis
        super().__init__(settings, site, zone, self.basis)
        if basis is not self.basis:
            self._basis_note = "basis as the config states it, the provider does not"

    def answer(
        self, known: Iterable[Reading], ahead: Sequence[Interval] = (), said: Source | None = None
    ) -> Answer:
        """Readings and forecast of one poll. Raises FeedError if nothing is known of now or before.

        known: intervals that have begun, with the statement about now last: of two that begin together the last one is used. ahead, said:
        the forecast, and its source. Its statement about now, if there is no other, and the next hour are used as readings, so that they
        bridge a failed poll.
        """
        now = self._clock.now()
        by_start = {reading.start: reading for reading in known}
        covered = max((reading.end for reading in by_start.values() if reading.start <= now), default=None)
        near = [
            (start if covered is None else max(start, covered), end, value)
            for start, end, value in ahead
            if end > now and start <= now + _AHEAD and (covered is None or end > covered)
        ]
        if said is not None:
            by_start = {reading.start: reading for reading in self.readings(near, said)} | by_start
        if not any(start <= now for start in by_start):
            raise FeedError(f"{self._url}: the answer holds no value for now")
        forecast = self.forecast(ahead, said) if said is not None else None
        return Answer(tuple(by_start[start] for start in sorted(by_start)), forecast)

    def forecast(self, intervals: Iterable[Interval], source: Source) -> Forecast | None:
        """The points that end after now, each until the next at most; None if there are none. Issued when the provider says, else now. Of
        two that begin together one is used."""
        now = self._clock.now()
        by_start = {
            reading.start: reading
            for reading in self.readings((one for one in intervals if one[1] > now), source)
        }
        told = list(by_start.values())
        points = tuple(
            ForecastPoint(
                start=reading.start,
                end=reading.end if following is None else min(reading.end, following.start),
                g_per_kwh=reading.g_per_kwh,
            )
            for reading, following in zip_longest(told, told[1:])
        )
        issued_at = min(source.issued_at or now, now)
        return Forecast(issued_at=issued_at, source=source, points=points) if points else None


def place(given: str | None, site: Site, key: str) -> str:
    """The box's place in the provider's names: from its key, else `zone.name`. Raises InputError if neither is set.

    Example:
        >>> from carbonsched.clock import SystemClock
        >>> from pathlib import Path
        >>> from carbonsched.feeds.zone import Zone
        >>> place(None, Site(Zone(name="DE"), SystemClock(), Path("/nowhere")), "zone")
        'DE'
    """
    name = given or site.zone.name
    if name == type(site.zone)().name:
        raise InputError(key, "is missing", "set it, or zone.name, as the provider names the place")
    return name


def offered(settings: FeedSettings, site: Site, choices: Mapping[Basis, _T]) -> tuple[Basis, _T]:
    """The basis that the user asks for, of those the provider offers, and the provider's name for it. Raises InputError if it is not offered."""
    basis = settings.basis or site.zone.basis
    if basis not in choices:
        has = " and ".join(choices)
        raise InputError(
            "basis", f"{settings.provider} has no {basis}", f"it has {has}: set zone.basis to one"
        )
    return basis, choices[basis]


def intervals(
    points: Iterable[tuple[datetime, float]], step: timedelta, longest: timedelta
) -> list[Interval]:
    """Add ends to values that are known by their begin: each lasts until the next, whatever the resolution. step: how long a single one
    lasts. longest: a larger distance is a gap. If a time occurs twice, the last value is used.

    Example:
        >>> at = datetime(2026, 1, 1, tzinfo=UTC)
        >>> quarter = timedelta(minutes=15)
        >>> found = intervals([(at, 100.0), (at + quarter, 90.0)], step=quarter, longest=4 * quarter)
        >>> [(end - start, value) for start, end, value in found] == [(quarter, 100.0), (quarter, 90.0)]
        True
    """
    by_start = dict(points)
    starts: Sequence[datetime] = sorted(by_start)
    found: list[Interval] = []
    for start, following in zip_longest(starts, starts[1:]):
        if following is not None and following - start <= longest:
            step = following - start
        found.append((start, start + step, by_start[start]))
    return found
