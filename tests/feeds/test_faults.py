"""Every HTTP provider under every fault: the right value, the right fallback or a clear state; no escape, no hang, no wrong number.

`pytest -s tests/feeds/test_faults.py` prints the matrix.
"""

import gzip
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fuzz import EACH, FUZZ, mutated
from support.http_server import Reply, serve
from support.manual_clock import ManualClock
from support.parsers import NAMES, URL, FromMemory, environment, parser
from support.providers import CASES
from support.providers.case import LENT, SECRET, ProviderCase, Slot, World, world
from support.providers.prices import PRICE_CASES, eur_per_mwh

from carbonsched.config import FEEDS, PRICES
from carbonsched.errors import CarbonschedError
from carbonsched.feeds.base import Site
from carbonsched.feeds.chain import Chain
from carbonsched.feeds.http import HttpTransport
from carbonsched.feeds.prices.factory import build_prices
from carbonsched.feeds.static import StaticSettings
from carbonsched.feeds.zone import Zone
from carbonsched.model.grid import Basis, FeedStatus, Kind

FALLBACK = 777.0
NOW = datetime(2026, 3, 12, 10, 20, tzinfo=UTC)
SPRING = datetime(2026, 3, 29, 1, 20, tzinfo=UTC)
"""Clocks in Europe have just gone from 02:00 to 03:00 local time."""
AUTUMN = datetime(2026, 10, 25, 1, 20, tzinfo=UTC)
"""02:20 local time in central Europe for the second time."""

matrix: dict[str, dict[str, str]] = {}


@dataclass(frozen=True)
class Fault:
    name: str
    value: bool
    """Whether the provider's own value holds in spite of it; else the fallback does, and why is said."""
    change: Callable[[World], World] = lambda world: world
    spoil: Callable[[Reply], Reply] = lambda reply: reply
    now: datetime = NOW
    either: bool = False
    """Whether a provider may also refuse it: then the fallback holds, with a reason."""


def nothing_known_yet(world: World) -> World:
    """The newest hour, and all of the future, is null."""
    since = world.now - timedelta(hours=1)
    return replace(
        world,
        slots=tuple(slot if slot.end <= since else replace(slot, g_per_kwh=None) for slot in world.slots),
    )


def doubled(world: World) -> World:
    return replace(world, slots=tuple(slot for one in world.slots for slot in (one, one)))


def finer(world: World) -> World:
    """Hours until an hour ago, quarters since."""
    since = world.now.replace(minute=0) - timedelta(hours=1)
    hours = [s for s in world.slots if s.end <= since and s.start.minute == 0]
    before = [Slot(s.start, s.start + timedelta(hours=1), s.g_per_kwh) for s in hours]
    quarter = timedelta(minutes=15)
    after = [
        Slot(slot.start + i * quarter, slot.start + (i + 1) * quarter, slot.g_per_kwh)
        for slot in world.slots
        if slot.start >= since
        for i in range(max(round((slot.end - slot.start) / quarter), 1))
    ]
    return replace(world, slots=tuple(s for s in (*before, *after) if s.start < s.end))


