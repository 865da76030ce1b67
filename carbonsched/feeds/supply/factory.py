"""Builds the chain of the site's own supply that the config asks for, in its order."""

from collections.abc import Sequence

from carbonsched.feeds.base import Site
from carbonsched.feeds.supply.base import SupplySettings, supply_gates
from carbonsched.feeds.supply.chain import SupplyChain
from carbonsched.settings import build_error, check_names


def build_supply(settings: Sequence[SupplySettings], site: Site) -> SupplyChain | None:
    """The chain of these feeds; None where there are none. Raises InputError, e.g. `supply[0].g_per_kwh: …`."""
    if not settings:
        return None
    check_names("supply", [one.shown_name for one in settings])
    feeds = []
    for i, each in enumerate(settings):
        try:
            feeds.append(each.build(site))
        except Exception as e:
            raise build_error(e, each, f"supply[{i}]") from e
    return SupplyChain(feeds, site.clock, supply_gates(), "supply")
