"""Builds the daemon from its config and watches over it until it is told to stop.

This is the composition root: the only file that knows all parts. The tick runs by the monotonic clock and the polling by
APScheduler, so that a network that is down holds up neither the first tick nor the end. The main thread answers signals and pings systemd's
watchdog as long as ticks are completed.
"""

import contextlib
import logging
import os
import signal
import sys
import threading
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from carbonsched import __version__
from carbonsched.address import socket_path
from carbonsched.api.app import create_app
from carbonsched.api.server import serve
from carbonsched.clock import StepWatch, SystemClock
from carbonsched.config import FEEDS, METERS, SUPPLIES, Config, load
from carbonsched.errors import CarbonschedError, InputError
from carbonsched.feeds.base import Site
from carbonsched.feeds.chain import Chain
from carbonsched.feeds.factory import build_chain
from carbonsched.feeds.prices.factory import build_prices
from carbonsched.feeds.supply.factory import build_supply
from carbonsched.launch.local import LocalLauncher
from carbonsched.launch.rights import name_of
from carbonsched.ledger.ledger import Ledger
from carbonsched.notify import Notifier
from carbonsched.periodic import Periodic
from carbonsched.polling import Polling
from carbonsched.power.factory import build_meter
from carbonsched.supervisor import Supervisor
from carbonsched.supervisor.continuity import check_file, check_jobs
from carbonsched.supervisor.heartbeat import Heartbeat
from carbonsched.supervisor.service import SupervisorService
from carbonsched.text import one_line

log = logging.getLogger(__name__)

PEOPLE_FROM = 1000
"""Uids below are the system's: a daemon of one of them serves several people."""
_POLL_CHECK_S = 1.0
"""Pause between two looks at which feeds are due."""
_BEAT_CHECK_S = 10.0
"""Pause between two looks at whether the ledger's heads are due."""
_CLOCK_STEP_S = 2.0
"""Wall and boot clock may drift apart this far (NTP slews) before the polls are scheduled anew."""
_FIRST_POLL_S = 0.5
"""The first tick waits so long for the feeds: where they answer, the first row knows its intensity."""
QUICK_CHECK_S = 20.0
"""The start checks the ledger's file so long at most; systemd waits 90 s."""
_TICK_END_S = 30.0
"""The end waits so long for a tick that is under way; for a provider that does not answer it does not wait at all."""


def run(config_path: Path, socket: str | None = None, *, new_ledger: bool = False) -> int:
    """Serve until SIGTERM or SIGINT. Raises CarbonschedError before it serves: bad config, feed file, ledger, socket taken.

    new_ledger: go on also where the job folders show more than the ledger.
    """
    config = load(config_path)
    _set_up_logging()
    clock = SystemClock()
    _make_state_dir(config)
    site = Site(config.zone, clock, config.state)
    chain, prices = build_chain(config.feeds, site), build_prices(config.prices, site)
    supply = build_supply(config.supply, site)
    launcher = LocalLauncher()
    ledger = _open_ledger(config, launcher, clock, new_ledger)
    meter = build_meter(config.power.meters, clock)
    supervisor = Supervisor(config, ledger, chain, meter, launcher, clock, prices, supply)
    notifier, heartbeat = Notifier.from_env(), Heartbeat(ledger, clock)
    # before anybody can reach us: who stops a daemon that has just answered must find it ending in order
    stop, reload = _catch_signals()
    address = socket_path(socket, config.api.socket)
    server = serve(create_app(SupervisorService(supervisor)), address)
    # adopted before anybody can ask: what is cancelled must be known to run; the network can wait for both
    supervisor.start()
    try:
        server.start()
        polling = Polling(partial(_poll, chain, supervisor), _POLL_CHECK_S)
        beating = Periodic("heartbeat", heartbeat.poll, _BEAT_CHECK_S)
        ticking = Periodic("tick", supervisor.tick, config.power.tick_s)
        polling.start()
        beating.start()
        polling.first.wait(_FIRST_POLL_S)
        ticking.start()
        notifier.ready(f"carbonsched {__version__}, {len(meter.devices)} devices, {len(config.feeds)} feeds")
        _log_plugins()
        _log_whose_jobs()
        log.info("serving on %s, state in %s", address, config.state_dir)
        wall, ticks = StepWatch(clock, _CLOCK_STEP_S), -1
        while not stop.wait(min(1.0, (notifier.watchdog_s or 4.0) / 4)):
            if step_s := wall.step_s():
                log.warning("the wall clock was set by %.1f s", step_s)
                polling.restart()
            if reload.is_set():
                reload.clear()
                notifier.reloading()
                _reload(supervisor, config_path)
                notifier.ready()
            # a whole tick: the devices were read, the jobs looked after
            if supervisor.ticks != ticks:
                ticks = supervisor.ticks
                notifier.watchdog()
        notifier.stopping()
        polling.stop()
        ticking.stop(_TICK_END_S)
        supervisor.stop()
        beating.stop(_TICK_END_S)
        heartbeat.close()
    finally:
        server.stop()
        ledger.close()
    return 0


