"""Checks everything that the daemon needs, one after the other; `doctor` and `config check` show the results."""

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

from carbonsched import __version__, text
from carbonsched.cli.client import Client
from carbonsched.config import Config
from carbonsched.errors import CarbonschedError
from carbonsched.model.checks import Check
from carbonsched.text import several

LEAST_FREE = 10**9
"""Bytes: enough for a checkpoint of a medium model, and some months' growth of the ledger."""
_ANSWER_S = 5.0
_PROBE_S = 120.0
"""Importing torch is slow on a cold disk."""
_TRAINER = """
import json, torch, transformers
print(json.dumps([torch.__version__, transformers.__version__, torch.cuda.is_available(), torch.cuda.device_count()]))
"""


def daemon(client: Client) -> Check:
    try:
        version = client.version()
    except CarbonschedError as e:
        return Check(name="daemon", ok=False, found=str(e))
    found = f"{version.version} at {client.socket}, pid {version.pid}"
    if version.version != __version__:
        hint = f"this command is {__version__}: restart the daemon after an upgrade"
        return Check(name="daemon", ok=False, found=found, hint=hint)
    return Check(name="daemon", ok=True, found=found)


def disk(config: Config) -> Check:
    place = config.state
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        free = shutil.disk_usage(place).free
    except OSError as e:
        return Check(
            name="disk",
            ok=False,
            found=f"{place}: {e.strerror}",
            hint="set state_dir to a folder that is there",
        )
    found = f"{free / 1e9:.1f} GB free in {config.state}"
    if free < LEAST_FREE:
        return Check(
            name="disk", ok=False, found=found, hint=f"free {LEAST_FREE / 1e9:g} GB: checkpoints go there"
        )
    if not os.access(place, os.W_OK | os.X_OK):
        return Check(
            name="disk",
            ok=None,
            found=f"{found}; this user may not write there",
            hint="run doctor as the daemon's user",
        )
    return Check(name="disk", ok=True, found=found)


def ledger(config: Config) -> Check:
    from sqlalchemy import make_url

    from carbonsched.ledger.ledger import Ledger

    url = make_url(config.ledger_url)
    shown = url.render_as_string(hide_password=True)
    if url.drivername.startswith("sqlite") and url.database:
        file = Path(url.database)
        try:
            if not file.exists():
                return Check(name="ledger", ok=True, found=f"{shown}: none yet, the daemon makes it")
        except OSError as e:
            return Check(
                name="ledger", ok=None, found=f"{shown}: {e.strerror}", hint="run doctor as the daemon's user"
            )
    try:
        with Ledger.open(config.ledger_url, read_only=True) as ledger:
            return Check(name="ledger", ok=True, found=f"{shown}, schema {ledger.schema_version}")
    except CarbonschedError as e:
        return Check(name="ledger", ok=False, found=str(e))


def meters(config: Config) -> Iterator[Check]:
    from carbonsched.clock import SystemClock
    from carbonsched.power.factory import build_meter

    try:
        meter = build_meter(config.power.meters, SystemClock())
    except CarbonschedError as e:
        yield Check(name="power", ok=False, found=str(e))
        return
    try:
        for device in meter.devices:
            limit = f", up to {device.watts_limit:g} W" if device.watts_limit else ""
            yield Check(
                name="power", ok=True, found=f"{device.id}: {device.name}{limit}", hint=_better(device.kind)
            )
        if not any(device.kind == "gpu" for device in meter.devices):
            yield Check(
                name="nvml",
                ok=None,
                found=f"no NVIDIA board answers (power.gpu = {config.power.gpu!r})",
                hint="on a box with boards: nvidia-smi must answer for the daemon's user",
            )
    finally:
        meter.close()


def _better(kind: str) -> str | None:
    """How the host's energy could be measured instead of modelled."""
    if kind != "host":
        return None
    counters = sorted(Path("/sys/class/powercap").glob("intel-rapl:*/energy_uj"))
    if not counters:
        return "estimated: this box shows no RAPL counter"
    if not all(os.access(counter, os.R_OK) for counter in counters):
        return "estimated: RAPL is not readable for this user; deploy/udev/70-carbonsched-rapl.rules gives it to the daemon"
    return None


