"""`carbonsched grid --setup`: propose the chain of feeds for a place, write its lines of the config, and probe them."""

import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from carbonsched import text
from carbonsched.clock import SystemClock
from carbonsched.config import FEEDS, Config
from carbonsched.errors import FeedError, InputError
from carbonsched.feeds.base import Site
from carbonsched.feeds.setup.coverage import Offer
from carbonsched.feeds.setup.places import Found, find
from carbonsched.feeds.setup.proposal import Built, propose
from carbonsched.feeds.transport import Body
from carbonsched.feeds.zone import Zone
from carbonsched.model.grid import Basis
from carbonsched.model.grid_setup import GridSetup

_EXAMPLES: Final = (
    'a country ("Germany", "DE"), a city, coordinates ("52.5,13.4") or a cloud\'s region ("eu-central-1")'
)


@dataclass(frozen=True, slots=True)
class SetupRequest:
    """The values of the flags.

    Example:
        >>> SetupRequest(place="Berlin", dry_run=True).output is None
        True
    """

    place: str | None = None
    basis: str | None = None
    account: bool = True
    dry_run: bool = False
    output: Path | None = None
    json: bool = False


def setup(request: SetupRequest) -> GridSetup:
    """The chain for a place; without --dry-run it is also written and probed. Raises InputError."""
    basis = _basis(request.basis)
    found = _asked(request)
    proposed = propose(found, lambda offer: built(offer, found), basis=basis, account=request.account)
    if request.dry_run or not proposed.feeds:
        return proposed
    if request.output is not None:
        _write(request.output, proposed.toml)
        proposed = proposed.model_copy(update={"written": str(request.output)})
    from carbonsched.cli.grid_probe import probe

    folder = (request.output or Path("grid.toml")).resolve().parent
    config = Config.parse(tomllib.loads(proposed.toml), folder=folder)
    return proposed.model_copy(update={"probe": probe(config).feeds})


def built(offer: Offer, found: Found) -> Built | None:
    """The properties of an offer's feed; None if this version cannot build it."""
    if offer.provider not in FEEDS.built_in:
        return None
    settings = FEEDS.model(offer.provider).model_validate(offer.keys)
    site = Site(Zone(name=found.zone.key), SystemClock(), Path("/nonexistent"), network=_Silent())
    feed = settings.build(site)
    return Built(feed.basis, getattr(feed, "UNVERIFIED", ""))


class _Silent:
    """A network without access: a proposal is made offline."""

    def get(self, *_: Any, **__: Any) -> Body:
        raise FeedError("asked while a chain is only proposed")

    def post(self, *_: Any, **__: Any) -> Body:
        raise FeedError("asked while a chain is only proposed")


def _basis(name: str | None) -> Basis | None:
    try:
        return None if name is None else Basis(name)
    except ValueError as e:
        raise InputError("--basis", f"{name!r} is none", f"choose one of {', '.join(Basis)}") from e


def _asked(request: SetupRequest) -> Found:
    """The zone of --place, or of the text typed at a terminal, which is asked again if the text is unknown."""
    if request.place is not None:
        return find(request.place)
    if request.json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise InputError("--place", "is missing, and there is no terminal to ask on", f"give {_EXAMPLES}")
    import typer

    while True:
        said = typer.prompt(f"Where does this box stand? {_EXAMPLES}", prompt_suffix=":\n> ", err=True)
        try:
            return find(said)
        except InputError as e:
            print(e, file=sys.stderr)


def _write(path: Path, toml: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(toml)
    except FileExistsError as e:
        hint = "choose another file, or put the lines that --dry-run shows into it"
        raise InputError("--output", f"{path} is there already", hint) from e
    except OSError as e:
        raise InputError("--output", f"{path} cannot be written: {e.strerror}", "choose another file") from e


def show(proposed: GridSetup) -> None:
    """For people: the place, the feeds, the reasons, and the lines."""
    from carbonsched.cli import output as o

    out = o.console()
    out.print(f"{proposed.zone}, {proposed.zone_name}: {proposed.why}.", soft_wrap=False)
    out.print()
    if proposed.feeds:
        rows = o.table("FEED", "STEP", "AHEAD", "ACCOUNT", "COST", "LACKS", wrap=("COST", "LACKS"))
        for feed in proposed.feeds:
            step = "a year" if feed.step_min is None else f"{feed.step_min} min"
            ahead = f"{feed.forecast_h:g} h" if feed.forecast_h else "-"
            rows.add_row(feed.provider, step, ahead, "yes" if feed.account else "none", feed.cost, feed.lacks)
        out.print(rows)
        for feed in proposed.feeds:
            if feed.account:
                out.print(f"Account of {feed.provider}: {feed.account}.")
            if feed.unverified:
                out.print(f"Unverified, {feed.provider}: {feed.unverified}")
        out.print()
    if proposed.written:
        out.print(f"Written to {proposed.written}.")
    else:
        sys.stdout.write(text.visible(proposed.toml))
    if proposed.probe is not None:
        from carbonsched.cli.grid_probe import table

        out.print()
        out.print(table(proposed.probe))
