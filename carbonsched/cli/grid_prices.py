"""The price of a kWh, in `carbonsched grid` and `grid --probe`."""

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from carbonsched import text
from carbonsched.errors import CarbonschedError
from carbonsched.feeds.base import Site
from carbonsched.feeds.prices.base import PriceSettings
from carbonsched.feeds.prices.factory import build_price, price_chain
from carbonsched.model.grid import PriceView
from carbonsched.model.grid_setup import FeedProbe
from carbonsched.settings import build_error

if TYPE_CHECKING:
    from rich.table import Table

ROWS = 24
_AHEAD = timedelta(days=14)


def show(view: PriceView) -> None:
    """For people: the present and published prices, and their sources."""
    from carbonsched.cli import output as o
    from carbonsched.cli.grid import every_nth, sparkline

    out = o.console()
    out.print()
    if view.now is None:
        out.print(f"PRICE  not known: {view.reason}", markup=False, soft_wrap=True)
    else:
        source = view.now.source
        note = f", {source.note}" if source.note else ""
        out.print(
            f"PRICE  {text.figure(view.now.eur_per_kwh, 'EUR/kWh')} ({source.provider}, {source.kind.shown}{note}) "
            f"until {text.moment(view.now.end)}",
            markup=False,
            soft_wrap=True,
        )
    if len(view.ahead) > 1:
        values = [point.eur_per_kwh for point in view.ahead]
        out.print(
            f"AHEAD  {sparkline(values)}  {text.figure(min(values))} to {text.figure(max(values))} EUR/kWh"
        )
        rows = o.table("FROM", "TO", "EUR/kWh", right=("EUR/kWh",))
        for point in every_nth(view.ahead, ROWS):
            rows.add_row(text.moment(point.start), text.moment(point.end), text.figure(point.eur_per_kwh))
        out.print(rows)
    sources = o.table("PRICES", "STATE", "LAST SUCCESS", "ERROR", wrap=("ERROR",))
    for one in view.feeds:
        sources.add_row(one.name, one.state, text.moment(one.last_success), one.error or "")
    out.print(sources)


def probe(settings: Sequence[PriceSettings], site: Site) -> tuple[FeedProbe, ...]:
    """Poll each source once; values in EUR/kWh."""
    return tuple(_probed(i, settings, site) for i in range(len(settings)))


def _probed(i: int, every: Sequence[PriceSettings], site: Site) -> FeedProbe:
    settings = every[i]
    facts = {"name": settings.shown_name, "provider": settings.provider, "basis": None}
    nothing = dict.fromkeys(("value", "kind", "start", "end", "horizon_h", "latency_s", "unverified"))
    try:
        source = build_price(settings, every[:i], site)
    except (Exception, SystemExit) as e:
        why = build_error(e, settings, f"prices[{i}]") if isinstance(e, Exception) else e
        if not isinstance(why, CarbonschedError):
            raise why from e
        return FeedProbe.model_validate(facts | nothing | {"ok": False, "error": str(why)})
    chain, began = price_chain([source], site.clock), site.clock.monotonic()
    chain.poll_due()
    latency_s, now = site.clock.monotonic() - began, site.clock.now()
    price, ahead, [status] = chain.reading_at(now), chain.ahead(now + _AHEAD), chain.status()
    error = status.error
    if error is None and price is None:
        error = f"its newest price is older than max_age ({text.duration(settings.max_age)})"
    return FeedProbe.model_validate(
        facts
        | {
            "ok": status.state == "ok" and price is not None,
            "value": price.eur_per_kwh if price is not None else None,
            "kind": price.source.kind if price is not None else None,
            "start": price.start if price is not None else None,
            "end": price.end if price is not None else None,
            "horizon_h": round((ahead[-1].end - now).total_seconds() / 3600, 2) if ahead else None,
            "latency_s": round(latency_s, 3),
            "error": error,
            "unverified": getattr(source, "UNVERIFIED", "") or None,
        }
    )


def table(probed: Sequence[FeedProbe]) -> "Table":
    """For people: one row per source."""
    from carbonsched.cli import output as o

    rows = o.table(
        "PRICES",
        "",
        "EUR/kWh",
        "UNTIL",
        "AHEAD",
        "TOOK",
        "SAYS",
        right=("EUR/kWh", "AHEAD", "TOOK"),
        wrap=("SAYS",),
    )
    for one in probed:
        rows.add_row(
            one.name,
            "ok" if one.ok else "FAILS",
            text.figure(one.value),
            text.moment(one.end),
            "-" if one.horizon_h is None else f"{one.horizon_h:.1f} h",
            "-" if one.latency_s is None else f"{one.latency_s:.2f} s",
            one.error or (one.kind.shown if one.kind else ""),
        )
    return rows
