"""Proposes the chain of feeds for a place: all of one basis, in order of trust, with the lines of the config that ask them.

Pure: what a feed's values mean is asked of `build`, which makes it of its keys and asks no network.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from carbonsched.errors import InputError
from carbonsched.feeds.setup.coverage import Offer, offers
from carbonsched.feeds.setup.places import Found
from carbonsched.model.grid import Basis
from carbonsched.model.grid_setup import GridSetup, OtherChain, ProposedFeed

_STATIC: Final = "static"


@dataclass(frozen=True, slots=True)
class Built:
    """What a feed says of itself.

    Example:
        >>> Built(Basis.AVERAGE_DIRECT).unverified
        ''
    """

    basis: Basis
    unverified: str = ""


Build = Callable[[Offer], Built | None]
"""Makes the feed of an offer's keys; None where this version has no such provider."""


def propose(found: Found, build: Build, *, basis: Basis | None = None, account: bool = True) -> GridSetup:
    """The chain for a place. basis: of all its feeds; None: the best there is. account: whether it may need any.

    Raises InputError where `basis` is one that no feed of the place speaks.
    """
    groups: dict[Basis, list[ProposedFeed]] = {}
    for offer in offers(found):
        if (account or not offer.terms.account) and (built := build(offer)) is not None:
            groups.setdefault(built.basis, []).append(_feed(offer, built))
    if basis is not None and basis not in groups:
        spoken = ", ".join(groups) or "none"
        raise InputError("--basis", f"no feed of {found.zone.key} speaks {basis}", f"spoken here: {spoken}")
    chosen = basis or _best(groups)
    feeds = tuple(groups.pop(chosen, ()))
    others = tuple(OtherChain(basis=other, providers=_names(rest)) for other, rest in groups.items())
    return GridSetup(
        place=found.said,
        how=found.how,
        zone=found.zone.key,
        zone_name=found.zone.name,
        country=found.country.alpha_2,
        distance_km=found.km,
        basis=chosen,
        feeds=feeds,
        why=_why(found, chosen, feeds, others),
        others=others,
        toml=_toml(found, chosen, feeds),
    )


def _feed(offer: Offer, built: Built) -> ProposedFeed:
    terms = offer.terms
    return ProposedFeed(
        provider=offer.provider,
        settings=offer.keys,
        basis=built.basis,
        step_min=terms.step_min,
        forecast_h=terms.forecast_h,
        account=terms.account or None,
        cost=terms.cost,
        lacks=terms.lacks,
        unverified=built.unverified or None,
    )


def _names(feeds: Iterable[ProposedFeed]) -> tuple[str, ...]:
    return tuple(feed.provider for feed in feeds)


def _best(groups: dict[Basis, list[ProposedFeed]]) -> Basis:
    """The basis of the most trusted live feed: a stated average before one that is not stated, and that before a constant.

    What is marginal answers another question, and is taken only where there is nothing else.
    """

    def rank(basis: Basis) -> int:
        if basis in (Basis.MARGINAL_DIRECT, Basis.MARGINAL_LIFECYCLE):
            return 3
        if all(feed.provider == _STATIC for feed in groups[basis]):
            return 2
        return 1 if basis is Basis.AVERAGE_UNSTATED else 0

    return min(groups, key=rank, default=Basis.AVERAGE_LIFECYCLE)


def _why(found: Found, basis: Basis, feeds: tuple[ProposedFeed, ...], others: tuple[OtherChain, ...]) -> str:
    said = [found.how]
    if found.parts:
        inside = ", ".join(zone.key for zone in found.parts)
        said.append(
            f"parts of the country are zones of their own, name one if the box stands in it: {inside}"
        )
    live = [feed for feed in feeds if feed.provider != _STATIC]
    if not feeds:
        said.append(
            "no provider of this version covers it: add provider static with g_per_kwh, basis and source of your own"
        )
    elif not live:
        said.append(
            "no live feed of this version covers it: a constant stands in, and nothing follows the grid"
        )
    else:
        said.append(
            f"one budget counts one basis, here {basis}: {', '.join(_names(live))} speak{'s' * (len(live) == 1)} it"
        )
        ahead = max(feed.forecast_h for feed in live)
        said.append(f"the furthest forecast is {ahead:g} h" if ahead else "none of them has a forecast")
        if len(live) == len(feeds):
            said.append(
                f"codecarbon's country mix is {Basis.AVERAGE_LIFECYCLE} and may not stand behind them"
                if basis is not Basis.AVERAGE_LIFECYCLE
                else "codecarbon has no mix of the country to stand behind them"
            )
            said[-1] += ": with a figure of your own (g_per_kwh, basis, source) provider static may"
    rest = [f"{other.basis} ({', '.join(other.providers)})" for other in others]
    if rest:
        said.append(f"in another basis there is {', '.join(rest)}: choose with --basis")
    return "; ".join(said)


def _toml(found: Found, basis: Basis, feeds: tuple[ProposedFeed, ...]) -> str:
    """Lines that the config's parser takes."""
    lines = [f"# {found.how}", "[zone]"]
    lines += [f"name = {_quoted(found.zone.key)}", f"basis = {_quoted(basis)}"]
    for feed in feeds:
        lines += ["", "[[feeds]]"]
        lines += [f"{key} = {_quoted(value)}" for key, value in feed.settings.items()]
        if feed.account:
            lines.append(f"# wants an account: {feed.account}")
        for key, value in feed.settings.items():
            if key.endswith("_file"):
                lines.append(f"# {value}: a file beside this one that holds it, chmod 600")
    return "\n".join([*lines, ""])


def _quoted(value: str) -> str:
    """A JSON string is a TOML string."""
    return json.dumps(value, ensure_ascii=False)
