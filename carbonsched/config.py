"""The daemon's configuration: one TOML file, strict, every key documented in docs/configuration.md."""

import os
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from carbonsched.errors import InputError
from carbonsched.model.base import Doc, Seconds, UtcTime
from carbonsched.model.grid import Basis


class Zone(Doc):
    name: str = "unknown"
    """Grid zone as the feeds and the reports name it, e.g. `DE` or `GB`."""
    basis: Basis = Basis.AVERAGE_LIFECYCLE
    """The one basis every feed of this box must speak; budgets never mix two."""
    worst_g_per_kwh: Annotated[float, Field(gt=0)] = 1000.0
    """The stated worst case: the budget holds at intensities up to here, whatever the forecast does."""


class FeedConfig(Doc):
    """Which keys a provider wants is checked by the provider (`carbonsched.feeds`)."""

    provider: Literal["replay", "neso", "static"]
    name: str | None = None
    """Shown in `grid` and reports; None: the provider's name."""
    max_age: Seconds = 7200.0
    """A reading older than this is stale and the next feed is asked."""
    every: Seconds = 300.0
    """Pause between polls."""
    url: str | None = None
    """Base URL, for a mirror or a test server; None: the provider's own."""
    timeout: Seconds = 10.0
    # replay
    file: str | None = None
    """Trace CSV: datetime,g_per_kwh[,forecast_g_per_kwh]; relative to the config file."""
    hour_s: Annotated[float, Field(gt=0)] | None = None
    """Wall seconds one grid hour of the trace takes; None: 3600, real time."""
    phase_h: float = 0.0
    """Hours into the trace at which the replay begins."""
    anchor: UtcTime | None = None
    """Wall time of the replay's begin; None: the daemon's first start, kept in the state directory."""
    label: str = ""
    """Shown wherever a value of this feed is, e.g. `synthetic`."""
    # static
    country: str | None = None
    """ISO 3166 alpha-3, for codecarbon's country mix."""
    g_per_kwh: Annotated[float, Field(ge=0)] | None = None
    """A fixed intensity; needs `basis` and `source`."""
    basis: Basis | None = None
    source: str | None = None
    """Where a fixed g_per_kwh comes from."""
    # neso
    region: Annotated[int, Field(ge=1, le=17)] | None = None
    """NESO region id; None: Great Britain."""


class PowerConfig(Doc):
    gpu: Literal["auto", "nvml", "none", "replay"] = "auto"
    """auto: NVML where a device answers, else none."""
    host: Literal["auto", "codecarbon", "none"] = "auto"
    """CPU and RAM by codecarbon's core classes; auto: the same."""
    tick_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    replay_file: str | None = None
    """CSV `seconds,watts` for gpu = "replay"; the counter runs on wall time, the daemon's or not."""


class ApiConfig(Doc):
    socket: str | None = None
    """None: $CARBONSCHED_SOCKET, $XDG_RUNTIME_DIR/carbonsched/api.sock or /run/carbonsched/api.sock."""


class LedgerConfig(Doc):
    url: str | None = None
    """SQLAlchemy URL; None: sqlite at <state_dir>/ledger.db."""
    row_s: Annotated[float, Field(gt=0)] = 10.0
    """A row is closed after this long, or earlier when job, segment or intensity change."""


class LaunchConfig(Doc):
    python: str = sys.executable
    """Interpreter that has the trainer; it may be another environment than the daemon's."""
    slots: Annotated[int, Field(ge=1)] | None = None
    """Jobs at a time; None: one a GPU, one on a box without."""
    stop_s: Seconds = 120.0
    """How long a job may take to checkpoint and stop before it is killed."""


class PlanConfig(Doc):
    lease_s: Annotated[float, Field(gt=0)] = 300.0
    """Longest lease of a directive; shorter when the budget that is left cannot cover it at the worst intensity."""
    quantile: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Forecast quantile at which the guard keeps back the floor of the rest."""
    horizon: Seconds = 172_800.0


class PoolConfig(Doc):
    """A budget that several jobs share."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    budget_g: Annotated[float, Field(gt=0)] | None = None
    budget_rate_g_per_h: Annotated[float, Field(gt=0)] | None = None
    """Grams an hour by which it grows; a day's worth is saved at most."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.budget_g is None) == (self.budget_rate_g_per_h is None):
            raise ValueError("give exactly one of budget_g and budget_rate_g_per_h, e.g. budget_g = 500.0")
        return self


class Config(Doc):
    state_dir: str = "/var/lib/carbonsched"
    pue: Annotated[float, Field(ge=1)] = 1.0
    pue_source: str = "not stated: 1.0 counts the box alone"
    zone: Zone = Zone()
    feeds: Annotated[tuple[FeedConfig, ...], Field(min_length=1)]
    power: PowerConfig = PowerConfig()
    api: ApiConfig = ApiConfig()
    ledger: LedgerConfig = LedgerConfig()
    launch: LaunchConfig = LaunchConfig()
    plan: PlanConfig = PlanConfig()
    pools: tuple[PoolConfig, ...] = ()

    @model_validator(mode="after")
    def _no_mixed_basis(self) -> Self:
        names = [pool.name for pool in self.pools]
        if len(set(names)) < len(names):
            raise ValueError("two pools share a name; give each its own")
        for i, feed in enumerate(self.feeds):
            if feed.basis is not None and feed.basis is not self.zone.basis:
                raise ValueError(
                    f"feeds[{i}] speaks {feed.basis} but zone.basis is {self.zone.basis}; "
                    "one budget never mixes two, set zone.basis or drop the feed"
                )
        return self

    @property
    def state(self) -> Path:
        return Path(self.state_dir)

    @property
    def ledger_url(self) -> str:
        return self.ledger.url or f"sqlite:///{self.state / 'ledger.db'}"


def load(path: Path) -> Config:
    """Read and check a config file; relative paths in it are made absolute from its own folder.

    Raises InputError: not found, not TOML, unknown key (with the nearest known one), bad value.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise InputError("--config", f"there is no file {path}", "give the path of a TOML file") from e
    except (OSError, UnicodeDecodeError) as e:
        raise InputError("--config", f"{path} cannot be read: {e}", "give the path of a TOML file") from e
    except tomllib.TOMLDecodeError as e:
        raise InputError("--config", f"{path} is not TOML: {e}", "mend that line") from e
    config = Config.parse(data, where=path.name)
    base = path.resolve().parent

    def absolute(name: str | None) -> str | None:
        return None if name is None else str(base / Path(name).expanduser())

    feeds = tuple(feed.model_copy(update={"file": absolute(feed.file)}) for feed in config.feeds)
    power = config.power.model_copy(update={"replay_file": absolute(config.power.replay_file)})
    api = config.api.model_copy(update={"socket": absolute(config.api.socket)})
    state = absolute(config.state_dir)
    return config.model_copy(update={"feeds": feeds, "power": power, "api": api, "state_dir": state})


def socket_path(explicit: str | None = None, config: Config | None = None) -> Path:
    """Where the daemon listens: --socket, $CARBONSCHED_SOCKET, the config's, $XDG_RUNTIME_DIR, /run (DESIGN 5)."""
    chosen = explicit or os.environ.get("CARBONSCHED_SOCKET") or (config.api.socket if config else None)
    if chosen:
        return Path(chosen)
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime or "/run") / "carbonsched" / "api.sock"
