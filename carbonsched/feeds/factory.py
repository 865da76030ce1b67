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
            feeds.append(build_feed(each, settings[:i], site))
        except Exception as e:
            raise build_error(e, each, f"feeds[{i}]") from e
    _check_stated(feeds)
    return Chain(feeds, site.zone, site.clock)


def build_feed(settings: FeedSettings, before: Sequence[FeedSettings], site: Site) -> Feed:
    """One feed of a chain. `before`: those that are trusted more; a constant behind constants alone is the stated source."""
    feed = settings.build(site)
    if isinstance(feed, StaticFeed) and all(isinstance(one, StaticSettings) for one in before):
        feed.as_source()
    return feed


def _check_stated(feeds: Sequence[Feed]) -> None:
    """Raises InputError where a feed whose basis only `zone.basis` states is one of several that follow the grid.

    Behind it a constant may stand. Which of several the zone's word is of would be a guess.
    """
    follow = [feed for feed in feeds if not isinstance(feed, StaticFeed)]
    for i, feed in enumerate(feeds):
        if getattr(feed, "by_zone", False) and len(follow) > 1:
            other = next(one for one in follow if one is not feed)
            problem = f"its provider does not state it, and {feed.name} stands beside {other.name}"
            hint = f'add basis = "{feed.basis}" to this feed if you know that its values are that, or drop it'
            raise InputError(f"feeds[{i}].basis", problem, hint)
