"""Builds the feeds that the config asks for, in its order, into one chain."""

from collections.abc import Sequence

from carbonsched.feeds.base import Feed, FeedSettings, Site
from carbonsched.feeds.chain import Chain
from carbonsched.feeds.static import StaticFeed, StaticSettings
from carbonsched.settings import build_error, check_names


def build_chain(settings: Sequence[FeedSettings], site: Site) -> Chain:
    """The chain of these feeds. Raises InputError, e.g. `feeds[0].country: 'DEE' is not a country's …`."""
    check_names("feeds", [one.shown_name for one in settings])
    feeds: list[Feed] = []
    for i, each in enumerate(settings):
        try:
            feeds.append(build_feed(each, settings[:i], site))
        except Exception as e:
            raise build_error(e, each, f"feeds[{i}]") from e
    return Chain(feeds, site.zone, site.clock)


def build_feed(settings: FeedSettings, before: Sequence[FeedSettings], site: Site) -> Feed:
    """One feed of a chain. `before`: those that are trusted more; a constant behind constants alone is the stated source."""
    feed = settings.build(site)
    if isinstance(feed, StaticFeed) and all(isinstance(one, StaticSettings) for one in before):
        feed.as_source()
    return feed
