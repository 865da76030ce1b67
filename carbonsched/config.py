"""Reads and checks the daemon's config: one TOML file, strict, every key documented in docs/configuration.md.

Where a key is checked: one of `[[feeds]]`, `[[prices]]` or `[[supply]]` in its provider's file under `carbonsched/feeds`, `[power]` in
`carbonsched/power/config.py` and one of its keys in its meter's file beside that, `[zone]` in `carbonsched/feeds/zone.py`, all others here. This file imports neither
requests, codecarbon nor pynvml: a feed or meter loads what it needs when it is built.
"""

import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    Field,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

from carbonsched import plugins
from carbonsched.errors import InputError
from carbonsched.feeds.base import FeedSettings
from carbonsched.feeds.prices.base import PriceSettings
from carbonsched.feeds.prices.energi_data_service import EnergiDataServicePriceSettings
from carbonsched.feeds.prices.energy_charts import EnergyChartsPriceSettings
from carbonsched.feeds.prices.entso_e import EntsoePriceSettings
from carbonsched.feeds.prices.replay import ReplayPriceSettings
from carbonsched.feeds.prices.static import StaticPriceSettings
from carbonsched.feeds.providers.carbon_aware_sdk import CarbonAwareSettings
from carbonsched.feeds.providers.eia import EiaSettings
from carbonsched.feeds.providers.electricity_maps import ElectricityMapsSettings
from carbonsched.feeds.providers.energi_data_service import EnergiDataServiceSettings
from carbonsched.feeds.providers.energy_charts import EnergyChartsSettings
from carbonsched.feeds.providers.entso_e import EntsoeSettings
from carbonsched.feeds.providers.neso import NesoSettings
from carbonsched.feeds.providers.open_electricity import OpenElectricitySettings
from carbonsched.feeds.providers.prometheus import PrometheusSettings
from carbonsched.feeds.providers.rte import RteSettings
from carbonsched.feeds.providers.wattnet import WattnetSettings
from carbonsched.feeds.providers.watttime import WattTimeSettings
from carbonsched.feeds.pue_feed import PueFeedSettings
from carbonsched.feeds.replay import ReplaySettings as ReplayFeedSettings
from carbonsched.feeds.static import StaticSettings
from carbonsched.feeds.supply.base import SupplySettings
from carbonsched.feeds.supply.prometheus import PrometheusSupplySettings
from carbonsched.feeds.supply.replay import ReplaySupplySettings
from carbonsched.feeds.supply.static import StaticSupplySettings
from carbonsched.feeds.zone import Zone
from carbonsched.model.accounting import Accounting, BaseModelCompute, Contract, Stated, box_identity
from carbonsched.model.base import Doc, Duration, Grams, LocalPath, refusal
from carbonsched.model.energy import BudgetAccount
from carbonsched.model.error_words import syntax_words
from carbonsched.model.strict_types import check_types
from carbonsched.model.upkeep import RetentionConfig
from carbonsched.notifications.settings import NotifyConfig
from carbonsched.power.config import PowerConfig
from carbonsched.pue import PueHours, PueValue
from carbonsched.settings import Providers

BuiltInFeed = (
    CarbonAwareSettings
    | EiaSettings
    | ElectricityMapsSettings
    | EnergiDataServiceSettings
    | EnergyChartsSettings
    | EntsoeSettings
    | NesoSettings
    | OpenElectricitySettings
    | RteSettings
    | PrometheusSettings
    | ReplayFeedSettings
    | StaticSettings
    | WattnetSettings
    | WattTimeSettings
)
"""What `[[feeds]]` may be. A new feed is its own file and one name here."""
BuiltInPrice = (
    EnergiDataServicePriceSettings
    | EnergyChartsPriceSettings
    | EntsoePriceSettings
    | ReplayPriceSettings
    | StaticPriceSettings
)
"""What `[[prices]]` may be. A new source is its own file and one name here."""
BuiltInSupply = PrometheusSupplySettings | ReplaySupplySettings | StaticSupplySettings
"""What `[[supply]]` may be. A new feed is its own file and one name here."""
FEEDS: Final = Providers(FeedSettings, BuiltInFeed, plugins.FEEDS)
PRICES: Final = Providers(PriceSettings, BuiltInPrice, plugins.PRICES)
SUPPLIES: Final = Providers(SupplySettings, BuiltInSupply, plugins.SUPPLY)


