"""Sums interval rows in the database, from one covering index, so that a job's length hardly matters.

Seconds are of the board that was charged longest, so a GPU and its host side by side are not counted twice.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, TypeVar

from sqlalchemy import ColumnElement, Connection, and_, case, func, literal, select

from carbonsched.ledger.rows import micros, moment
from carbonsched.ledger.tables import INTERVALS
from carbonsched.model.energy import Account, BudgetAccount, EnergyMethod
from carbonsched.units import MJ_PER_J

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Era:
    """A range of rows charged by one account: those after `after`, up to the next era.

    Example:
        >>> Era(120, BudgetAccount.ON_SITE, supplied=True).after
        120
    """

    after: int
    """Id of the last row before it."""
    account: BudgetAccount
    supplied: bool
    """Whether the box had a supply of its own, by its config."""


@dataclass(frozen=True, slots=True)
class Group:
    """The smallest sum: one segment's rows on one board by one method, bridged or not.

    Example::

        groups = ledger.groups("scitldr-7f3a1c")
        gpu = total(group for group in groups if group.board != "host")
    """

    account: Account
    job_id: str | None
    segment: int | None
    board: str
    method: EnergyMethod
    bridged: bool
    rows: int
    energy_mj: int
    grams: float
    """What budgets are charged: by the account of each row's era."""
    seconds: float
    unknown_s: float
    """Where the grams are null: energy or intensity is unknown."""
    weighted: float
    """Σ mJ × g/kWh over rows whose intensity is known, and below Σ mJ of the same rows."""
    weighted_mj: int
    start: datetime
    end: datetime
    location_g: float
    """All energy at the grid's intensity."""
    on_site_g: float
    """With the site's own supply counted, as far as it is known."""
    supplied: int
    """Rows of times at which the box had a supply of its own."""
    supply_unknown_s: float
    """Of these: time when the supply was unknown, and the grid's intensity counts."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What is known, and for how long it is not. If nothing was charged: zeros, and None for times and means.

    Example:
        >>> total(()).energy_j, total(()).g_per_kwh is None
        (0.0, True)
    """

    rows: int
    energy_mj: int
    grams: float
    """What budgets are charged."""
    location_g: float
    """All energy at the grid's intensity."""
    on_site_g: float | None
    """With the site's own supply counted, as far as it is known; None where the box has none."""
    supply_unknown_s: float
    seconds: float
    unknown_s: float
    estimated_mj: int
    """Part of the energy that is integrated, modelled, split or bridged, not a counter's own difference."""
    estimated_g: float
    bridged_mj: int
    bridged_g: float
    bridged_s: float
    unknown_mj: int
    """Part of the energy whose intensity is unknown."""
    unmetered_s: float
    """How long the energy itself was unknown."""
    g_per_kwh: float | None
    """Energy-weighted mean of the intensities charged."""
    power_w: float | None
    """Known joules over the seconds they were used in; None without any."""
    start: datetime | None
    end: datetime | None

    @property
    def estimated(self) -> bool:
        return self.estimated_mj > 0

    @property
    def bridged(self) -> bool:
        return self.bridged_s > 0

    @property
    def energy_j(self) -> float:
        return self.energy_mj / MJ_PER_J


def where(
    job_id: str | None = None, start: datetime | None = None, end: datetime | None = None
) -> ColumnElement[bool]:
    """Rows of a job (None: of everyone) that begin in [start, end)."""
    tests: list[ColumnElement[bool]] = [INTERVALS.c.id > 0]
    if job_id is not None:
        tests.append(INTERVALS.c.job_id == job_id)
    if start is not None:
        tests.append(INTERVALS.c.start_us >= micros(start))
    if end is not None:
        tests.append(INTERVALS.c.start_us < micros(end))
    return and_(*tests)


_OTHER: Final = INTERVALS.alias()
_REPLACED: Final = select(_OTHER.c.replaces).where(_OTHER.c.replaces.is_not(None))
"""Rows of unknown energy that others stand for: they no longer count. Made once, for it is most of the making of a query."""


