"""The site's own supply in `carbonsched grid`, and the polls of its feeds by `--probe`."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from carbonsched import text
from carbonsched.errors import CarbonschedError
from carbonsched.feeds.base import Site
from carbonsched.feeds.supply.base import SupplySettings, supply_gates
from carbonsched.feeds.supply.chain import SupplyChain
from carbonsched.model.grid import SupplyReading, SupplyView
from carbonsched.model.grid_setup import SupplyProbe
from carbonsched.settings import build_error, check_names

if TYPE_CHECKING:
    from rich.table import Table


def supplied(supply: SupplyView) -> str:
    """The present supply, in words."""
    if supply.provider is None:
        return f"not known: {supply.reason or 'no feed has answered yet'}"
    power = "" if supply.kw is None else f"{text.figure(supply.kw, 'kW')}, "
    share = "a share that is not known" if supply.share is None else f"{supply.share:.1%}"
    note = f", {supply.note}" if supply.note else ""
    kind = supply.kind.shown if supply.kind else "of no kind"
    doubt = "" if supply.doubt is None else f"; {supply.doubt}"
    return f"{power}{share} of the box's energy now ({text.source(supply.provider, kind)}{note}){doubt}"


def probe(settings: Sequence[SupplySettings], site: Site) -> tuple[SupplyProbe, ...]:
    """Poll each feed once. Raises InputError if two share a name."""
    check_names("supply", [one.shown_name for one in settings])
    return tuple(_probed(each, f"supply[{i}]", site) for i, each in enumerate(settings))


def _probed(settings: SupplySettings, where: str, site: Site) -> SupplyProbe:
    try:
        chain = SupplyChain([settings.build(site)], site.clock, supply_gates(), "supply")
    except (Exception, SystemExit) as e:
        error = build_error(e, settings, where) if isinstance(e, Exception) else e
        if not isinstance(error, CarbonschedError):
            raise error from e
        return _probe_of(settings, None, None, str(error))
    began = site.clock.monotonic()
    chain.poll_due()
    latency_s = site.clock.monotonic() - began
    reading, [status] = chain.reading_at(site.clock.now()), chain.status()
    problem = status.error
    if problem is None and reading is None:
        problem = f"its newest value is older than max_age ({text.duration(settings.max_age)})"
    return _probe_of(settings, reading, round(latency_s, 3), problem, ok=status.state == "ok")


def _probe_of(
    settings: SupplySettings,
    reading: SupplyReading | None,
    latency_s: float | None,
    error: str | None,
    *,
    ok: bool = False,
) -> SupplyProbe:
    known = reading is not None
    return SupplyProbe(
        name=settings.shown_name,
        provider=settings.provider,
        ok=ok and known,
        amount=reading.amount if reading is not None else None,
        unit=reading.unit if reading is not None else settings.unit,
        g_per_kwh=reading.g_per_kwh if reading is not None else settings.g_per_kwh,
        kind=reading.source.kind if reading is not None else None,
        note=reading.source.note if reading is not None else "",
        start=reading.start if reading is not None else None,
        end=reading.end if reading is not None else None,
        latency_s=latency_s,
        error=error,
    )


def table(probes: Iterable[SupplyProbe]) -> "Table":
    """For people: one row per feed."""
    from carbonsched.cli import output as o

    rows = o.table("SUPPLY", "", "GIVES", "UNTIL", "TOOK", "SAYS", right=("GIVES", "TOOK"), wrap=("SAYS",))
    for each in probes:
        took = "-" if each.latency_s is None else f"{each.latency_s:.2f} s"
        gives = text.figure(each.amount, "kW" if each.unit == "kw" else "")
        said = each.error or "; ".join(part for part in (each.kind and each.kind.shown, each.note) if part)
        rows.add_row(each.name, "ok" if each.ok else "FAILS", gives, text.moment(each.end), took, said)
    return rows
