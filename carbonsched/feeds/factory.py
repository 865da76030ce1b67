"""Builds the feeds that the config asks for, in its order, into one chain."""

from collections.abc import Sequence

from carbonsched.errors import InputError
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
            feeds.append(build_feed(settings, i, site))
        except Exception as e:
            raise build_error(e, each, f"feeds[{i}]") from e
    return Chain(feeds, site.zone, site.clock)


def build_feed(settings: Sequence[FeedSettings], i: int, site: Site) -> Feed:
    """One feed of a chain, of which those before it are trusted more; a constant behind constants alone is the stated source.

    Raises InputError where `zone.basis` alone states its basis and another feed follows the grid, too: which of them that
    word is of would be a guess. A constant may stand beside it.
    """
    feed = settings[i].build(site)
    if isinstance(feed, StaticFeed) and all(isinstance(one, StaticSettings) for one in settings[:i]):
        feed.as_source()
    beside = [one for one in settings if one is not settings[i] and not isinstance(one, StaticSettings)]
    if getattr(feed, "by_zone", False) and beside:
        problem = f"its provider does not state it, and {feed.name} stands beside {beside[0].shown_name}"
        hint = f'add basis = "{feed.basis}" to this feed if you know that its values are that, or drop it'
        raise InputError("basis", problem, hint)
    return feed
