"""Keeps the account of one job: the energy and the grams that were charged to it.

Every guard holds the budget against `JobAccount.charged_g`: the grams that are known, and the most that stretches of unknown
intensity or power can have cost. It is changed here alone, by each metered piece of energy.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from carbonsched.ledger.totals import Totals
from carbonsched.model.energy import BudgetAccount, EnergyMethod, Interval
from carbonsched.units import MJ_PER_J, grams

UNKNOWN_W = 300.0
"""Power taken where a device was never read and no rating is known: deliberately high."""


@dataclass(slots=True)
class JobAccount:
    """What was charged to a job, over all its processes; the figures of segments are those of the process that runs.

    Example:
        >>> account = JobAccount(spent_g=2.0, reserved_g=0.5)
        >>> account.charged_g
        2.5
    """

    spent_mj: int = 0
    spent_g: float = 0.0
    """Known grams, by the account that budgets are charged by."""
    location_g: float = 0.0
    """All energy at the grid's intensity."""
    on_site_g: float = 0.0
    """With the site's own supply counted, as far as it is known."""
    supplied: bool = False
    """Whether the box had a supply of its own meanwhile."""
    unknown_s: float = 0.0
    """Seconds of which the energy or the intensity is not known."""
    reserved_g: float = 0.0
    """Grams that these seconds could have cost at the worst: the budget is held against them too."""
    estimated: bool = False
    """Whether any of the energy is not from a counter."""
    begun_g: float = 0.0
    """What was charged when the process was started."""
    segment_mj: dict[int | None, int] = field(default_factory=dict)
    """Segment → millijoules, of this process: a segment that is done again is another one to the energy model."""
    busy: dict[int, tuple[int, float]] = field(default_factory=dict)
    """Segment → millijoules and seconds in which steps ran, of this process; waiting and importance apart."""

    @classmethod
    def of_ledger(cls, totals: Totals, unknown_w: float, worst_g_per_kwh: float, pue: float) -> "JobAccount":
        """The account as the ledger's rows have it, the unknown at `unknown_w` and the worst intensity."""
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
        """What the budget is held against: known grams and the worst case of the unknown."""
        return self.spent_g + self.reserved_g

    def begin(self) -> None:
        """A process was started: its segments are counted from nothing."""
        self.segment_mj, self.busy, self.begun_g = {}, {}, self.charged_g

    def resume(self, segment_mj: Mapping[int | None, int], since_start_g: float) -> None:
        """Go on with a process that an earlier daemon started, by what the ledger has of it since then."""
        self.segment_mj, self.begun_g = dict(segment_mj), self.charged_g - since_start_g

    def restate(self, now: "JobAccount", told: Iterable[tuple[int | None, int]]) -> None:
        """Energy that was unknown was told. now: the account by the ledger, all rows written; told: (segment, millijoules)."""
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
        """Add a metered piece: an unknown one counts at `watts_high` W and `worst_g_per_kwh`.

        account: which of its grams the budget is charged. timed: whether its seconds count as those of the segment's steps. Devices are metered side by side, so those of one
        of them do.
        """
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
