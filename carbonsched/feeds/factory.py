"""Builds the feeds that the config asks for, in its order, into one chain."""

from collections.abc import Sequence

from carbonsched.errors import InputError
from carbonsched.feeds.base import Feed, FeedSettings, Site
from carbonsched.feeds.chain import Chain
from carbonsched.settings import build_error


def build_chain(settings: Sequence[FeedSettings], site: Site) -> Chain:
    """The chain of these feeds. Raises InputError, e.g. `feeds[0].country: 'DEE' is not a country's …`."""
    feeds: list[Feed] = []
    for i, each in enumerate(settings):
        if each.shown_name in [feed.name for feed in feeds]:
            raise InputError(
                f"feeds[{i}].name",
                f"{each.shown_name!r} is taken by a feed before",
                "give each feed its own name",
            )
        try:
            feeds.append(each.build(site))
        except Exception as e:
            raise build_error(e, each, f"feeds[{i}]") from e
    return Chain(feeds, site.zone, site.clock)
