"""Builds the daemon from its config, starts its two periodic jobs and its API, and watches over them until it is told to stop.

This is the composition root: the only file that knows all parts. The tick and the polling of feeds run on APScheduler
with a memory job store (the ledger is the truth). The main thread answers signals, pings systemd's watchdog while
scheduler, meters and ledger all advance, and adds the two jobs anew when wall and boot clock part, since a clock jump
stalls APScheduler 3.x.
"""

import logging
import os
import signal
import sys
import threading
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from carbonsched import __version__
from carbonsched.address import socket_path
from carbonsched.api.app import create_app
from carbonsched.api.server import serve
from carbonsched.clock import StepWatch, SystemClock
from carbonsched.config import FEEDS, METERS, Config, load
from carbonsched.errors import CarbonschedError, InputError
from carbonsched.feeds.base import Site
from carbonsched.feeds.chain import Chain
from carbonsched.feeds.factory import build_chain
from carbonsched.launch.local import LocalLauncher
from carbonsched.ledger.ledger import Ledger
from carbonsched.notify import Notifier
from carbonsched.power.factory import build_meter
from carbonsched.supervisor import Supervisor
from carbonsched.supervisor.service import SupervisorService
from carbonsched.text import one_line

log = logging.getLogger(__name__)

CLOCK_JUMP_S = 2.0
"""Wall and boot clock may drift apart this far (NTP slews) before the schedule is made anew."""
_POLL_CHECK_S = 1.0
"""Pause between two looks at which feeds are due."""


def run(config_path: Path, socket: str | None = None) -> int:
    """Serve until SIGTERM or SIGINT. Raises CarbonschedError before it serves: bad config, feed file, socket taken."""
    config = load(config_path)
    _set_up_logging()
    clock = SystemClock()
    _make_state_dir(config)
    chain = build_chain(config.feeds, Site(config.zone, clock, config.state))
    _migrate(config.ledger_url)
    ledger = Ledger.open(config.ledger_url)
    meter = build_meter(config.power.meters, clock)
    supervisor = Supervisor(config, ledger, chain, meter, LocalLauncher(), clock)
    notifier = Notifier.from_env()
    # before anybody can reach us: who stops a daemon that has just answered must find it ending in order
    stop, reload = _catch_signals()
    address = socket_path(socket, config.api.socket)
    server = serve(create_app(SupervisorService(supervisor)), address)
    # adopted before anybody can ask: what is cancelled must be known to run; the network can wait for both
    supervisor.start()
    try:
        server.start()
        chain.poll_due()
        scheduler = _scheduler()
        scheduler.start()
        start_jobs = partial(_add_jobs, scheduler, supervisor, chain, config.power.tick_s)
        start_jobs()
        notifier.ready(f"carbonsched {__version__}, {len(meter.devices)} devices, {len(config.feeds)} feeds")
        _log_plugins()
        log.info("serving on %s, state in %s", address, config.state_dir)
        wall = StepWatch(clock, CLOCK_JUMP_S)
        ticks = -1
        while not stop.wait(min(1.0, (notifier.watchdog_s or 4.0) / 4)):
            if step_s := wall.step_s():
                log.warning("the wall clock jumped by %.1f s", step_s)
                start_jobs()
            if reload.is_set():
                reload.clear()
                notifier.reloading()
                _reload(supervisor, config_path)
                notifier.ready()
            # a whole tick: the scheduler ran, the devices were read, the ledger took the rows
            if supervisor.ticks != ticks:
                ticks = supervisor.ticks
                notifier.watchdog()
        notifier.stopping()
        scheduler.shutdown(wait=True)
        supervisor.stop()
    finally:
        server.stop()
        ledger.close()
    return 0


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
    for chatty in ("apscheduler", "alembic", "uvicorn"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _log_plugins() -> None:
    """Say which feeds and meters other distributions add; those that are refused are told, too."""
    for what, providers in (("feeds", FEEDS), ("meters", METERS["gpu"])):
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


def _scheduler() -> BackgroundScheduler:
    return BackgroundScheduler(
        executors={"default": ThreadPoolExecutor(2)},
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        timezone="UTC",
    )


def _add_jobs(scheduler: BackgroundScheduler, supervisor: Supervisor, chain: Chain, tick_s: float) -> None:
    """Add the tick and the polling of feeds that are due; again after a jump of the wall clock, for the next run times
    were computed on the old one."""
    # APScheduler logs a run that raises and goes on; the watchdog sees that no tick was completed
    for name, work, seconds in (("tick", supervisor.tick, tick_s), ("poll", chain.poll_due, _POLL_CHECK_S)):
        scheduler.add_job(work, "interval", seconds=seconds, id=name, replace_existing=True)


def _reload(supervisor: Supervisor, config_path: Path) -> None:
    """Take over what can change while jobs run: PUE, worst case, plan, launch. A bad file changes nothing."""
    try:
        supervisor.reconfigure(load(config_path))
        log.info("configuration reloaded")
    except CarbonschedError as e:
        log.warning("configuration kept as it was: %s", e)


def _migrate(url: str) -> None:
    """Bring the ledger to the newest schema in a child: Alembic is 10 MB that the daemon would hold ever after.

    Only before any thread was started. Whatever goes wrong is met again, and told, where the ledger is opened.
    """
    child = os.fork()
    if child == 0:
        try:
            Ledger.open(url).close()
        except CarbonschedError:
            os._exit(1)
        os._exit(0)
    os.waitpid(child, 0)


def _make_state_dir(config: Config) -> None:
    try:
        (config.state / "jobs").mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise InputError(
            "state_dir", f"{config.state_dir} cannot be made: {e.strerror}", "give a writable one"
        ) from e
