"""The conservation law: every joule that a board's energy counter counted is charged once, to a job or to idle time.

In integer millijoules, per board and counter epoch (one life of the counter): Σ energy of the rows = Σ counter differences. Even a hash
chain that was forged from the beginning has to satisfy it.
"""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, and_, func, select

from carbonsched.ledger.tables import INTERVALS
from carbonsched.model.audit import Balance

_PAGE: Final = 1000
_LAST: Final = 100
"""The last rows of a board, among which the highest counter is: shares of one stretch have no order."""
_SLACK_US: Final = 1_000_000
"""Gap in microseconds that neighbouring rows may have: the wall clock is slewed."""


@dataclass(slots=True)
class _Sum:
    """The rows of one counter epoch, summed in the order of the counter."""

    board: str
    epoch: str
    reach: int
    charged: int = 0
    counted: int = 0
    holes: int = 0

    def add(self, connection: Connection, start: int, end: int, energy: int) -> None:
        """Add a row. Shares of one counter difference carry its start and end, so stretches count as a union, not as a sum."""
        self.charged += energy
        if start > self.reach and not _covered(connection, self.board, self.epoch, self.reach, start):
            self.holes += start - self.reach
        self.counted += max(0, end - max(start, self.reach))
        self.reach = max(self.reach, end)

    def balance(self) -> Balance:
        return Balance(
            board=self.board,
            counter_epoch=self.epoch,
            charged_mj=self.charged,
            counted_mj=self.counted,
            holes_mj=self.holes,
            ok=self.charged == self.counted and self.holes == 0,
        )


def conservation(connection: Connection, after: int = 0) -> tuple[Balance, ...]:
    """The balance of every counter epoch, by board and epoch, from one index and one page in memory at a time. after: only rows after this
    one; each epoch continues from its rows before."""
    t = INTERVALS.c
    query = (
        select(t.board, t.counter_epoch, t.counter_start_mj, t.counter_end_mj, t.energy_mj)
        .where(and_(t.counter_start_mj.is_not(None), t.counter_end_mj.is_not(None), t.energy_mj.is_not(None)))
        .order_by(t.board, t.counter_epoch, t.counter_start_mj, t.counter_end_mj)
    )
    if after:
        query = query.where(t.id > after).with_hint(INTERVALS, "NOT INDEXED", "sqlite")
    sums: list[_Sum] = []
    for board, epoch, start, end, energy in connection.execute(query.execution_options(yield_per=_PAGE)):
        if not sums or (sums[-1].board, sums[-1].epoch) != (board, epoch):
            reach = _reached(connection, board, epoch, after) if after else None
            sums.append(_Sum(board, epoch, start if reach is None else reach))
        sums[-1].add(connection, start, end, energy)
    return tuple(each.balance() for each in sums)


def _reached(connection: Connection, board: str, epoch: str, last: int) -> int | None:
    """The counter value up to which rows up to `last` are charged; None if the epoch began later."""
    t = INTERVALS.c
    mine = (
        select(t.counter_epoch, t.counter_end_mj)
        .where(t.board == board, t.id <= last, t.counter_end_mj.is_not(None))
        .order_by(t.id.desc())
        .limit(_LAST)
        .subquery()
    )
    here = select(func.max(mine.c.counter_end_mj)).where(mine.c.counter_epoch == epoch)
    return connection.execute(here).scalar()


def imbalance(balance: Balance) -> str | None:
    """What is out of balance, in words; None: nothing."""
    where = f"conservation is broken on board {balance.board}, counter epoch {balance.counter_epoch}: "
    off = balance.charged_mj - balance.counted_mj
    if off:
        return where + f"{balance.charged_mj} mJ were charged, the counter moved by {balance.counted_mj} mJ"
    if balance.holes_mj:
        return where + f"the counter moved by {balance.holes_mj} mJ while no row accounts for it"
    return None


def _covered(connection: Connection, board: str, epoch: str, from_mj: int, to_mj: int) -> bool:
    """Whether rows without counter values cover the time in which the counter moved between two values. A meter that can read the power but
    not the counter writes such rows, and labels their energy integrated or unknown."""
    t = INTERVALS.c
    here = and_(t.board == board, t.counter_epoch == epoch)
    start = connection.execute(
        select(func.max(t.end_us)).where(here, t.counter_end_mj == from_mj)
    ).scalar_one()
    end = connection.execute(
        select(func.min(t.start_us)).where(here, t.counter_start_mj == to_mj)
    ).scalar_one()
    between = and_(t.board == board, t.counter_start_mj.is_(None), t.start_us >= start, t.end_us <= end)
    spans = connection.execute(select(t.start_us, t.end_us).where(between).distinct()).all()
    covered = sum(b - a for a, b in spans)
    return bool(spans) and end - start - covered <= _SLACK_US