def _poll(chain: Chain, supervisor: Supervisor) -> None:
    """What the last polls revised is settled first: the first tick waits for the first poll alone."""
    supervisor.settling.poll()
    chain.poll_due()
    supervisor.prices.poll()
    supervisor.supply.poll()


class LineFormatter(logging.Formatter):
    """One line a record, whatever other people's text is in it: nothing of theirs can pass for a line of ours.

    Example:
        >>> record = logging.LogRecord("job", logging.INFO, "", 0, "it says %s", ("a\\nERROR b",), None)
        >>> LineFormatter("%(levelname)s %(name)s: %(message)s").format(record)
        'INFO job: it says a ERROR b'
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = one_line(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return "\n".join(f"  | {one_line(line)}" for line in super().formatException(ei).split("\n"))


def _set_up_logging() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for chatty in ("alembic", "uvicorn"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # it warns of every retry; the chain tells once that a feed fails, and why
    logging.getLogger("urllib3").setLevel(logging.ERROR)


def _log_whose_jobs() -> None:
    """What keeps the jobs of several people apart, and what does not."""
    uid = os.geteuid()
    if uid == 0:
        log.info("each job runs as the user who submitted it")
        return
    log.log(
        logging.WARNING if uid < PEOPLE_FROM else logging.INFO,
        "jobs run as %s, not as their submitters: each is handed the files that its submitter and %s may read; other jobs' "
        "folders, the hub's cache and tokens are readable to that user. On a box that people share install as-owner.conf: "
        "docs/install.md, Whose processes jobs are",
        *(name_of(uid), name_of(uid)),
    )


def _log_plugins() -> None:
    """Say which feeds and meters other distributions add; those that are refused are told, too."""
    for what, providers in (("feeds", FEEDS), ("supplies", SUPPLIES), ("meters", METERS["gpu"])):
        if found := providers.plugins():
            log.info("%s of plugins: %s", what, ", ".join(found))


def _catch_signals() -> tuple[threading.Event, threading.Event]:
    """(set by SIGTERM and SIGINT, set by SIGHUP)."""
    stop, reload = threading.Event(), threading.Event()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        (reload if number == signal.SIGHUP else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, on_signal)
    return stop, reload


def _reload(supervisor: Supervisor, config_path: Path) -> None:
    """Take over what can change while jobs run: PUE, worst case, plan, launch. A bad file changes nothing."""
    try:
        supervisor.reconfigure(load(config_path))
        log.info("configuration reloaded")
    except CarbonschedError as e:
        log.warning("configuration kept as it was: %s", e)


def _open_ledger(config: Config, launcher: LocalLauncher, clock: SystemClock, accept: bool) -> Ledger:
    """Raises CarbonschedError for one that is damaged, or that knows less than the job folders and nobody said so."""
    jobs = config.state / "jobs"
    check_file(config.ledger_url, jobs, accept=accept)
    _migrate(config.ledger_url)
    ledger = Ledger.open(config.ledger_url)
    try:
        ledger.quick_check(QUICK_CHECK_S)
        check_jobs(ledger, jobs, launcher, clock, accept=accept)
    except BaseException:
        ledger.close()
        raise
    return ledger


def _migrate(url: str) -> None:
    """Bring the ledger to the newest schema in a child: Alembic is 10 MB that the daemon would hold ever after.

    Only before any thread was started. Whatever goes wrong is met again, and told, where the ledger is opened.
    """
    child = os.fork()
    if child == 0:
        os.umask(0o077)  # a new one holds what every job was about
        try:
            Ledger.open(url).close()
        except CarbonschedError:
            os._exit(1)
        os._exit(0)
    os.waitpid(child, 0)


def _make_state_dir(config: Config) -> None:
    try:
        jobs = config.state / "jobs"
        jobs.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(PermissionError):
            jobs.chmod(0o711)  # everybody passes through to a job of their own, nobody lists the others'
    except OSError as e:
        raise InputError(
            "state_dir", f"{config.state_dir} cannot be made: {e.strerror}", "give a writable one"
        ) from e
