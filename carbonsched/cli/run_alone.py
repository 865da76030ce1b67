"""Meters the command of `carbonsched run --ledger FILE` in this process, without a daemon, with the daemon's parts and rows.

FILE.d beside the ledger holds the contents of a daemon's state folder. If this process is killed the command goes on, unmetered; the next
`run` with the same ledger finds it, as a restarted daemon would.
"""

import logging
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from carbonsched.cli.ledger_file import open_ledger
from carbonsched.clock import SystemClock
from carbonsched.config import Config, load
from carbonsched.errors import InputError
from carbonsched.feeds.base import Site
from carbonsched.feeds.factory import build_chain
from carbonsched.feeds.prices.factory import build_prices
from carbonsched.feeds.pue_feed import build_pue_feed
from carbonsched.feeds.supply.factory import build_supply
from carbonsched.launch.local import LocalLauncher
from carbonsched.model.command import RunEnd, RunRequest, RunStarted, RunStatus, RunTotal
from carbonsched.model.job import Owner
from carbonsched.periodic import Periodic
from carbonsched.polling import Polling
from carbonsched.power.factory import build_meter
from carbonsched.supervisor import Supervisor
from carbonsched.supervisor.service import SupervisorService

_POLL_CHECK_S, _FIRST_POLL_S, _END_S = 1.0, 5.0, 30.0
"""Like the daemon's, except that the first poll is waited for: a short command would otherwise have no intensity."""


@dataclass(frozen=True, slots=True)
class Alone:
    """The replacement of `carbonsched.cli.client.Client` without a daemon.

    Example::

        with metering(Path("my.db"), None, 350.0) as alone:
            started = alone.begin_run(asked)
    """

    service: SupervisorService
    owner: Owner
    told: list[str] = field(default_factory=list)

    def begin_run(self, asked: RunRequest) -> RunStarted:
        """Also reports feeds that do not answer, since there is no daemon with a log."""
        started = self.service.begin_run(asked, self.owner)
        self.told.extend(self._silent())
        return started.model_copy(update={"notes": (*started.notes, *self.told)})

    def run_status(self, job_id: str) -> RunStatus:
        return self.service.run_status(job_id, self.owner)

    def end_run(self, job_id: str, told: RunEnd) -> RunTotal:
        total = self.service.end_run(job_id, told, self.owner)
        since = [note for note in self._silent() if note not in self.told]
        return total.model_copy(update={"notes": (*total.notes, *since)})

    def _silent(self) -> Iterator[str]:
        """The feeds of the PUE, of prices and of the site's own supply that do not answer, and the values used in their place."""
        supervisor = self.service.supervisor
        pue, source = supervisor.pue.at(supervisor.clock.now())
        for what, chain, instead in (
            ("pue_feed", supervisor.pue.chain, f"a PUE of {pue:g} is charged ({source})"),
            ("prices", supervisor.prices.chain, "what it costs is not known"),
            ("supply", supervisor.supply.chain, "all of it counts as the grid's"),
        ):
            for status in () if chain is None else chain.status():
                if status.error is not None or status.state in ("failing", "stale", "untried"):
                    yield f"{what}: {status.name} is {status.state}{': ' + status.error if status.error else ''}; {instead}"


@contextmanager
def metering(ledger_file: Path, config_file: Path | None, g_per_kwh: float | None) -> Iterator[Alone]:
    """Tick in a thread until the context ends. Raises CarbonschedError for a bad config, or a meter or ledger that is not available."""
    config = _config(ledger_file, config_file, g_per_kwh)
    log = logging.getLogger("carbonsched")
    level = log.level
    log.setLevel(logging.ERROR)  # the terminal is the command's
    try:
        supervisor = _supervisor(config)
        try:
            supervisor.start()
            polling = Polling(partial(_poll, supervisor), _POLL_CHECK_S)
            ticking = Periodic("tick", supervisor.tick, config.power.tick_s)
            polling.start()
            polling.first.wait(_FIRST_POLL_S)
            supervisor.tick()  # the first reading of every device: energy counts from here on
            ticking.start()
            try:
                yield Alone(SupervisorService(supervisor), _me())
            finally:
                polling.stop()
                ticking.stop(_END_S)
                supervisor.stop()
        finally:
            supervisor.ledger.close()
    finally:
        log.setLevel(level)


def _supervisor(config: Config) -> Supervisor:
    """A supervisor with all its parts. The ledger is opened last: if a part is not available, no new ledger is left behind."""
    clock = SystemClock()
    meter = build_meter(config.power.meters, clock)  # before a feed that keeps its own file
    try:
        site = Site(config.zone, clock, config.state)
        chain, prices = build_chain(config.feeds, site), build_prices(config.prices, site)
        supply, pue = build_supply(config.supply, site), build_pue_feed(config.pue_feed, site)
        ledger = open_ledger(config.ledger_url, create=True)
        try:
            (config.state / "jobs").mkdir(parents=True, exist_ok=True)
        except OSError as e:
            ledger.close()
            raise InputError(
                "--ledger", f"{config.state} cannot be made: {e.strerror}", "choose another place"
            ) from e
    except BaseException:
        meter.close()
        raise
    return Supervisor(config, ledger, chain, meter, LocalLauncher(), clock, prices, supply, pue)


def _config(ledger_file: Path, config_file: Path | None, g_per_kwh: float | None) -> Config:
    """The file's config with this ledger in place of the daemon's; without a file, a constant intensity and this box's meters."""
    if config_file is None and g_per_kwh is None:
        raise InputError(
            "--ledger", "needs to know the grid", "add --intensity G_PER_KWH, or --config FILE with its feeds"
        )
    mine: dict[str, Any] = {
        "state_dir": f"{ledger_file.resolve()}.d",
        "ledger": {"url": f"sqlite:///{ledger_file.resolve()}"},
    }
    if config_file is None:
        return Config.parse(mine | {"feeds": [_constant(g_per_kwh)]})
    config = load(config_file)
    feeds = config.feeds
    if g_per_kwh is not None:
        feeds = Config.parse(
            {"feeds": [_constant(g_per_kwh, str(config.zone.basis))], "zone": config.zone.dump()}
        ).feeds
    told = Config.parse(mine | {"feeds": [_constant(0.0)]})
    ledger = config.ledger.model_copy(update={"url": told.ledger.url, "box": None})
    return config.model_copy(
        update={"state_dir": told.state_dir, "ledger": ledger, "feeds": feeds, "pools": ()}
    )


def _constant(g_per_kwh: float | None, basis: str = "average-lifecycle") -> dict[str, Any]:
    return {
        "provider": "static",
        "g_per_kwh": g_per_kwh,
        "basis": basis,
        "source": "carbonsched run --intensity",
    }


def _poll(supervisor: Supervisor) -> None:
    supervisor.settling.poll()
    supervisor.watch.chain.poll_due()
    supervisor.prices.poll()
    supervisor.supply.poll()
    supervisor.pue.poll()


def _me() -> Owner:
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    return Owner(uid=os.getuid(), gid=os.getgid(), pid=os.getpid(), user=user)
