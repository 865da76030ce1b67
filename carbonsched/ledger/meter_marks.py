"""Finds, for each board, where its account ends: a meter continues from there."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, func, select

from carbonsched.ledger.rows import maybe_moment, moment
from carbonsched.ledger.tables import INTERVALS
from carbonsched.model.energy import Account, EnergyMethod
from carbonsched.power.base import Mark


def marks(connection: Connection) -> dict[str, Mark]:
    """Board → the last row's end, and how far its counter was charged in that epoch."""
    t = INTERVALS.c
    # late energy is written late
    newest = (
        select(func.max(t.id))
        .where(t.replaces.is_(None), t.account != str(Account.IMPORTED))
        .group_by(t.board)
    )
    last = connection.execute(select(INTERVALS).where(t.id.in_(newest))).mappings().all()
    return {row["board"]: _mark(connection, row) for row in last}


def _blind_from(connection: Connection, last: Mapping[Any, Any]) -> datetime | None:
    """Since when a board's energy has been unknown up to the end; None: its last row knows it, or no earlier row does."""
    if last["energy_mj"] is not None:
        return None
    t = INTERVALS.c
    known = and_(t.board == last["board"], t.energy_mj.is_not(None), t.replaces.is_(None))
    newest = select(t.end_us).where(known).order_by(t.id.desc()).limit(1)
    return maybe_moment(connection.execute(newest).scalar())


def _least_whole_w(connection: Connection, last: Mapping[Any, Any]) -> float | None:
    """The lowest power of a host since it booted, whose epochs are of one daemon each; rows with a reason are shares of its energy."""
    t = INTERVALS.c
    life = last["counter_epoch"].rpartition(":")[0]
    here = and_(t.board == last["board"], t.counter_epoch.startswith(f"{life}:", autoescape=True))
    whole = and_(t.reason.is_(None), t.method == str(EnergyMethod.ESTIMATED), t.power_w > 0)
    found: float | None = connection.execute(select(func.min(t.power_w)).where(here, whole)).scalar()
    return found


def _mark(connection: Connection, last: Mapping[Any, Any]) -> Mark:
    t = INTERVALS.c
    here = and_(t.board == last["board"], t.counter_epoch == last["counter_epoch"])
    drawn = and_(t.method == str(EnergyMethod.COUNTER), t.power_w > 0)
    # not from the last row alone: it may be of a failed reading, and shares of one delta have no order
    found = select(func.max(t.counter_end_mj), func.min(t.power_w).filter(drawn)).where(here)
    reach, least_w = connection.execute(found).one()
    if last["method"] == str(EnergyMethod.ESTIMATED) and reach is None:
        least_w = _least_whole_w(connection, last)
    return Mark(
        at=moment(last["end_us"]),
        counter_mj=reach,
        counter_epoch=last["counter_epoch"],
        power_w=last["power_w"],
        blind_from=_blind_from(connection, last),
        least_w=least_w,
    )
