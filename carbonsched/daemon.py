"""The composition root: config → parts → ticks → serve → sd_notify.

Ticks and polls run on APScheduler with a memory job store (the ledger is the truth). The main thread only watches: it
answers signals, pings systemd's watchdog while scheduler, sampler and ledger all advance, and puts the schedule anew
when wall and boot clock part, since a clock jump stalls APScheduler 3.x.
"""

import logging
import os
import signal
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from carbonsched import __version__
from carbonsched.address import socket_path
from carbonsched.api.app import create_app
from carbonsched.api.server import serve
from carbonsched.clock import Clock, StepWatch, SystemClock
from carbonsched.config import Config, load
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

log = logging.getLogger(__name__)

CLOCK_JUMP_S = 2.0
"""Wall and boot clock may drift apart this far (NTP slews) before the schedule is made anew."""
_POLL_CHECK_S = 1.0


@dataclass(slots=True)
class Schedule:
    """The two standing jobs: the tick, and the polling of feeds that are due."""

    supervisor: Supervisor
    chain: Chain
    clock: Clock
    tick_s: float
    scheduler: BackgroundScheduler = field(init=False)
    _wall: StepWatch = field(init=False)

    def start(self) -> None:
        self._wall = StepWatch(self.clock, CLOCK_JUMP_S)
        self.scheduler = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(2)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone="UTC",
        )
        self.scheduler.start()
        self._add()

    def stop(self) -> None:
        self.scheduler.shutdown(wait=True)

    def mend_clock(self) -> None:
        """Re-add the jobs after a jump of the wall clock; their next run times were computed on the old one."""
        step_s = self._wall.step_s()
        if step_s:
            log.warning("the wall clock jumped by %.1f s", step_s)
            self._add()

    def _add(self) -> None:
        # APScheduler logs a run that raises and goes on; the watchdog sees that no tick was completed
        self.scheduler.add_job(
            self.supervisor.tick, "interval", seconds=self.tick_s, id="tick", replace_existing=True
        )
        self.scheduler.add_job(
            self.chain.poll_due, "interval", seconds=_POLL_CHECK_S, id="poll", replace_existing=True
        )


def run(config_path: Path, socket: str | None = None) -> int:
    """Serve until SIGTERM or SIGINT. Raises CarbonschedError before it serves: bad config, feed file, socket taken."""
    config = load(config_path)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for chatty in ("apscheduler", "alembic", "uvicorn"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    clock = SystemClock()
    _make_state_dir(config)
    chain = build_chain(config.feeds, Site(config.zone, clock, config.state))
    _migrate(config.ledger_url)
    ledger = Ledger.open(config.ledger_url)
    meter = build_meter(config.power.meters, clock)
    supervisor = Supervisor(config, ledger, chain, meter, LocalLauncher(), clock)
    notifier = Notifier.from_env()
    stop = threading.Event()
    reload = threading.Event()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        (reload if number == signal.SIGHUP else stop).set()

    # before anybody can reach us: who stops a daemon that has just answered must find it ending in order
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, on_signal)
    server = serve(create_app(SupervisorService(supervisor)), socket_path(socket, config.api.socket))
    # adopted before anybody can ask: what is cancelled must be known to run; the network can wait for both
    supervisor.start()
    try:
        server.start()
        chain.poll_due()
        schedule = Schedule(supervisor, chain, clock, config.power.tick_s)
        schedule.start()
        notifier.ready(f"carbonsched {__version__}, {len(meter.devices)} devices, {len(config.feeds)} feeds")
        log.info("serving on %s, state in %s", socket_path(socket, config.api.socket), config.state_dir)
        _watch(supervisor, schedule, notifier, stop, reload, config_path)
        notifier.stopping()
        schedule.stop()
        supervisor.stop()
    finally:
        server.stop()
        ledger.close()
    return 0


def _watch(
    supervisor: Supervisor,
    schedule: Schedule,
    notifier: Notifier,
    stop: threading.Event,
    reload: threading.Event,
    config_path: Path,
) -> None:
    pause = min(1.0, (notifier.watchdog_s or 4.0) / 4)
    seen = -1
    while not stop.wait(pause):
        schedule.mend_clock()
        if reload.is_set():
            reload.clear()
            notifier.reloading()
            _reload(supervisor, config_path)
            notifier.ready()
        if (
            supervisor.ticks != seen
        ):  # a whole tick: scheduler ran, devices were read, the ledger took the rows
            seen = supervisor.ticks
            notifier.watchdog()


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
