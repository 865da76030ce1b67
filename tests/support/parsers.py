"""Every parser of what comes to the grid's half of the daemon from outside, as a function of bytes, with real documents to begin from.

An input is read, or refused in one line by the error that its caller expects; no other may come, and what is read must be
believable. tests/feeds/test_faults.py and `support.fuzz_feeds` feed them.
"""

import atexit
import gzip
import hashlib
import itertools
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import requests
import tomli_w
from requests.adapters import HTTPAdapter
from support.http_server import Reply
from support.manual_clock import ManualClock
from support.providers import CASES
from support.providers.case import LENT, SECRET, ProviderCase, world
from support.providers.eia import EIA_OF_CONSUMPTION
from support.providers.entso_e import ENTSO_E_OF_CONSUMPTION
from support.providers.prices import PRICE_CASES
from urllib3.response import HTTPResponse

from carbonsched.config import FEEDS, PRICES, load
from carbonsched.errors import FeedError, InputError
from carbonsched.feeds.base import Answer, Site
from carbonsched.feeds.countries import country_called
from carbonsched.feeds.entso_e_documents import eic
from carbonsched.feeds.http import HttpTransport, parsed
from carbonsched.feeds.plausibility import intensity_gates, price_gates, sift
from carbonsched.feeds.raw_bodies import RawBodies
from carbonsched.feeds.replay import ReplaySettings
from carbonsched.feeds.setup.places import search
from carbonsched.feeds.trace import read_trace
from carbonsched.feeds.transport import AnswerError, Body, RetryLaterError
from carbonsched.feeds.zone import Zone
from carbonsched.model.grid import Basis

NOW = datetime(2026, 3, 12, 10, 20, tzinfo=UTC)
_STATUS = (200, 200, 200, 200, 400, 401, 403, 404, 422, 429, 500, 503)
_BASES = tuple(Basis)
URL = "http://provider"
_ALL = b"\xff"
_SLOTS = 6
"""Of the grid that is told of, at most so many before now and after."""
_ACCESS = {
    "/zones": {"XX": {"zoneName": "Somewhere", "access": ["carbon-intensity/latest", "*"]}},
    "/my-access": {
        "signal_types": [
            {
                "signal_type": "co2_moer",
                "regions": [{"region": "XX", "endpoints": [{"endpoint": "forecast"}]}],
            }
        ]
    },
}
"""What the two answer that tell what a token may read."""


@dataclass(frozen=True)
class Parser:
    name: str
    read: Callable[[bytes], bool]
    """Whether it was read; False: refused as it should be. Anything else is a finding."""
    seeds: tuple[bytes, ...]


def _check(answer: Answer, basis: Basis) -> None:
    assert [r.start for r in answer.readings] == sorted({r.start for r in answer.readings})
    points = answer.forecast.points if answer.forecast is not None else ()
    for one in (*answer.readings, *points):
        assert one.start < one.end
        assert math.isfinite(one.g_per_kwh)
    assert all(before.end <= after.start for before, after in itertools.pairwise(points))
    for reading in sift(answer.readings, NOW, intensity_gates(basis)).believed:
        assert 0 <= reading.g_per_kwh <= 2000


def _one_line(error: Exception) -> bool:
    said = str(error)
    assert said.isprintable()
    assert len(said) < 3100
    assert SECRET not in said
    assert LENT not in said
    return False


# ---- providers


class FromMemory:
    """The transport's reading of answers, without requests before it, which take longer than the parser."""

    def __init__(self, answer: Callable[[str], Reply]) -> None:
        self._answer = answer

    def get(self, url: str, *, params: Mapping[str, str] | None = None, json: bool = True, **_: Any) -> Body:
        path = url.removeprefix(URL)
        reply = self._answer(path + (("&" if "?" in path else "?") + urlencode(params) if params else ""))
        if reply.status != 200:
            if "Retry-After" in reply.headers:
                raise RetryLaterError(f"{url}: HTTP {reply.status}", 60.0)
            raise AnswerError(f"{url}: HTTP {reply.status}", reply.status, page="html" in reply.type)
        if not json:
            return Body(None, "0" * 64, reply.body)
        try:
            return Body(parsed(reply.body), "0" * 64, reply.body)
        except (ValueError, RecursionError) as e:
            raise FeedError(f"{url}: the answer is not JSON") from e

    def post(self, url: str, **_: Any) -> Body:
        return self.get(url)


