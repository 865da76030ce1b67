"""Builds the daemon from its config and watches over it until it is told to stop.

This is the composition root: the only file that knows all parts. The tick runs by the monotonic clock and the polling by
APScheduler, so that a network that is down holds up neither the first tick nor the end. The main thread answers signals; the watchdog is
pinged by a timer of its own.
"""

import contextlib
import ctypes
import gc
import logging
import os
import select
import signal
import threading
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Literal

from carbonsched import __version__, daemon_log
from carbonsched.address import socket_path
from carbonsched.api import tcp
from carbonsched.api.app import create_app
from carbonsched.api.server import serve
from carbonsched.clock import StepWatch, SystemClock
from carbonsched.config import FEEDS, SUPPLIES, Config, load
from carbonsched.errors import CarbonschedError, InputError
from carbonsched.feeds.base import Site
from carbonsched.feeds.chain import Chain
from carbonsched.feeds.factory import build_chain
from carbonsched.feeds.prices.factory import build_prices
from carbonsched.feeds.pue_feed import build_pue_feed
from carbonsched.feeds.supply.factory import build_supply
from carbonsched.launch.local import LocalLauncher
from carbonsched.launch.rights import name_of
from carbonsched.launch.systemd import SystemdLauncher
from carbonsched.ledger.ledger import Ledger
from carbonsched.notifications.sender import Senders
from carbonsched.periodic import Periodic
from carbonsched.polling import Polling
from carbonsched.power.base import Meter
from carbonsched.power.config import METERS
from carbonsched.power.factory import build_meter
from carbonsched.supervisor import Supervisor
from carbonsched.supervisor.commands import Commands
from carbonsched.supervisor.heartbeat import Heartbeat
from carbonsched.supervisor.ledger_continuity import check_file, check_jobs
from carbonsched.supervisor.ledger_maintenance import LedgerMaintenance
from carbonsched.supervisor.removal import Pruning
from carbonsched.supervisor.service import SupervisorService
from carbonsched.systemd_notify import Notifier
from carbonsched.text import several
from carbonsched.watchdog import Part, Watchdog

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
_ENDS_S = 2.5
"""The first tick waits so long for those who know how a command ended meanwhile: they ask once a second whether the daemon is back."""
QUICK_CHECK_S = 20.0
"""The start checks the ledger's file so long at most; systemd waits 90 s."""
_SIGNALS_S = 1.0
"""Pause between two looks at whether the clock was set or a reload is wanted; a stop is heard at once."""
_START_STEP_S = 60.0
"""Each step of the start may take so long before systemd gives it up."""
_TOLD_S = 2.0
"""The end waits so long for notifications that are under way."""
_ARENA_MAX = -8
"""M_ARENA_MAX of glibc's malloc.h."""
_TICK_END_S = 30.0
"""The end waits so long for a tick that is under way; for a provider that does not answer it does not wait at all."""


def run(
    config_path: Path,
    socket: str | None = None,
    *,
    new_ledger: bool = False,
    log_form: daemon_log.LogForm = "auto",
) -> int:
    """Serve until SIGTERM or SIGINT. Raises CarbonschedError before it serves: bad config, feed file, ledger, socket taken.

    new_ledger: go on also where the job folders show more than the ledger.
    """
    keep_one_arena()
    config = load(config_path)
    daemon_log.set_up(log_form)
    notifier = Notifier.from_env()
    clock = SystemClock()
    _make_state_dir(config)
    site = Site(config.zone, clock, config.state)
    chain, prices = build_chain(config.feeds, site), build_prices(config.prices, site)
    supply, pue = build_supply(config.supply, site), build_pue_feed(config.pue_feed, site)
    launcher = SystemdLauncher() if config.launch.kind == "systemd" else LocalLauncher()
    meter, ledger = _open_meter_and_ledger(config, launcher, clock, new_ledger, notifier)
    supervisor = Supervisor(config, ledger, chain, meter, launcher, clock, prices, supply, pue)
    # before anybody can reach us: who stops a daemon that has just answered must find it ending in order
    stop, reload = _catch_signals()
    address = socket_path(socket, config.api.socket)
    app = create_app(SupervisorService(supervisor), tcp.Token.of(config.api))
    server = serve(app, address, tcp.address(config.api))
    senders = _senders(config, supervisor)
    notifier.starting("takes over the jobs", _START_STEP_S)
    # adopted before anybody can ask: what is cancelled must be known to run; the network can wait for both
    supervisor.start()
    try:
        server.start()
        threads = _Threads(config, ledger, chain, supervisor, clock, notifier)
        threads.start()
        notifier.ready(
            f"carbonsched {__version__}, {several(len(meter.devices), 'device')}, {several(len(config.feeds), 'feed')}"
        )
        _collect_from_now_on()
        _log_plugins()
        _log_whose_jobs(config.launch.kind)
        log.info("serving on %s, state in %s", address, config.state_dir)
        wall = StepWatch(clock, _CLOCK_STEP_S)
        while not stop.wait(_SIGNALS_S):
            _follow_wall_clock(wall, threads)
            _reload_if_wanted(reload, notifier, supervisor, config_path)
        notifier.stopping()
        threads.stop(supervisor)
        senders.stop(_TOLD_S)
    finally:
        server.stop()
        ledger.close()
    # otherwise Python searches everything imported for reference cycles as it exits, which takes a second of CPU
    gc.freeze()
    return 0