def clocks(config: Config) -> Iterator[Check]:
    """The helper that locks clocks, if the config uses it."""
    if config.power.clocks == "off":
        return
    place = config.power.clocks_socket
    try:
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as helper:
            helper.settimeout(_ANSWER_S)
            helper.connect(place)
    except OSError as e:
        why = e.strerror or str(e)
        hint = "systemctl enable --now carbonsched-clocks, or set power.clocks to off"
        yield Check(name="clocks", ok=False, found=f"no helper answers at {place}: {why}", hint=hint)
    else:
        yield Check(name="clocks", ok=True, found=f"the helper answers at {place}")


def feeds(config: Config) -> Iterator[Check]:
    from carbonsched.cli.grid_probe import probe

    try:
        probed = probe(config)
    except CarbonschedError as e:
        yield Check(name="feeds", ok=False, found=str(e))
        return
    for feed in probed.feeds:
        said = feed.error or f"{text.figure(feed.value)} g/kWh, took {feed.latency_s:.2f} s"
        yield Check(name="feed", ok=feed.ok, found=f"{feed.name}: {said}")
    others: tuple[tuple[str, Iterable[tuple[str, bool, str | None]]], ...] = (
        ("price", ((one.name, one.ok, one.error) for one in probed.prices)),
        ("supply", ((one.name, one.ok, one.error) for one in probed.supply)),
    )
    for kind, answers in others:
        for name, ok, error in answers:
            yield Check(name=kind, ok=ok, found=f"{name}: {error or 'answers'}")


def built(config: Config) -> Iterator[Check]:
    """Feeds, prices and supplies as the daemon builds them: files and secrets are read, nothing is polled."""
    import tempfile

    from carbonsched.clock import SystemClock
    from carbonsched.feeds.base import Site
    from carbonsched.feeds.factory import build_chain
    from carbonsched.feeds.prices.factory import build_prices
    from carbonsched.feeds.pue_feed import build_pue_feed
    from carbonsched.feeds.supply.factory import build_supply

    with tempfile.TemporaryDirectory(prefix="carbonsched-check-") as folder:
        site = Site(config.zone, SystemClock(), Path(folder))
        parts: dict[str, tuple[int, Callable[[], object]]] = {
            "feeds": (len(config.feeds), lambda: build_chain(config.feeds, site)),
            "prices": (len(config.prices), lambda: build_prices(config.prices, site)),
            "supply": (len(config.supply), lambda: build_supply(config.supply, site)),
            "pue_feed": (int(config.pue_feed is not None), lambda: build_pue_feed(config.pue_feed, site)),
        }
        for name, (count, build) in parts.items():
            try:
                build()
            except CarbonschedError as e:
                yield Check(name=name, ok=False, found=str(e))
            else:
                if count:
                    yield Check(name=name, ok=True, found=f"{count} can be built")


def clock() -> Check:
    """Intensity is looked up by the wall clock, so a clock that is hours off charges the wrong hours."""
    try:
        said = subprocess.run(
            ["timedatectl", "show", "--property=NTPSynchronized", "--value"],
            capture_output=True, text=True, timeout=10, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return Check(
            name="clock", ok=None, found="timedatectl does not tell whether the clock is synchronised"
        )
    if said == "yes":
        return Check(name="clock", ok=True, found="synchronised")
    return Check(name="clock", ok=False, found="not synchronised", hint="timedatectl set-ntp true")


def trainer(python: str) -> Check:
    import json

    hint = "install carbonsched[train] there, or name another interpreter in launch.python"
    try:
        done = subprocess.run(
            [python, "-c", _TRAINER], capture_output=True, text=True, timeout=_PROBE_S, check=False, cwd="/"
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        why = e.strerror if isinstance(e, OSError) else f"no answer within {_PROBE_S:g} s"
        return Check(name="trainer", ok=False, found=f"{python}: {why}", hint=hint)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["no word"])[-1]
        return Check(name="trainer", ok=False, found=f"{python}: {said}", hint=hint)
    torch, transformers, cuda, boards = json.loads(done.stdout.strip().splitlines()[-1])
    found = f"{python}: torch {torch}, transformers {transformers}"
    seen = f"CUDA with {several(boards, 'board')}" if cuda else "no CUDA: jobs train on the CPU"
    return Check(name="trainer", ok=True, found=f"{found}, {seen}")