def _chosen(providers: Providers[Any], built_in: Any) -> WrapValidator:
    """Checks a table by the settings of whom its `provider` names, built in or a plugin's."""

    def choose(value: Any, check: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        if not isinstance(value, Mapping):
            return check(value)
        return providers.model(value.get("provider")).model_validate(value, context=info.context)

    return WrapValidator(choose, json_schema_input_type=Annotated[built_in, Field(discriminator="provider")])


AnyFeed = Annotated[FeedSettings, _chosen(FEEDS, BuiltInFeed)]
AnyPrice = Annotated[PriceSettings, _chosen(PRICES, BuiltInPrice)]
AnySupply = Annotated[SupplySettings, _chosen(SUPPLIES, BuiltInSupply)]


UserOrGroup = Annotated[str, Field(pattern=r"^@?[A-Za-z_][A-Za-z0-9_.-]*\$?$")]
"""A user's name, or `@` and a group's."""


_LOOPBACK: Final = re.compile(
    r"(127\.0\.0\.1|localhost|\[::1\]):(0*[1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5])"
)


class ApiConfig(Doc):
    """`[api]`: where the daemon listens.

    Example:
        >>> ApiConfig(socket="/run/box.sock").socket
        '/run/box.sock'
    """

    socket: LocalPath | None = None
    """None: $CARBONSCHED_SOCKET, $XDG_RUNTIME_DIR/carbonsched/api.sock or /run/carbonsched/api.sock."""
    tcp: str = ""
    """A loopback address such as 127.0.0.1:8765, beside the socket; read-only without the token. Empty: none."""
    token_file: LocalPath | None = None
    """Holds the token with which a request over TCP is `token_user`'s; open to nobody else. None: TCP is read-only."""
    token_user: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*\$?$")] | None = None
    users: tuple[UserOrGroup, ...] | None = None
    """Users, and groups as `@name`, who may submit. None: the group carbonsched, where the box has one."""
    admins: tuple[UserOrGroup, ...] = ("@carbonsched-admin",)
    """Users, and groups as `@name`, who may do with every job what its owner may."""

    @field_validator("tcp")
    @classmethod
    def _loopback(cls, address: str) -> str:
        if address and not _LOOPBACK.fullmatch(address):
            problem = f"{address!r} is no loopback address with a port"
            raise refusal("", problem, "write 127.0.0.1:8765; for other hosts use ssh -L to it, or a proxy")
        return address

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for key, other in (("token_file", "token_user"), ("token_user", "token_file"), ("token_file", "tcp")):
            if getattr(self, key) and not getattr(self, other):
                raise refusal(key, f"is of no use without api.{other}", f"set {other} too, or drop it")
        return self


class LedgerConfig(Doc):
    """`[ledger]`: the database, and how long its rows grow.

    Example:
        >>> LedgerConfig(url="postgresql:///carbon").row_s
        10.0
    """

    url: str | None = None
    """SQLAlchemy URL; None: sqlite at <state_dir>/ledger.db."""
    box: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")] | None = None
    """The box's name where several boxes keep their ledgers on one server; None: there is one box."""
    row_s: Annotated[float, Field(gt=0)] = 10.0
    """A row is closed after this long, or earlier when job, segment or intensity change."""
    roll_up: bool = True
    """Merge rows that are old into minutes, and later into hours; the rows themselves go to the archive."""
    raw_days: Annotated[float, Field(ge=3)] = 7.0
    """Rows stay as they were written for so long, and in any case a day longer than a feed revises."""
    minute_days: Annotated[float, Field(ge=3)] = 30.0
    """Minutes stay minutes for so long; then they are hours."""
    archive: str | None = None
    """Folder of the rows that were merged, a file a month, which nothing ever removes; None: <state_dir>/archive."""


class LaunchConfig(Doc):
    """`[launch]`: how the daemon starts and stops trainers.

    Example:
        >>> LaunchConfig(python="/opt/train/bin/python").stop_s
        120.0
    """

    python: str = sys.executable
    """Interpreter that has the trainer; it may be another environment than the daemon's."""
    kind: Literal["local", "systemd"] = "local"
    """`systemd`: each job is a unit of its own and runs as the user who submitted it; `local`: a process that the daemon starts,
    which is the daemon's user unless that is root."""
    slots: Annotated[int, Field(ge=1)] | None = None
    """Jobs at a time, as far as boards have room; None: as many as they have, one on a box without."""
    cpu_slots: Annotated[int, Field(ge=0, le=64)] = 1
    """Jobs at a time with `train.device = "cpu"`, beside those on the boards; a box without boards has `slots` alone."""
    jobs_per_board: Annotated[int, Field(ge=1, le=64)] = 1
    """More than one: they share a board, and its energy in equal parts, which is then estimated. MIG: one an instance."""
    stop_s: Duration = 120.0
    """How long a job may take to checkpoint and stop before it is killed."""
    silent_s: Duration = 1800.0
    """How long a job that should train, load or evaluate may say nothing before that is told."""
    log_bytes: Annotated[int, Field(ge=4096, le=2**40)] = 64 * 2**20
    """Of a job's log.txt: beyond it a new one is begun, and the old one is kept as log.1.txt."""


class PlanConfig(Doc):
    """`[plan]`: how far and how carefully the planner looks ahead.

    Example:
        >>> PlanConfig.parse({"horizon": "36h"}).horizon
        129600.0
    """

    lease_s: Annotated[float, Field(gt=0)] = 300.0
    """Longest lease of a directive; shorter when the budget that is left cannot cover it at the worst intensity."""
    quantile: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Forecast quantile at which the guard keeps back the floor of the rest."""
    horizon: Duration = 172_800.0
    blend_forecasts: bool = False
    """Blend the forecasts of two feeds: the second one is then asked, too, at most once an hour."""

    @property
    def forecasts_wanted(self) -> int:
        """Of how many feeds a forecast is asked for."""
        return 2 if self.blend_forecasts else 1


class PoolConfig(Doc):
    """One of `[[pools]]`: a budget that several jobs share.

    Example:
        >>> PoolConfig(name="lab", budget_g=500.0).budget_g
        500.0
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    budget_g: Grams | None = None
    budget_rate_g_per_h: Grams | None = None
    """Grams per hour by which it grows; a day's worth is saved at most."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.budget_g is None) == (self.budget_rate_g_per_h is None):
            raise ValueError("give exactly one of budget_g and budget_rate_g_per_h, e.g. budget_g = 500.0")
        return self


EVERYBODY: Final = "*"


class QuotaConfig(Doc):
    """One of `[[quotas]]`: what each of these users may have.

    Example:
        >>> QuotaConfig(who="@students", jobs=2, grams_per_month=500.0).jobs
        2
    """

    who: Annotated[str, Field(pattern=r"^(\*|@?[A-Za-z_][A-Za-z0-9_.-]*\$?)$")]
    """A user, `@` and a group, or `*`: everybody whom no other quota names."""
    jobs: Annotated[int, Field(ge=0)] | None = None
    """Jobs that are not over, at a time."""
    grams_per_day: Grams | None = None
    grams_per_month: Grams | None = None


RELOADED: Final = (
    "pue",
    "pue_source",
    "pue_hours",
    "budget_account",
    "plan",
    "pools",
    "quotas",
    "retention",
    "accounting",
    "contracts",
    "base_models",
)
"""What SIGHUP takes over whole; of `[zone]`, `[api]` and `[launch]` there is more to it."""


class Config(Doc):
    """The whole file.

    Example:
        >>> config = Config.parse({"zone": {"name": "DE"}, "feeds": [{"provider": "static", "country": "DEU"}]})
        >>> config.feeds[0].shown_name
        'static'
    """

    state_dir: LocalPath = "/var/lib/carbonsched"
    pue: PueValue = 1.0
    pue_source: str = "not stated; a PUE of 1 counts the box alone"
    pue_hours: tuple[PueHours, ...] = ()
    """Of hours and months that have another; the first that fits holds, `pue` where none does."""
    pue_feed: PueFeedSettings | None = None
    """What is measured; `pue_hours` and `pue` hold where it is silent."""
    zone: Zone = Zone()
    feeds: Annotated[tuple[AnyFeed, ...], Field(min_length=1)]
    prices: tuple[AnyPrice, ...] = ()
    """None: nothing is known of money, and nothing weighs it."""
    supply: tuple[AnySupply, ...] = ()
    """None: the box has no supply of its own."""
    budget_account: BudgetAccount = BudgetAccount.LOCATION
    """location: budgets are charged all energy at the grid's intensity. on-site: with the site's own supply counted."""
    power: PowerConfig = PowerConfig()
    api: ApiConfig = ApiConfig()
    ledger: LedgerConfig = LedgerConfig()
    launch: LaunchConfig = LaunchConfig()
    plan: PlanConfig = PlanConfig()
    pools: tuple[PoolConfig, ...] = ()
    quotas: tuple[QuotaConfig, ...] = ()
    retention: RetentionConfig = RetentionConfig()
    """None: nobody has one."""
    notify: tuple[NotifyConfig, ...] = ()
    """None: nobody is told of jobs."""
    accounting: Accounting = Accounting()
    contracts: tuple[Contract, ...] = ()
    base_models: tuple[BaseModelCompute, ...] = ()

    @model_validator(mode="after")
    def _has_a_supply_to_count(self) -> Self:
        if self.budget_account is BudgetAccount.ON_SITE and not self.supply:
            problem = "is on-site, but the site has no supply of its own"
            raise refusal("budget_account", problem, "add [[supply]], or set it to location")
        worst = self.zone.worst_g_per_kwh
        for each in self.supply if self.budget_account is BudgetAccount.ON_SITE else ():
            if each.g_per_kwh is not None and each.g_per_kwh > worst:
                problem = (
                    f"is on-site, but a supply emits {each.g_per_kwh:g} g/kWh, above zone.worst_g_per_kwh"
                )
                raise refusal("budget_account", problem, "raise that: budgets hold up to it alone")
        return self

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

    def reloaded(self, new: "Config") -> "Config":
        """This one, with what `new` says of what may change while jobs run; the rest waits for a restart."""
        worst = {"worst_g_per_kwh": new.zone.worst_g_per_kwh}
        rights = {"users": new.api.users, "admins": new.api.admins}
        changes = {name: getattr(new, name) for name in RELOADED}
        parts = {
            "zone": self.zone.model_copy(update=worst),
            "api": self.api.model_copy(update=rights),
            # jobs that run are found by the launcher that started them
            "launch": new.launch.model_copy(update={"kind": self.launch.kind}),
        }
        return self.model_copy(update=changes | parts)

    @property
    def stated(self) -> Stated:
        """What it states for reports."""
        return Stated(
            accounting=self.accounting,
            contracts=self.contracts,
            base_models=self.base_models,
            box=box_identity(self.accounting.box or self.ledger.box),
        )

    @property
    def state(self) -> Path:
        return Path(self.state_dir)

    @property
    def archive(self) -> Path:
        """Where merged rows of the ledger go."""
        return Path(self.ledger.archive) if self.ledger.archive else self.state / "archive"

    @property
    def ledger_url(self) -> str:
        url = self.ledger.url or f"sqlite:///{self.state / 'ledger.db'}"
        if self.ledger.box is None or url.startswith("sqlite"):
            return url
        return f"{url}{'&' if '?' in url else '?'}box={self.ledger.box}"


def load(path: Path) -> Config:
    """Read and check a config file; relative paths in it are made absolute from its own folder.

    Raises InputError: not found, not TOML, unknown key (with the nearest known one), bad value.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        data = tomllib.loads(text)
    except FileNotFoundError as e:
        raise InputError("--config", f"there is no file {path}", "give the path of a TOML file") from e
    except (OSError, UnicodeDecodeError) as e:
        why = e.strerror if isinstance(e, OSError) else "it is not UTF-8 text"
        raise InputError("--config", f"{path} cannot be read: {why}", "give the path of a TOML file") from e
    except RecursionError as e:
        raise InputError("--config", f"{path} is nested too deep to be read", "flatten it") from e
    except ValueError as e:  # TOMLDecodeError, or a number of more than 4,300 digits
        problem, hint = syntax_words(text, e)
        raise InputError("--config", f"{path} is not TOML: {problem}", hint) from e
    config = Config.parse(data, where=path.name, folder=path.resolve().parent)
    check_types(config, data, path.name)
    return config
