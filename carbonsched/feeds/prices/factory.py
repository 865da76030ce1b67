"""Builds the price chain that the config asks for, in its order."""

from collections.abc import Sequence

from carbonsched.clock import Clock
from carbonsched.feeds.base import Site, ValueFeed
from carbonsched.feeds.plausibility import price_gates
from carbonsched.feeds.prices.base import PriceSettings
from carbonsched.feeds.prices.static import StaticPrice, StaticPriceSettings
from carbonsched.feeds.value_chain import ValueChain
from carbonsched.model.grid import Price
from carbonsched.settings import build_error, check_names


def build_prices(settings: Sequence[PriceSettings], site: Site) -> ValueChain[Price] | None:
    """The chain of these sources; None where there are none. Raises InputError, e.g. `prices[0].zone: is missing; …`."""
    if not settings:
        return None
    check_names("prices", [one.shown_name for one in settings])
    sources = []
    for i, each in enumerate(settings):
        try:
            sources.append(build_price(each, settings[:i], site))
        except Exception as e:
            raise build_error(e, each, f"prices[{i}]") from e
    return price_chain(sources, site.clock)


def price_chain(sources: Sequence[ValueFeed[Price]], clock: Clock) -> ValueChain[Price]:
    """The chain of sources that are built."""
    return ValueChain(sources, clock, price_gates(), "price feed")


def build_price(settings: PriceSettings, before: Sequence[PriceSettings], site: Site) -> ValueFeed[Price]:
    """One source. `before`: those that are trusted more; a tariff behind tariffs alone is the stated source."""
    source = settings.build(site)
    if isinstance(source, StaticPrice) and all(isinstance(one, StaticPriceSettings) for one in before):
        source.as_source()
    return source