class _Provider:
    """A poll whose answers are replaced, some or all: byte 0 says which (bit i: the i-th), byte 1 how, the rest is the body."""

    PROVIDERS: Any = FEEDS

    def __init__(self, case: ProviderCase, *, login: bool) -> None:
        self._case, self._login = case, login
        self._settings = self.PROVIDERS.model(case.name).model_validate(
            case.keys | {"provider": case.name, "url": URL}
        )
        self._world = world(NOW, case.step, days=min(0.1, _SLOTS * case.step.total_seconds() / 86_400))
        self._honest = cache(self._honestly)
        self._asked: list[str] = []
        self._input = b""
        self._transport = FromMemory(self._answer)
        self.seeds = (
            *self._seeds(b"\x00"),
            *self._seeds(b"\x20"),
            _ALL + b"\x0a{}",
            _ALL + b'\x05{"error": "x"}',
        )

    def _seeds(self, how: bytes) -> list[bytes]:
        self.read(b"\x00" + how)
        return [
            (_ALL if self._login else bytes([1 << i % 8])) + how + self._honest(path).body
            for i, path in enumerate(self._asked)
            if self._is_login(path) is self._login
        ]

    def _honestly(self, path: str) -> Reply:
        for ending, document in _ACCESS.items():
            if urlsplit(path).path.endswith(ending):
                return Reply(json.dumps(document).encode())
        try:
            return self._case.answer(self._world, path)
        except (KeyError, ValueError):  # another way that the case's server does not have
            return Reply(b"{}", 404)

    def _is_login(self, path: str) -> bool:
        return bool(self._case.login) and path.startswith(self._case.login)

    def _answer(self, path: str) -> Reply:
        at = len(self._asked)
        self._asked.append(path)
        honest = self._honest(path)
        if self._is_login(path) is not self._login or not self._input[0] >> at % 8 & 1:
            return honest
        how, body = self._input[1], self._input[2:]
        status = _STATUS[(how & 15) % len(_STATUS)]
        headers = {}
        if how & 16:
            headers = {"Retry-After": body[:20].decode("latin-1")}
        return Reply(body, status, headers, honest.type if how & 64 == 0 else "text/html")

    def read(self, data: bytes) -> bool:
        self._input = data.ljust(2, b"\x00")
        self._asked.clear()
        case = self._case
        basis = Basis(case.basis)
        site = Site(Zone(name=case.zone, basis=basis), ManualClock(NOW), Path("/nowhere"), self._transport)
        feed = self._settings.build(site)
        try:
            if self._input[1] & 32:
                feed.may_read()
            answer = feed.poll()
            assert answer.readings
            self._check(answer, basis)
        except FeedError as e:
            return _one_line(e)
        return True

    def _check(self, answer: Any, basis: Basis) -> None:
        _check(answer, basis)


class _Prices(_Provider):
    """The same of prices."""

    PROVIDERS = PRICES

    def _check(self, answer: Any, basis: Basis) -> None:
        assert [p.start for p in answer.readings] == sorted({p.start for p in answer.readings})
        for price in answer.readings:
            assert price.start < price.end
            assert math.isfinite(price.eur_per_kwh)
        for price in sift(answer.readings, NOW, price_gates()).believed:
            assert -1 <= price.eur_per_kwh <= 10


class _Answers(HTTPAdapter):
    """Answers from memory, in the place of a socket."""

    reply = Reply()

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        said = HTTPResponse(
            BytesIO(self.reply.body), self.reply.headers, self.reply.status, preload_content=False
        )
        return self.build_response(request, said)


class _Session(HttpTransport):
    """The real one, on a session whose answers come from memory."""

    def __init__(self) -> None:
        super().__init__(max_bytes=2_000_000, backoff_s=0.0)
        self.answers = _Answers()

    def _session(self, tries: int) -> Any:
        session = super()._session(tries)
        session.trust_env = False  # it looks for proxies in the environment at each request
        session.mount("http://", self.answers)
        return session


_session = cache(_Session)


def _http(data: bytes) -> bool:
    """An answer as requests sees it: byte 0 is the status, the first line its headers, `a:b;c:d`, the rest the body."""
    head, _, body = data[1:].partition(b"\n")
    pairs = (one.partition(":") for one in head.decode("latin-1").split(";"))
    _session().answers.reply = Reply(
        body,
        _STATUS[(data[:1] or b"\x00")[0] % len(_STATUS)],
        {name.strip(): value for name, _, value in pairs},
    )
    try:
        _session().get(f"{URL}/now", timeout_s=1.0, params={"token": SECRET}, json=not data[:1] > b"\x7f")
    except FeedError as e:
        return _one_line(e)
    return True


