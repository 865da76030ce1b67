"""Makes the tables of docs/grid.md: the proposals of `grid --setup` for 60 places, and the price and limits of each provider.

python -m carbonsched.cli.grid_places docs/grid.md
"""

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from carbonsched.cli.grid_setup import SetupRequest, setup
from carbonsched.config import FEEDS
from carbonsched.feeds.setup.coverage import TERMS
from carbonsched.feeds.setup.places import find
from carbonsched.model.grid_setup import GridSetup

CAPITALS: Final = (
    "Amsterdam, Athens, Berlin, Brasília, Brussels, Canberra, Copenhagen, Dublin, Helsinki, Lisbon, London, Madrid, New Delhi, "
    "Oslo, Ottawa, Paris, Pretoria, Rome, Singapore, Stockholm, Tokyo, Vienna, Warsaw, Washington, Wellington"
)
AWS: Final = "ap-south-1, eu-central-1, eu-north-1, eu-west-1, sa-east-1, us-east-1, us-west-1, us-west-2, ca-central-1"
AZURE: Final = (
    "eastus, westeurope, northeurope, uksouth, swedencentral, southcentralus, australiaeast, norwayeast"
)
GOOGLE: Final = (
    "us-central1, europe-west1, europe-west4, europe-north1, asia-east1, us-south1, us-west4, africa-south1"
)
UNIVERSITIES: Final = (
    "MIT, Stanford University, Carnegie Mellon University, University of Oxford, University of Edinburgh, ETH Zurich, "
    "TU Munich, KTH, University of Tokyo, University of Melbourne"
)
PLACES: Final = tuple(f"{CAPITALS}, {AWS}, {AZURE}, {GOOGLE}, {UNIVERSITIES}".split(", "))
"""Capitals, regions of the three large clouds, ten universities."""


def tables() -> dict[str, str]:
    """Name → Markdown."""
    return {"places": _places(), "providers": _providers()}


def filled(page: str) -> str:
    """The page with the tables of today between `<!-- NAME -->` and `<!-- end -->`."""
    for name, table in tables().items():
        page = re.sub(rf"(<!-- {name} -->\n).*?(<!-- end -->)", rf"\g<1>\n{table}\n\g<2>", page, flags=re.S)
    return page


def _places() -> str:
    proposed = [setup(SetupRequest(place=place, dry_run=True)) for place in PLACES]
    heads = ("place", "zone", "feeds, in order", "basis", "looks ahead", "live without an account", "lacks")
    return _markdown(heads, (_row(one) for one in proposed))


def _row(one: GridSetup) -> tuple[str, ...]:
    live = [feed for feed in one.feeds if feed.step_min is not None]
    ahead = max((feed.forecast_h for feed in live), default=0.0)
    free = [feed.provider for feed in live if not feed.account]
    rest = [f"{', '.join(other.providers)} ({other.basis})" for other in one.others]
    lacks = [
        *(["a live feed"] if not live else ["a forecast"] if not ahead else []),
        *(["a constant behind the live feeds"] if live and len(live) == len(one.feeds) else []),
    ]
    beside = f"; apart: {', '.join(rest)}" if rest else ""
    place = find(one.place).place
    return (
        one.place if place is None else place.shown,
        one.zone,
        (", ".join(feed.provider for feed in one.feeds) or "none") + beside,
        one.basis,
        f"{ahead:g} h" if ahead else "-",
        ", ".join(free) or "-",
        ", ".join(lacks) or "-",
    )


def _providers() -> str:
    heads = ("provider", "a value every", "looks ahead", "account", "cost", "lacks")
    rows = (
        (
            f"`{name}`",
            "year" if terms.step_min is None else f"{terms.step_min} min",
            f"{terms.forecast_h:g} h" if terms.forecast_h else "-",
            terms.account or "none",
            terms.cost,
            terms.lacks,
        )
        for name, terms in TERMS.items()
        if name in FEEDS.built_in
    )
    return _markdown(heads, rows)


def _markdown(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


if __name__ == "__main__":
    page = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/grid.md")
    page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
