"""Keeps the account of one job: the energy and the grams charged to it.

Every guard checks the budget against `JobAccount.charged_g`: the known grams, plus the most that stretches of unknown intensity or power
can have cost. Each metered piece of energy changes the account, and only this file does so.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from carbonsched.ledger.totals import Totals
from carbonsched.model.energy import BudgetAccount, EnergyMethod, Interval
from carbonsched.units import MJ_PER_J, grams

UNKNOWN_W = 300.0
"""Power assumed for a device that was never read and has no known rating: deliberately high."""


@dataclass(slots=True)
class JobAccount:
    """What was charged to a job over all its processes; figures per segment are of the current process only.

    Example:
        >>> account = JobAccount(spent_g=2.0, reserved_g=0.5)
        >>> account.charged_g
        2.5
    """

    spent_mj: int = 0
    spent_g: float = 0.0
    """Known grams, by the account that budgets are charged by."""
    location_g: float = 0.0
    """Grams of all energy at the grid's intensity."""
    on_site_g: float = 0.0
    """Grams with the site's own supply counted, as far as it is known."""
    supplied: bool = False
    """Whether the box had a supply of its own meanwhile."""
    unknown_s: float = 0.0
    """Seconds of unknown energy or intensity."""
    reserved_g: float = 0.0
    """Worst-case grams of these seconds: the budget has to cover them too."""
    estimated: bool = False
    """Whether part of the energy is not from a counter."""
    begun_g: float = 0.0
    """Grams charged when the process was started."""
    segment_mj: dict[int | None, int] = field(default_factory=dict)
    """Segment → millijoules, in this process; the energy model treats a repeated segment as another one."""
    busy: dict[int, tuple[int, float]] = field(default_factory=dict)
    """Segment → millijoules and seconds during steps, in this process; without waits and importance."""

    @classmethod
    def of_ledger(cls, totals: Totals, unknown_w: float, worst_g_per_kwh: float, pue: float) -> "JobAccount":
        """The account by the ledger's rows, with unknown stretches at `unknown_w` and the worst intensity."""
        unknown_j = totals.unknown_mj / MJ_PER_J + totals.unmetered_s * unknown_w
        return cls(
            spent_mj=totals.energy_mj,
            spent_g=totals.grams,
            location_g=totals.location_g,
            on_site_g=totals.location_g if totals.on_site_g is None else totals.on_site_g,
            supplied=totals.on_site_g is not None,
            unknown_s=totals.unknown_s,
            reserved_g=grams(unknown_j, worst_g_per_kwh, pue),
            estimated=totals.estimated,
        )

    @property
    def charged_g(self) -> float:
        """What guards check against the budget: the known grams and the worst case of the unknown."""
        return self.spent_g + self.reserved_g

    def begin(self) -> None:
        """Begin a new process: count its segments from zero."""
        self.segment_mj, self.busy, self.begun_g = {}, {}, self.charged_g

    def resume(self, segment_mj: Mapping[int | None, int], since_start_g: float) -> None:
        """Resume a process that an earlier daemon started, by what the ledger has of it since then."""
        self.segment_mj, self.begun_g = dict(segment_mj), self.charged_g - since_start_g

    def restate(self, now: "JobAccount", told: Iterable[tuple[int | None, int]]) -> None:
        """Replace unknown energy that became known late. now: the account by the ledger, with all rows written; told: (segment, millijoules)."""
        self.spent_mj, self.spent_g, self.reserved_g = now.spent_mj, now.spent_g, now.reserved_g
        self.location_g, self.on_site_g = now.location_g, now.on_site_g
        self.unknown_s, self.estimated = now.unknown_s, True
        for segment, energy_mj in told:
            self.segment_mj[segment] = self.segment_mj.get(segment, 0) + energy_mj

    def charge(
        self,
        piece: Interval,
        worst_g_per_kwh: float,
        watts_high: float,
        *,
        timed: bool,
        account: BudgetAccount = BudgetAccount.LOCATION,
    ) -> None:
        """Add a metered piece; an unknown one counts at `watts_high` W and `worst_g_per_kwh`. account: which of its grams the budget is
        charged. timed: whether its seconds count as seconds of the segment's steps. Devices are metered side by side, so only those of one
        device count."""
        delta = piece.delta
        span_s = (delta.end - delta.start).total_seconds()
        if delta.energy_mj is not None:
            self.spent_mj += delta.energy_mj
            self.segment_mj[piece.segment] = self.segment_mj.get(piece.segment, 0) + delta.energy_mj
            if piece.segment is not None and piece.rho is not None:
                energy_mj, seconds = self.busy.get(piece.segment, (0, 0.0))
                self.busy[piece.segment] = (energy_mj + delta.energy_mj, seconds + span_s * timed)
        self.supplied = self.supplied or piece.supply is not None
        if piece.grams is not None:
            self.spent_g += piece.charged_g(account) or 0.0
            self.location_g += piece.grams
            self.on_site_g += piece.charged_g(BudgetAccount.ON_SITE) or 0.0
        else:
            joules = watts_high * span_s if delta.energy_mj is None else delta.energy_mj / MJ_PER_J
            self.unknown_s += span_s
            self.reserved_g += grams(joules, worst_g_per_kwh, piece.pue)
        self.estimated = self.estimated or delta.method is not EnergyMethod.COUNTER