HTTP = (
    b"\x00Content-Type:application/json\n{}",
    b'\x00ETag:"7";Content-Encoding:gzip\n' + gzip.compress(b'{"a": [1, null]}', mtime=0),
    b"\x80Last-Modified:Thu, 12 Mar 2026 10:00:00 GMT\n<xml/>",
    b"\x0aRetry-After:Thu, 12 Mar 2026 10:30:00 GMT\n{}",
    b"\x0aRetry-After:120\n{}",
    b"\x05Content-Type:text/html\n<html>forbidden</html>",
)


# ---- files


@cache
def _folder() -> Path:
    shared = Path("/dev/shm")  # a disk would be written to a million times
    made = tempfile.mkdtemp(prefix="parsers-", dir=shared if shared.is_dir() else None)
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


def _refused(read: Callable[[], object]) -> bool:
    try:
        read()
    except InputError as e:
        return _one_line(e)
    return True


def _export(data: bytes) -> bool:
    """Byte 0: the basis that is asked for, and whether it is replayed; the rest: a trace, or an export."""
    how = (data[:1] or b"\x00")[0]
    file = _folder() / "export.csv"
    file.write_bytes(data[1:])
    basis = _BASES[(how & 127) % len(_BASES)]

    def read() -> None:
        trace = read_trace(file, "CISO", basis)
        assert list(trace.times) == sorted(set(trace.times))
        assert all(0 <= g < 1e6 for g in trace.g_per_kwh)
        if not how & 128:
            return  # a week of readings takes longer than all the rest
        keys = {"provider": "replay", "file": str(file), "zone": "CISO", "anchor": "2026-03-12T00:00:00Z"}
        site = Site(Zone(name="CISO", basis=basis), ManualClock(NOW), _folder())
        _check(ReplaySettings.model_validate(keys).build(site).poll(), basis)

    return _refused(read)


def _config(data: bytes) -> bool:
    file = _folder() / "box.toml"
    file.write_bytes(data)

    def read() -> None:
        config = load(file)
        for settings in config.feeds:
            if "timeout" in type(settings).model_fields:
                settings.build(Site(config.zone, ManualClock(NOW), _folder(), FromMemory(lambda _: Reply())))

    return _refused(read)


def _place(data: bytes) -> bool:
    said = data.decode("utf-8", "surrogateescape")
    eic(said)
    country_called(said)
    return _refused(lambda: search(said))  # `find` is in it


def _body(data: bytes) -> bool:
    """A kept body whose file was changed."""
    (_folder() / f"{_KEPT}.gz").write_bytes(data)
    return _refused(lambda: RawBodies(_folder()).read(_KEPT))


def _anchor(data: bytes) -> bool:
    """The file by which a replay remembers its begin."""
    folder = _folder() / "anchor"
    folder.mkdir(exist_ok=True)
    (folder / "replay-anchor.json").write_bytes(data)
    (folder / "trace.csv").write_bytes(TRACE)
    site = Site(Zone(name="CISO"), ManualClock(NOW), folder)
    keys = {"provider": "replay", "file": str(folder / "trace.csv")}
    return _refused(lambda: ReplaySettings.model_validate(keys).build(site).poll())


