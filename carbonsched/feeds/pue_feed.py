"""Asks a Prometheus for the facility's PUE: what a DCIM or a building's control publishes there."""

from typing import Final, Literal

from carbonsched.feeds.base import Site, SourceSettings
from carbonsched.feeds.plausibility import Gates
from carbonsched.feeds.providers.prometheus import PrometheusKeys, PrometheusSource
from carbonsched.feeds.value_chain import ValueChain
from carbonsched.model.grid import PueReading
from carbonsched.pue import MOST
from carbonsched.settings import build_error

_CALLED: Final = "PUE feed"


class PueFeedSettings(PrometheusKeys, SourceSettings):
    """Keys of `[pue_feed]`.

    Example:
        >>> PueFeedSettings(url="http://10.0.0.2:9090", query="avg(dcim_pue)").max_age
        7200.0
    """

    provider: Literal["prometheus"] = "prometheus"


def build_pue_feed(settings: PueFeedSettings | None, site: Site) -> ValueChain[PueReading] | None:
    """The chain of this one feed; None where there is none. Raises InputError whose field begins with `pue_feed`."""
    if settings is None:
        return None
    try:
        feed: PrometheusSource[PueReading] = PrometheusSource(settings, site, PueReading.of)
    except Exception as e:
        raise build_error(e, settings, "pue_feed") from e
    return ValueChain([feed], site.clock, pue_gates(), _CALLED)


def pue_gates() -> Gates[PueReading]:
    """A PUE lies between 1 and `MOST`; it may leap: free cooling begins in a minute."""

    def refusal(reading: PueReading) -> str | None:
        if 1 <= reading.pue <= MOST:  # no nan does
            return None
        at = f"{reading.start:%Y-%m-%dT%H:%MZ}"
        return f"refused a PUE of {reading.pue:g} for {at}: one lies between 1 and {MOST:g}"

    return Gates(refusal, lambda _before, _reading: None)
