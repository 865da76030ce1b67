"""`carbonsched grid --probe`: poll each configured feed once, as the daemon would, and report the result."""

import logging
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from carbonsched import text
from carbonsched.cli import grid_prices, grid_supply
from carbonsched.clock import SystemClock
from carbonsched.config import Config, load
from carbonsched.errors import CarbonschedError, FeedError
from carbonsched.feeds.base import Feed, FeedSettings, Site
from carbonsched.feeds.chain import Chain, check_basis
from carbonsched.feeds.factory import build_feed
from carbonsched.feeds.provider import HttpFeed
from carbonsched.model.grid_setup import FeedProbe, ProbeList
from carbonsched.settings import build_error, check_names

if TYPE_CHECKING:
    from rich.table import Table

DEFAULT_CONFIG = Path("/etc/carbonsched/config.toml")


def probe_file(path: Path | None) -> ProbeList:
    """Probe the feeds of a config file. Raises InputError if it is unreadable."""
    return probe(load(path or DEFAULT_CONFIG))


def probe(config: Config) -> ProbeList:
    """Poll each feed once, also those after a healthy one. Nothing is kept, neither a body nor the position of a replay.

    Raises InputError if two feeds share a name.
    """
    check_names("feeds", [one.shown_name for one in config.feeds])
    check_names("prices", [one.shown_name for one in config.prices])
    logging.getLogger("carbonsched").addHandler(logging.NullHandler())  # failures are in the table
    with tempfile.TemporaryDirectory(prefix="carbonsched-probe-") as folder:
        site = Site(config.zone, SystemClock(), Path(folder))
        feeds = tuple(_probed(i, config.feeds, site) for i in range(len(config.feeds)))
        return ProbeList(
            feeds=feeds,
            prices=grid_prices.probe(config.prices, site),
            supply=grid_supply.probe(config.supply, site),
        )


def _probed(i: int, feeds: Sequence[FeedSettings], site: Site) -> FeedProbe:
    settings = feeds[i]
    try:
        feed = build_feed(feeds, i, site)
        check_basis(feed, site.zone, f"feeds[{i}]")
        chain = Chain([feed], site.zone, site.clock)
    except (Exception, SystemExit) as e:
        error = build_error(e, settings, f"feeds[{i}]") if isinstance(e, Exception) else e
        if not isinstance(error, CarbonschedError):
            raise error from e
        return _failed(settings, str(error))
    return _asked(settings, feed, chain, site)


def _failed(settings: FeedSettings, error: str) -> FeedProbe:
    return FeedProbe(
        name=settings.shown_name,
        provider=settings.provider,
        ok=False,
        value=None,
        kind=None,
        start=None,
        end=None,
        horizon_h=None,
        latency_s=None,
        basis=settings.basis,
        error=error,
        unverified=None,
    )


def _asked(settings: FeedSettings, feed: Feed, chain: Chain, site: Site) -> FeedProbe:
    began = site.clock.monotonic()
    chain.poll_due()
    latency_s = site.clock.monotonic() - began
    now = site.clock.now()
    reading, forecast, [status] = chain.reading_at(now), chain.forecast(), chain.status()
    error = status.error
    if error is None and reading is None:
        error = f"its newest value is older than max_age ({text.duration(settings.max_age)})"
    return FeedProbe(
        name=feed.name,
        provider=settings.provider,
        ok=status.state == "ok" and reading is not None,
        value=reading.g_per_kwh if reading is not None else None,
        kind=reading.source.kind if reading is not None else None,
        start=reading.start if reading is not None else None,
        end=reading.end if reading is not None else None,
        horizon_h=round((forecast.points[-1].end - now).total_seconds() / 3600, 2) if forecast else None,
        latency_s=round(latency_s, 3),
        basis=feed.basis,
        error=error,
        unverified=getattr(feed, "UNVERIFIED", "") or None,
        may_read=_may_read(feed, failed=error is not None),
    )


def _may_read(feed: Feed, *, failed: bool) -> str | None:
    """Also requested if the feed failed, since it may explain why a plan refused."""
    if not isinstance(feed, HttpFeed):
        return None
    try:
        return feed.may_read()
    except FeedError as e:
        return None if failed else f"not told: {e}"


def table(feeds: Iterable[FeedProbe]) -> "Table":
    """For people: one row per feed."""
    from carbonsched.cli import output as o

    columns = ("FEED", "", "g/kWh", "UNTIL", "AHEAD", "TOOK", "SAYS")
    rows = o.table(*columns, right=("g/kWh", "AHEAD", "TOOK"), wrap=("SAYS",))
    for feed in feeds:
        ahead = "-" if feed.horizon_h is None else f"{feed.horizon_h:.1f} h"
        took = "-" if feed.latency_s is None else f"{feed.latency_s:.2f} s"
        said = [feed.error or (f"{feed.basis}, {feed.kind.shown}" if feed.kind else "")]
        said += [f"may read {feed.may_read}"] if feed.may_read else []
        said += [f"unverified: {feed.unverified}"] if feed.unverified else []
        rows.add_row(
            feed.name,
            "ok" if feed.ok else "FAILS",
            text.figure(feed.value),
            text.moment(feed.end),
            ahead,
            took,
            "; ".join(said),
        )
    return rows