_KEPT = hashlib.sha256(b"{}").hexdigest()
TRACE = b"datetime,g_per_kwh,forecast_g_per_kwh\n2026-01-01T00:00:00Z,100,90\n2026-01-01T01:00:00Z,120,110\n2026-01-01T02:00:00Z,90,\n"
EXPORTS = (
    TRACE,
    b"Datetime (UTC),Zone id,Carbon intensity gCO\xe2\x82\x82eq/kWh (direct),Carbon intensity gCO\xe2\x82\x82eq/kWh (Life cycle)\n"
    b"2026-01-01 00:00:00,SE,2.5,30.0\n2026-01-01 01:00:00,SE,,\n2026-01-01 02:00:00,SE,2.6,30.3\n",
    b",UTC time,carbon_intensity,coal\n0,2026-01-01 00:00:00,164.27,9.0\n1,2026-01-01 01:00:00,200.72,11.0\n",
    b"datetime,carbon_intensity_actual,avg_carbon_intensity_forecast\n2026-01-01T00:00:00.000000000,564.0,553.7\n"
    b"2026-01-01T01:00:00.000000000,570.0,557.1\n2026-01-01T02:00:00.000000000,593.0,\n",
    b'"MTU (CET/CEST)","Area","Production Type","Generation (MW)"\n'
    b'"25/10/2026 02:00:00 (CEST) - 25/10/2026 02:00:00 (CET)","BZN|FR","Nuclear","9"\n'
    b'"25/10/2026 02:00:00 (CET) - 25/10/2026 03:00:00 (CET)","BZN|FR","Nuclear","5,000"\n'
    b'"25/10/2026 02:00:00 (CET) - 25/10/2026 03:00:00 (CET)","BZN|FR","Marine","n/e"\n',
    b'"Area","MTU","Fossil Gas  - Actual Aggregated [MW]","Nuclear  - Actual Aggregated [MW]"\n'
    b'"BZN|FR","25.10.2026 02:00 - 25.10.2026 03:00 (CET/CEST)","100","900"\n'
    b'"BZN|FR","25.10.2026 03:00 - 25.10.2026 04:00 (CET/CEST)","900","-"\n',
    b"Balancing Authority,UTC Time at End of Hour,Net Generation (MW) from Coal,Net Generation (MW) from Natural Gas,"
    b"Net Generation (MW) from Natural Gas (Adjusted),Net Generation (MW) from Battery Storage\n"
    b'CISO,01/01/2026 1:00:00 AM,5,7,"1,000",-800\nCISO,01/01/2026 2:00:00 AM,5,7,"3,000",-800\nPJM,01/01/2026 2:00:00 AM,5,,,\n',
    b"period,respondent,fueltype,value\n2026-01-01T02,CISO,NG,3000\n2026-01-01T02,CISO,SUN,1000\n2026-01-01T01,CISO,NG,1000\n2026-01-01T01,CISO,SUN,5\n",
)
"""A trace, and what Electricity Maps, CarbonCast (twice), ENTSO-E (twice) and EIA (twice) export; cut short."""
PLACES = (
    "52.5,13.4",
    "51.5 N, 0.1 W",
    "dk1",
    "AWS eu-central-1",
    "us-east-1a",
    "Frankfurt, Germany",
    "Sao Paulo",
    "GB",
    "10YFR-RTE------C",
    "no_2",
)


def _configs() -> tuple[bytes, ...]:
    power = {"gpu": "none", "host": "none"}
    return tuple(
        tomli_w.dumps(
            {"zone": {"name": case.zone, "basis": case.basis}, "power": power}
            | {
                "feeds": [
                    {"provider": case.name, "url": URL} | case.keys,
                    {"provider": "static", "country": "DE"},
                ]
            }
        ).encode()
        for case in CASES
    )


_PROVIDERS = {
    f"{case.name}{' login' * login}": (case, login) for case in CASES for login in (False, bool(case.login))
} | {
    "eia, of consumption": (EIA_OF_CONSUMPTION, False),
    "entso-e, of consumption": (ENTSO_E_OF_CONSUMPTION, False),
}
_PRICES = {f"prices of {case.name}": case for case in PRICE_CASES}
_FILES = {
    "http": (_http, HTTP),
    "exports and traces": (_export, tuple(bytes([i % 2]) + text for i, text in enumerate(EXPORTS))),
    "config": (_config, _configs()),
    "places": (_place, tuple(said.encode() for said in PLACES)),
    "kept bodies": (_body, (gzip.compress(b"{}", mtime=0),)),
    "a replay's anchor": (_anchor, (b'{"anchor": "2026-03-12T00:00:00Z"}',)),
}
SLOW = ("places",)
"""Of NAMES: looks through a thousand names for what is alike, so that it is given fewer inputs."""
NAMES = (*_PROVIDERS, *_PRICES, *_FILES)
"""Each provider's answers and logins, exports and traces, the config, places, and what the daemon itself keeps."""


def environment() -> dict[str, str]:
    """The secrets that the providers look for, which must stand in the environment while they are asked."""
    return {name: value for case in (*CASES, *PRICE_CASES) for name, value in case.env.items()}


@cache
def parser(name: str) -> Parser:
    """One of NAMES."""
    if name in _FILES:
        return Parser(name, *_FILES[name])
    if name in _PRICES:
        made: _Provider = _Prices(_PRICES[name], login=False)
    else:
        case, login = _PROVIDERS[name]
        made = _Provider(case, login=login)
    return Parser(name, made.read, made.seeds)