def _open_meter_and_ledger(
    config: Config, launcher: LocalLauncher, clock: SystemClock, new_ledger: bool, notifier: Notifier
) -> tuple[Meter, Ledger]:
    """The meter first: if nothing can be metered, no ledger is created."""
    meter = build_meter(config.power.meters, clock)
    try:
        return meter, _open_ledger(config, launcher, clock, new_ledger, notifier)
    except BaseException:
        meter.close()
        raise


def keep_one_arena() -> bool:
    """Make all threads allocate from one malloc arena; False: this C library has no such setting.

    By default glibc gives each thread an arena, and memory that a listing of ten thousand jobs freed stays in the arena of its thread.
    Python's lock serialises most allocations, so one arena costs no time.
    """
    try:
        return bool(ctypes.CDLL(None).mallopt(_ARENA_MAX, 1))
    except (OSError, AttributeError):
        return False


def _collect_from_now_on() -> None:
    """Search for reference cycles again, but no more in what the start made: each search would go through half a million objects."""
    gc.collect()
    gc.freeze()
    gc.enable()


class _Threads:
    """What runs beside the API: the polls, the tick, and the upkeep of ledger and folders."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        chain: Chain,
        supervisor: Supervisor,
        clock: SystemClock,
        notifier: Notifier,
    ) -> None:
        self.heartbeat = Heartbeat(ledger, clock)
        self.maintenance = LedgerMaintenance(
            config, ledger, clock, lambda: max(chain.settles.values(), default=timedelta(0))
        )
        self.polling = Polling(partial(_poll, chain, supervisor), _POLL_CHECK_S)
        self.ticking = Periodic("tick", supervisor.tick, config.power.tick_s)
        self.beating = Periodic("heartbeat", self.heartbeat.poll, _BEAT_CHECK_S)
        self.aging = Periodic("roll-up", self.maintenance.poll, _BEAT_CHECK_S)
        self.effects = supervisor.effects
        self.keeping = Periodic("effects", partial(self.effects.poll, ledger, clock), _BEAT_CHECK_S)
        self.removing = Periodic("retention", Pruning(supervisor).poll, _BEAT_CHECK_S)
        self.commands = Commands(supervisor)
        self.watchdog = Watchdog(notifier, _parts(supervisor, config.power.tick_s))

    def start(self) -> None:
        self.polling.start()
        self.beating.start()
        self.polling.first.wait(_FIRST_POLL_S)
        self.commands.hear_ends(_ENDS_S)
        self.ticking.start()
        self.watchdog.start()
        self.aging.start()
        self.keeping.start()
        self.removing.start()

    def stop(self, supervisor: Supervisor) -> None:
        """The supervisor between its tick and what only keeps the ledger: it meters once more and writes every row."""
        self.watchdog.stop()
        self.maintenance.close()
        self.effects.close()
        self.removing.stop(_TICK_END_S)
        self.polling.stop()
        self.ticking.stop(_TICK_END_S)
        supervisor.stop()
        self.aging.stop(_TICK_END_S)
        self.keeping.stop(_TICK_END_S)
        self.beating.stop(_TICK_END_S)
        self.heartbeat.close()


def _follow_wall_clock(wall: StepWatch, threads: _Threads) -> None:
    if step_s := wall.step_s():
        log.warning("the wall clock was set by %.1f s", step_s)
        threads.polling.restart()


def _reload_if_wanted(
    reload: threading.Event, notifier: Notifier, supervisor: Supervisor, config_path: Path
) -> None:
    if reload.is_set():
        reload.clear()
        notifier.reloading()
        notifier.ready(_reload(supervisor, config_path))


def _senders(config: Config, supervisor: Supervisor) -> Senders:
    senders = Senders.of(config.notify)
    if senders.senders:
        supervisor.notifier.send = senders.put
    return senders


def _parts(supervisor: Supervisor, tick_s: float) -> list[Part]:
    """What must get on, or the daemon is not well: a tick that hangs, meters that do not answer, a ledger that another holds."""
    return [
        Part("scheduler", lambda: supervisor.ticks, tick_s),
        Part("sampler", lambda: supervisor.samples, tick_s),
        Part("ledger", lambda: supervisor.pending.answers, tick_s),
    ]


def _poll(chain: Chain, supervisor: Supervisor) -> None:
    """What the last polls revised is settled first: the first tick waits for the first poll alone."""
    supervisor.settling.poll()
    chain.poll_due()
    supervisor.prices.poll()
    supervisor.supply.poll()
    supervisor.pue.poll()


def _log_whose_jobs(kind: Literal["local", "systemd"]) -> None:
    """What keeps the jobs of several people apart, and what does not."""
    uid = os.geteuid()
    if uid == 0 or kind == "systemd":
        log.info("each job runs as the user who submitted it")
        return
    log.log(
        logging.WARNING if uid < PEOPLE_FROM else logging.INFO,
        "jobs run as %s, not as their submitters: each is handed the files that its submitter and %s may read; other jobs' "
        'folders, the hub\'s cache and tokens are readable to that user. On a box that people share set launch.kind = "systemd": '
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


def _reload(supervisor: Supervisor, config_path: Path) -> str:
    """Take over what can change while jobs run: PUE, worst case, plan, launch. A bad file changes nothing.

    Returns what `systemctl status` shows of it: `systemctl reload` itself succeeds as soon as the signal was sent.
    """
    at = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    try:
        config = load(config_path)
        supervisor.reconfigure(config)
    except CarbonschedError as e:
        log.warning("configuration kept as it was: %s", e)
        return f"configuration kept as it was at {at}: {e}"
    waits = [key for key in Config.model_fields if getattr(config, key) != getattr(supervisor.config, key)]
    rest = f", but for what waits for a restart: {', '.join(waits)}" if waits else ""
    log.log(logging.WARNING if waits else logging.INFO, "configuration reloaded%s", rest)
    return f"configuration reloaded at {at}{rest}"


def _open_ledger(
    config: Config, launcher: LocalLauncher, clock: SystemClock, accept: bool, notifier: Notifier
) -> Ledger:
    """Raises CarbonschedError for one that is damaged, or that knows less than the job folders and nobody said so."""
    jobs = config.state / "jobs"
    check_file(config.ledger_url, jobs, accept=accept)
    _migrate(config.ledger_url, notifier)
    ledger = Ledger.open(config.ledger_url)
    try:
        notifier.starting("checks the ledger", QUICK_CHECK_S + _START_STEP_S)
        ledger.quick_check(QUICK_CHECK_S)
        check_jobs(ledger, jobs, launcher, clock, accept=accept)
    except BaseException:
        ledger.close()
        raise
    return ledger


def _migrate(url: str, notifier: Notifier) -> None:
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
    done = os.pidfd_open(child)
    try:
        # a large ledger may take minutes: as long as the child works on it, systemd is asked for more time
        while not select.select([done], [], [], _START_STEP_S / 4)[0]:
            notifier.starting("brings the ledger to this version", _START_STEP_S)
    finally:
        os.close(done)
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