def charged_g(row: Mapping[Any, Any], eras: Sequence[Era]) -> float | None:
    """The grams of one row that a budget is charged; None where they are not known."""
    on_site: float | None = row["on_site_grams"]
    grams: float | None = row["grams"]
    return on_site if account_of(row, eras) is BudgetAccount.ON_SITE and on_site is not None else grams


def account_of(row: Mapping[Any, Any], eras: Sequence[Era]) -> BudgetAccount:
    """By which a row is charged."""
    return next((era.account for era in reversed(eras) if row["id"] > era.after), BudgetAccount.LOCATION)


def _accounts(eras: Sequence[Era]) -> tuple[ColumnElement[Any], ...]:
    """(Σ charged, Σ by location, Σ on-site, rows that are supplied, microseconds whose supply is not known).

    The index has all that is summed, and no row is touched.
    """
    t, nothing = INTERVALS.c, literal(0)
    location = func.coalesce(func.sum(t.grams), 0.0)
    if not any(era.supplied for era in eras):
        return location, location, location, nothing, nothing
    on_site = func.coalesce(t.on_site_grams, t.grams)
    charged: ColumnElement[Any] = t.grams
    supplied: ColumnElement[Any] = nothing
    for era in eras:  # the last one that a row lies in holds
        of_era = on_site if era.account is BudgetAccount.ON_SITE else t.grams
        charged = case((t.id > era.after, of_era), else_=charged)
        supplied = case((t.id > era.after, int(era.supplied)), else_=supplied)
    unknown = and_(supplied == 1, t.grams.is_not(None), t.supply_share.is_(None))
    return (
        func.coalesce(func.sum(charged), 0.0),
        location,
        func.coalesce(func.sum(on_site), 0.0),
        func.sum(supplied),
        func.sum(case((unknown, t.end_us - t.start_us), else_=0)),
    )


def groups(
    connection: Connection, chosen: ColumnElement[bool], eras: Sequence[Era] = (), *, newest: bool = False
) -> tuple[Group, ...]:
    """Every group among the rows chosen; `newest`: they are few and at the end of the ledger."""
    t = INTERVALS.c
    span = t.end_us - t.start_us
    keys = (t.account, t.job_id, t.segment, t.board, t.method, t.bridged)
    known = and_(t.energy_mj.is_not(None), t.g_per_kwh.is_not(None))
    charged, *beside = _accounts(eras)
    query = (
        select(
            *keys,
            func.sum(func.coalesce(t.rows, 1)),
            func.coalesce(func.sum(t.energy_mj), 0),
            charged,
            func.sum(span),
            func.sum(case((t.grams.is_(None), span), else_=0)),
            func.coalesce(func.sum(case((known, t.energy_mj * t.g_per_kwh), else_=0.0)), 0.0),
            func.coalesce(func.sum(case((known, t.energy_mj), else_=0)), 0),
            func.min(t.start_us),
            func.max(t.end_us),
            *beside,
        )
        .where(chosen, t.id.not_in(_REPLACED))
        .group_by(*keys)
        .order_by(*keys)
    )
    if newest:
        # by row number, not by job: SQLite would walk all the job's rows to find the last few
        query = query.with_hint(INTERVALS, "NOT INDEXED", "sqlite")
    return tuple(_group(row) for row in connection.execute(query))


def cost(connection: Connection, chosen: ColumnElement[bool]) -> float | None:
    """EUR of the rows chosen whose price is known; None where none is."""
    eur = connection.execute(select(func.sum(INTERVALS.c.eur)).where(chosen)).scalar()
    return None if eur is None else float(eur)


def merged(old: Iterable[Group], new: Iterable[Group]) -> tuple[Group, ...]:
    """The groups of two sets of rows together."""
    found: dict[Hashable, Group] = {}
    for group in (*old, *new):
        key = (group.account, group.job_id, group.segment, group.board, group.method, group.bridged)
        found[key] = _sum(found[key], group) if key in found else group
    return tuple(found.values())