FAULTS = (
    Fault("none", value=True),
    Fault("plan refused (401)", value=False, spoil=lambda r: Reply(b'{"error":"Request unauthorized"}', 401)),
    Fault(
        "token expired (401)",
        value=False,
        spoil=lambda r: Reply(b'{"message":"token SECRET"}', 401),
    ),
    Fault("HTML 403", value=False, spoil=lambda r: Reply(b"<html>forbidden</html>", 403, type="text/html")),
    Fault("429", value=False, spoil=lambda r: Reply(b"{}", 429, {"Retry-After": "120"})),
    Fault("500", value=False, spoil=lambda r: Reply(b"{}", 500)),
    Fault("HTML for JSON", value=False, spoil=lambda r: Reply(b"<html>welcome</html>", type="text/html")),
    Fault("truncated", value=False, spoil=lambda r: replace(r, body=r.body[: len(r.body) * 2 // 3])),
    Fault("slow", value=False, spoil=lambda r: replace(r, delay_s=0.35)),
    Fault("huge", value=False, spoil=lambda r: replace(r, body=b" " * 3_000_000 + r.body)),
    Fault(
        "gzip bomb",
        value=False,
        spoil=lambda r: Reply(gzip.compress(b" " * 9_000_000), headers={"Content-Encoding": "gzip"}),
    ),
    Fault(
        "redirect away",
        value=False,
        spoil=lambda r: Reply(b"", 302, {"Location": "http://127.0.0.1:9/elsewhere"}),
    ),
    Fault("wrong zone", value=False, change=lambda w: replace(w, wrong_zone=True)),
    Fault("null tail", value=True, change=nothing_known_yet, either=True),
    Fault("naive times", value=True, change=lambda w: replace(w, naive=True), either=True),
    Fault("spring DST", value=True, now=SPRING),
    Fault("autumn DST", value=True, now=AUTUMN),
    Fault("doubled slots", value=True, change=doubled),
    Fault("cut at 1,000 rows", value=True, change=lambda w: replace(w, most_rows=1000), either=True),
    Fault("60 to 15 minutes", value=True, change=finer),
)


@pytest.fixture(scope="module", autouse=True)
def _printed() -> Iterator[None]:
    yield
    for name, cells in matrix.items():
        sys.stdout.write(f"\n{name}\n" + "".join(f"  {fault:20} {cell}\n" for fault, cell in cells.items()))


@pytest.fixture(scope="module")
def transport() -> Iterator[HttpTransport]:
    made = HttpTransport(max_bytes=2_000_000, backoff_s=0.001)
    yield made
    made.close()


CELLS = [(case, fault, False) for case in CASES for fault in FAULTS] + [
    (case, fault, True) for case in CASES if case.login for fault in FAULTS if not fault.value
]


def reason_of_fallback(fault: Fault, status: FeedStatus) -> str:
    assert fault.either or not fault.value, status.error
    assert status.error, "no reason is given"
    return f"fallback: {status.error}"


@pytest.mark.parametrize(
    ("case", "fault", "at_login"),
    CELLS,
    ids=[f"{case.name}{'-login' * at_login}-{fault.name}" for case, fault, at_login in CELLS],
)
def test_the_matrix(
    case: ProviderCase,
    fault: Fault,
    at_login: bool,
    transport: HttpTransport,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cells = matrix.setdefault(f"{case.name}, at login" if at_login else case.name, {})
    cannot = (
        "a login names no zone" if at_login and fault.name == "wrong zone" else case.cannot.get(fault.name)
    )
    if cannot is not None:
        cells[fault.name] = f"cannot be: {cannot}"
        return
    for name, value in case.env.items():
        monkeypatch.setenv(name, value)
    true = fault.change(world(fault.now, case.step))
    clock = ManualClock(fault.now)
    site = Site(Zone(name=case.zone, basis=Basis(case.basis)), clock, tmp_path, transport)
    echoed = (LENT if case.login and not at_login else SECRET).encode() if case.env else b"none"

    def answer(path: str) -> Reply:
        if case.login and path.startswith(case.login) is not at_login:
            return case.answer(true, path)
        reply = fault.spoil(case.answer(true, path))
        return replace(reply, body=reply.body.replace(b"SECRET", echoed))

    with serve(answer) as server:
        keys = case.keys | {
            "provider": case.name,
            "url": server.url,
            "timeout": 0.2 if fault.name == "slow" else 2.0,
        }
        feed = FEEDS.model(case.name).model_validate(keys).build(site)
        static = StaticSettings(
            provider="static", g_per_kwh=FALLBACK, basis=Basis(case.basis), source="of this test"
        ).build(site)
        chain = Chain([feed, static], site.zone, clock)
        began = time.monotonic()
        chain.poll_due()
        took_s = time.monotonic() - began
    reading, status = chain.reading_at(fault.now), chain.status()[0]
    assert reading is not None
    assert took_s < 20.0, "a retry or a timeout too many"
    assert "Traceback" not in caplog.text
    for secret in (SECRET, LENT):
        assert secret not in caplog.text + (status.error or "")
    if reading.source.kind is Kind.FALLBACK:
        assert reading.g_per_kwh == FALLBACK
        cells[fault.name] = reason_of_fallback(fault, status).replace(server.url, "URL")
        return
    assert fault.value or fault.either, f"{reading.g_per_kwh} g/kWh in spite of it"
    told = [s for s in true.slots if s.start <= fault.now - case.late]
    known = [s.g_per_kwh for s in told if s.g_per_kwh is not None]
    assert reading.g_per_kwh == pytest.approx(known[-1], rel=1e-3)
    assert reading.start <= fault.now < reading.end
    cells[fault.name] = f"{reading.g_per_kwh:g} g/kWh, {reading.source.kind}"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_value_of_the_past_two_days_that_was_revised_is_known_within_the_hour(
    case: ProviderCase, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in case.env.items():
        monkeypatch.setenv(name, value)
    true, clock = world(NOW, case.step), ManualClock(NOW)
    ages = [timedelta(hours=age) for age in (3, 9, 23, 46)]  # the last is near two days old by then
    server = FromMemory(lambda path: case.answer(true, path))
    site = Site(Zone(name=case.zone, basis=Basis(case.basis)), clock, tmp_path, server)
    keys = case.keys | {"provider": case.name, "url": URL}
    chain = Chain([FEEDS.model(case.name).model_validate(keys).build(site)], site.zone, clock)
    chain.poll_due()
    before = [chain.reading_at(NOW - age) for age in ages]
    revised = tuple(replace(s, g_per_kwh=(s.g_per_kwh or 0) + 17) for s in true.slots if s.end <= NOW)
    clock.advance(3700)
    later = true.slots[len(revised) :]
    true = replace(true, now=clock.now(), slots=(*revised, *later))
    chain.poll_due()
    for age, old in zip(ages, before, strict=True):
        new = chain.reading_at(NOW - age)
        assert old is not None, f"{age} ago was not known"
        assert new is not None
        assert new.g_per_kwh - old.g_per_kwh == pytest.approx(17, rel=0.01), f"{age} ago"


@pytest.mark.fuzz
@pytest.mark.parametrize("name", NAMES)
@given(which=st.integers(0, 100), seeds=st.lists(st.integers(0, 2**32), min_size=EACH, max_size=EACH))
@FUZZ
def test_whatever_comes_from_outside_is_read_or_refused(
    name: str, tried: Callable[[], None], which: int, seeds: list[int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in environment().items():
            patch.setenv(variable, value)
        found = parser(name)
        document = found.seeds[which % len(found.seeds)]
        for seed in seeds:
            document = mutated(document, seed)
            tried()
            found.read(document)


def test_every_provider_over_http_is_in_the_matrix() -> None:
    over_http = {name for name, model in FEEDS.built_in.items() if "timeout" in model.model_fields}
    assert over_http == {case.name for case in CASES}


def test_a_build_of_a_provider_asks_nobody() -> None:
    for case in CASES:
        keys = {"provider": case.name, "url": "http://127.0.0.1:9"}
        try:
            FEEDS.model(case.name).model_validate(case.keys | keys)
        except CarbonschedError as e:  # pragma: no cover
            pytest.fail(str(e))


# ---- prices


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
@pytest.mark.parametrize("case", PRICE_CASES, ids=lambda case: case.name)
def test_the_matrix_of_prices(
    case: ProviderCase,
    fault: Fault,
    transport: HttpTransport,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cells = matrix.setdefault(f"prices of {case.name}", {})
    if (cannot := case.cannot.get(fault.name)) is not None:
        cells[fault.name] = f"cannot be: {cannot}"
        return
    for name, value in case.env.items():
        monkeypatch.setenv(name, value)
    true, clock = fault.change(world(fault.now, case.step)), ManualClock(fault.now)
    site = Site(Zone(name=case.zone), clock, tmp_path, transport)
    echoed = SECRET.encode() if case.env else b"none"

    def answer(path: str) -> Reply:
        reply = fault.spoil(case.answer(true, path))
        return replace(reply, body=reply.body.replace(b"SECRET", echoed))

    with serve(answer) as server:
        timeout = 0.2 if fault.name == "slow" else 2.0
        keys = case.keys | {"provider": case.name, "url": server.url, "timeout": timeout}
        tariff = {"provider": "static", "eur_per_kwh": 0.777, "source": "of this test"}
        chain = build_prices(
            [PRICES.model(str(one["provider"])).model_validate(one) for one in (keys, tariff)], site
        )
        assert chain is not None
        began = time.monotonic()
        chain.poll_due()
        assert time.monotonic() - began < 20.0
    price, status = chain.reading_at(fault.now), chain.status()[0]
    assert price is not None
    assert "Traceback" not in caplog.text
    assert SECRET not in caplog.text + (status.error or "")
    if price.source.kind is Kind.FALLBACK:
        assert price.eur_per_kwh == 0.777
        cells[fault.name] = reason_of_fallback(fault, status).replace(server.url, "URL")
        return
    assert fault.value or fault.either, f"{price.eur_per_kwh} EUR/kWh in spite of it"
    [now] = {s for s in true.slots if s.start <= fault.now < s.end}
    assert price.eur_per_kwh == pytest.approx((eur_per_mwh(now) or 0.0) / 1000)
    assert (price.start, price.end) == (now.start, now.end)
    ahead = chain.ahead(fault.now + timedelta(hours=12))
    assert [p.eur_per_kwh for p in ahead] == pytest.approx(
        [
            (eur_per_mwh(s) or 0.0) / 1000
            for s in dict.fromkeys(true.between(fault.now, fault.now + timedelta(hours=12)))
        ]
    )
    cells[fault.name] = f"{price.eur_per_kwh:g} EUR/kWh, {price.source.kind}"


def test_every_provider_of_prices_over_http_is_in_the_matrix() -> None:
    over_http = {name for name, model in PRICES.built_in.items() if "timeout" in model.model_fields}
    assert over_http == {case.name for case in PRICE_CASES}
