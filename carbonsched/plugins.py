"""Finds the feeds, power meters, training methods and report formats that other distributions add by entry points.

A site adds its own by installing a package; it forks nothing. The programs list the names without importing a plugin,
and import the one that a config or a command asks for. A plugin that fails hurts only who asks for it: `load` raises
one line that names the distribution, the entry point and what to do. Standard library only, for the daemon, the command
line and the trainer all read this file.
"""

import logging
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Final, TypeVar

from carbonsched.errors import InputError

FEEDS: Final = "carbonsched.feeds"
"""Entry points whose object is a settings model of a grid feed."""
PRICES: Final = "carbonsched.prices"
"""Entry points whose object is a settings model of a source of prices."""
SUPPLY: Final = "carbonsched.supply"
"""Entry points whose object is a settings model of a feed of the site's own supply."""
POWER: Final = "carbonsched.power"
"""Entry points whose object is a settings model of a power meter."""
METHODS: Final = "carbonsched.methods"
"""Entry points whose object is a training method."""
REPORT_FORMATS: Final = "carbonsched.report_formats"
"""Entry points whose object is a report format."""

log = logging.getLogger(__name__)
_T = TypeVar("_T")


def names(group: str, built_in: Iterable[str] = ()) -> tuple[str, ...]:
    """The names that plugins add to `group`, ascending; nothing is imported.

    A plugin that takes the name of a built-in, or one that two distributions claim, is left out, with one line in the
    log: what a config or a report meant yesterday must not change because a package was installed.

    >>> names("carbonsched.nothing")
    ()
    """
    return tuple(_find(group, built_in))


def load(group: str, name: str, check: Callable[[object], _T], built_in: Iterable[str] = ()) -> _T:
    """Import the plugin `name` of `group` and answer what `check` makes of its object.

    check: raises TypeError where the object is not what the group wants, saying what it should be.

    Raises InputError in one line: no such plugin, it cannot be imported, or it is of the wrong shape.
    """
    plugins = _find(group, built_in)
    if name not in plugins:
        known = ", ".join(plugins) or "none"
        raise InputError(
            group, f"no installed plugin is called {name!r}", f"installed plugins of this group: {known}"
        )
    plugin = plugins[name]
    try:
        found = plugin.load()
    except (Exception, SystemExit) as e:  # a plugin's own code runs here: it may raise anything
        problem = " ".join(f"{type(e).__name__}: {e}".split())
        raise InputError(
            _where(plugin),
            f"cannot be imported: {problem}",
            f"fix or uninstall {_distribution(plugin)}",
        ) from e
    try:
        return check(found)
    except TypeError as e:
        raise InputError(
            _where(plugin), f"{plugin.value} {e}", f"fix or uninstall {_distribution(plugin)}"
        ) from e


def _find(group: str, built_in: Iterable[str]) -> dict[str, EntryPoint]:
    taken = frozenset(built_in)
    found: dict[str, EntryPoint] = {}
    refused: set[str] = set()
    for plugin in sorted(entry_points(group=group), key=lambda p: (p.name, _distribution(p))):
        other = found.get(plugin.name)
        if plugin.name in taken:
            _refuse(plugin, "this name is a built-in's")
        elif plugin.name in refused:
            _refuse(plugin, "another distribution claims this name too")
        elif other is None:
            found[plugin.name] = plugin
        elif _distribution(other) != _distribution(plugin):
            refused.add(plugin.name)
            _refuse(found.pop(plugin.name), f"{_distribution(plugin)} claims this name too")
            _refuse(plugin, f"{_distribution(other)} claims this name too")
    return found


def _refuse(plugin: EntryPoint, why: str) -> None:
    log.warning(
        "%s is not used: %s; rename the entry point or uninstall %s",
        _where(plugin),
        why,
        _distribution(plugin),
    )


def _where(plugin: EntryPoint) -> str:
    return f"plugin {plugin.name!r} of {_distribution(plugin)} ({plugin.group})"


def _distribution(plugin: EntryPoint) -> str:
    return plugin.dist.name if plugin.dist is not None else "an unnamed distribution"