def _sum(a: Group, b: Group) -> Group:
    return replace(
        a,
        rows=a.rows + b.rows,
        energy_mj=a.energy_mj + b.energy_mj,
        grams=a.grams + b.grams,
        seconds=a.seconds + b.seconds,
        unknown_s=a.unknown_s + b.unknown_s,
        weighted=a.weighted + b.weighted,
        weighted_mj=a.weighted_mj + b.weighted_mj,
        start=min(a.start, b.start),
        end=max(a.end, b.end),
        location_g=a.location_g + b.location_g,
        on_site_g=a.on_site_g + b.on_site_g,
        supplied=a.supplied + b.supplied,
        supply_unknown_s=a.supply_unknown_s + b.supply_unknown_s,
    )


def _group(row: Any) -> Group:
    account, job_id, segment, board, method, bridged = row[:6]
    rows, mj, g, span, unknown, weighted, weighted_mj, start, end = row[6:15]
    location, on_site, supplied, supply_unknown = row[15:]
    return Group(
        account=Account(account),
        job_id=job_id,
        segment=segment,
        board=board,
        method=EnergyMethod(method),
        bridged=bool(bridged),
        rows=int(rows),
        energy_mj=int(mj),
        grams=float(g),
        seconds=int(span) / 1e6,
        unknown_s=int(unknown) / 1e6,
        weighted=float(weighted),
        weighted_mj=int(weighted_mj),
        start=moment(start),
        end=moment(end),
        location_g=float(location),
        on_site_g=float(on_site),
        supplied=int(supplied or 0),
        supply_unknown_s=int(supply_unknown or 0) / 1e6,
    )


def total(parts: Iterable[Group]) -> Totals:
    """One sum of many groups."""
    found = tuple(parts)
    seconds = _longest(found, lambda g: g.seconds)
    energy_mj = sum(g.energy_mj for g in found)
    weighted_mj = sum(g.weighted_mj for g in found)
    modelled = tuple(g for g in found if g.method is not EnergyMethod.COUNTER)
    bridged = tuple(g for g in found if g.bridged)
    # each board's mean over its own known time: a board that was unknown for a while must not look idle
    boards: dict[str, tuple[int, float]] = {}
    for g in found:
        if g.method is not EnergyMethod.UNAVAILABLE:
            mj, s = boards.get(g.board, (0, 0.0))
            boards[g.board] = (mj + g.energy_mj, s + g.seconds)
    powers = [mj / MJ_PER_J / s for mj, s in boards.values() if s > 0]
    return Totals(
        rows=sum(g.rows for g in found),
        energy_mj=energy_mj,
        grams=sum(g.grams for g in found),
        location_g=sum(g.location_g for g in found),
        on_site_g=sum(g.on_site_g for g in found) if any(g.supplied for g in found) else None,
        supply_unknown_s=_longest(found, lambda g: g.supply_unknown_s),
        seconds=seconds,
        unknown_s=_longest(found, lambda g: g.unknown_s),
        estimated_mj=sum(g.energy_mj for g in modelled),
        estimated_g=sum(g.grams for g in modelled),
        bridged_mj=sum(g.energy_mj for g in bridged),
        bridged_g=sum(g.grams for g in bridged),
        bridged_s=_longest(bridged, lambda g: g.seconds),
        unknown_mj=energy_mj - weighted_mj,
        unmetered_s=_longest(
            tuple(g for g in found if g.method is EnergyMethod.UNAVAILABLE), lambda g: g.seconds
        ),
        g_per_kwh=sum(g.weighted for g in found) / weighted_mj if weighted_mj else None,
        power_w=sum(powers) if powers else None,
        start=min((g.start for g in found), default=None),
        end=max((g.end for g in found), default=None),
    )


def total_by(parts: Iterable[Group], key: Callable[[Group], Key]) -> dict[Key, Totals]:
    """Sums of the groups that share a key."""
    bins: dict[Key, list[Group]] = {}
    for group in parts:
        bins.setdefault(key(group), []).append(group)
    return {name: total(found) for name, found in bins.items()}


def _longest(parts: Iterable[Group], measure: Callable[[Group], float]) -> float:
    boards: dict[str, float] = {}
    for group in parts:
        boards[group.board] = boards.get(group.board, 0.0) + measure(group)
    return max(boards.values(), default=0.0)
