"""The parts of a report's document. Every estimate is marked beside its number; an unknown value is null."""

from typing import Literal

from carbonsched.ledger.totals import Totals
from carbonsched.model.base import Doc, UtcTime
from carbonsched.model.energy import EnergyMethod
from carbonsched.model.grid import Basis, Kind
from carbonsched.model.job import JobSpec
from carbonsched.model.job_state import JobState
from carbonsched.model.segment_figures import SegmentFigures
from carbonsched.units import J_PER_KWH, MJ_PER_J


class Sums(Doc):
    """Energy and emissions of some rows: the known sums, their estimated part, and the duration of unknown values.

    Example::

        sums = Sums.of(ledger.totals(job_id))
        print(sums.spent_g, "estimated" if sums.estimated else "metered")
    """

    energy_j: float
    energy_kwh: float
    """Of the metered parts, see `boundary`; the grams include PUE, this figure does not."""
    spent_g: float
    """gCO2e = Σ energy × PUE × intensity, as decided: with the information of the time of use, by the account that budgets
    were charged by."""
    settled_g: float
    """As settled: with later information, by the account that budgets were charged by."""
    location_g: float
    """All energy at the grid's intensity."""
    on_site_g: float | None
    """With the site's own supply, as far as it is known; None if the box has none."""
    supply_unknown_s: float
    """Seconds in which the supply was unknown, so that the grid's intensity counts."""
    seconds: float
    unknown_s: float
    """Seconds with unknown energy or intensity; they are in no sum."""
    estimated: bool
    estimated_kwh: float
    """Not the difference of a hardware counter: integrated, modelled, split or bridged."""
    estimated_g: float
    bridged_kwh: float
    """Used while the daemon did not run."""
    bridged_g: float
    bridged_s: float
    g_per_kwh: float | None
    """Energy-weighted mean of the charged intensities."""
    power_w: float | None

    @property
    def unknown(self) -> bool:
        """Whether no grams are known: then the sum of 0 has no meaning."""
        return self.seconds <= self.unknown_s

    @property
    def unmetered(self) -> bool:
        """Whether no energy is known."""
        return self.unknown and not self.energy_j

    @classmethod
    def of(cls, totals: Totals, moved_g: float = 0.0) -> "Sums":
        """moved_g: settled minus decided grams."""
        kwh = MJ_PER_J * J_PER_KWH
        return cls(
            energy_j=totals.energy_j,
            energy_kwh=totals.energy_mj / kwh,
            spent_g=totals.grams,
            location_g=totals.location_g,
            on_site_g=totals.on_site_g,
            supply_unknown_s=totals.supply_unknown_s,
            settled_g=totals.grams + moved_g,
            seconds=totals.seconds,
            unknown_s=totals.unknown_s,
            estimated=totals.estimated,
            estimated_kwh=totals.estimated_mj / kwh,
            estimated_g=totals.estimated_g,
            bridged_kwh=totals.bridged_mj / kwh,
            bridged_g=totals.bridged_g,
            bridged_s=totals.bridged_s,
            g_per_kwh=totals.g_per_kwh,
            power_w=totals.power_w,
        )


class NamedSums(Doc):
    """The sums of the rows that share a name.

    Example::

        by_device = {part.name: part.sums.energy_kwh for part in report.boards}
    """

    name: str
    """Name of a board, a method, an account or a job."""
    sums: Sums


class BudgetChange(Doc):
    """A change of the budget, by a user or by accrual.

    Example:
        >>> BudgetChange(at="2026-11-22T10:00:00Z", actor="alice", from_g=120, budget_g=150, reason="one more epoch").budget_g
        150.0
    """

    at: UtcTime
    actor: str
    from_g: float | None
    """None: there was no budget before."""
    budget_g: float
    reason: str


class JobPart(Doc):
    """The job of a report.

    Example::

        job = report.job
        passed = job is not None and job.left_g is not None and job.left_g < 0
    """

    id: str
    name: str
    owner: str
    state: JobState
    reason: str
    submitted_at: UtcTime
    started_at: UtcTime | None
    ended_at: UtcTime | None
    budget_g: float | None
    left_g: float | None
    """Budget − known grams; below 0 if it was exceeded. None without a resolved budget."""
    budget_changes: tuple[BudgetChange, ...] = ()
    """Since its submission, oldest first; of accruals only the last."""
    spec_sha256: str
    spec: JobSpec


class SegmentLine(SegmentFigures):
    """A finished segment in a report.

    Example::

        again = [line.k for line in report.segments if line.attempts > 1]
    """

    location_g: float
    """All energy at the grid's intensity; `spent_g` is what budgets were charged."""
    attempts: int
    """Above 1 if the segment finished more than once, the earlier times without effect."""
    first_step: int
    seconds: float
    estimated: bool
    unknown_s: float
    settled_g: float
    """As settled; `spent_g` is as decided."""
    clock_mhz: int | None = None
    """Clock of the board while its steps ran; None: its own clock, or several."""


class Lost(Doc):
    """Energy of segments that were cut off, or finished and then repeated. It stays on the job's account.

    Example:
        >>> Lost(energy_j=3600, spent_g=0.2, segments=[4]).segments
        (4,)
    """

    energy_j: float
    spent_g: float
    segments: tuple[int, ...]
    note: str = "at most: a checkpoint inside the segment keeps the work before it"


class Gap(Doc):
    """An interval that was bridged, is unknown, or has no row.

    Example:
        >>> Gap(board="GPU-1", start="2026-11-22T10:00:00Z", end="2026-11-22T10:09:00Z", kind="unknown", energy_j=None,
        ...     spent_g=None, method="unavailable", reason="the driver was reloaded").energy_j is None
        True
    """

    board: str
    start: UtcTime
    end: UtcTime
    kind: Literal["bridged", "unknown", "missing"]
    """`bridged`: the daemon did not run; `unknown`: energy or intensity could not be read; `missing`: nothing was metered."""
    energy_j: float | None
    spent_g: float | None
    method: EnergyMethod
    reason: str | None


class PlugEnergy(Doc):
    """Energy and grams at the box's plug, by a factor that its owner states. Beside the account, in no sum. Estimated.

    Example:
        >>> PlugEnergy(factor=1.12, source="PSU's 80 PLUS sheet", energy_kwh=1.12, spent_g=224).spent_g
        224.0
    """

    factor: float
    source: str
    energy_kwh: float
    """Without PUE, as `energy_kwh` of the totals."""
    spent_g: float
    estimated: bool = True


class Selection(Doc):
    """The jobs of a period's report.

    Example:
        >>> Selection(user="ada", labels=("project=thesis",)).words
        'jobs of ada, labelled project=thesis'
    """

    user: str | None = None
    """Their submitter."""
    labels: tuple[str, ...] = ()
    """`key=value`, or `key` with any value. All must match."""
    jobs: tuple[str, ...] = ()
    """The matching jobs, of all time."""

    @property
    def any(self) -> bool:
        """Whether it excludes any job."""
        return self.user is not None or bool(self.labels)

    @property
    def words(self) -> str:
        """For people."""
        of = f" of {self.user}" if self.user is not None else ""
        labelled = f", labelled {', '.join(self.labels)}" if self.labels else ""
        return f"jobs{of}{labelled}"


class FeedUse(Doc):
    """The charges by one provider's intensities.

    Example::

        constant_j = sum(feed.energy_j for feed in report.feeds if feed.kind.constant)
    """

    provider: str
    zone: str
    basis: Basis
    kind: Kind
    rows: int
    energy_j: float
    g_per_kwh: float | None
    spent_g: float
    """As decided."""
    settled_g: float
    """The same rows as settled, by later values of this feed or another; at the grid's intensity, like `spent_g`."""
    first: UtcTime
    last: UtcTime
    time_compression: float
    note: str


class KindSums(Doc):
    """The charges by intensities of one kind.

    Example:
        >>> KindSums(kind="forecast", energy_j=3.6e6, spent_g=240, share=0.3, estimated=True).share
        0.3
    """

    kind: str
    """`actual`, `estimated`, `forecast`, `held` (used after its end), `fallback` or `static`."""
    energy_j: float
    spent_g: float
    """As decided, at the grid's intensity."""
    share: float | None
    """Share of all grams."""
    estimated: bool
    """True for all but `actual`."""


class PriceUse(Doc):
    """The charges by one source's prices.

    Example:
        >>> PriceUse(provider="energy-charts", zone="DE-LU", kind="actual", note="CC BY 4.0", energy_j=3.6e6, eur=0.08).eur
        0.08
    """

    provider: str
    zone: str
    kind: Kind
    note: str
    energy_j: float
    eur: float


class Money(Doc):
    """The cost of the energy, PUE included.

    Example:
        >>> Money(eur=0.08, eur_per_kwh=0.08, unknown_kwh=0, unknown_share=0, estimated=False, jobs={"a-1": 0.08}, segments={},
        ...     prices=()).eur
        0.08
    """

    eur: float
    """Cost of the energy with a known price."""
    eur_per_kwh: float | None
    """Mean paid price, by energy with PUE."""
    unknown_kwh: float
    """Energy with an unknown price: it is in no sum."""
    unknown_share: float
    """Share of all energy."""
    estimated: bool
    """Whether any of it is from an estimate: of the energy, or of the price (held, or a constant in its place)."""
    jobs: dict[str, float]
    """EUR by job; idle energy belongs to no job."""
    segments: dict[int, float]
    """In a job's report: EUR by segment, interrupted attempts included."""
    prices: tuple[PriceUse, ...]


class PueUse(Doc):
    """The energy that was charged with one PUE.

    Example:
        >>> PueUse(pue=1.2, source="config", energy_j=3.6e6).pue
        1.2
    """

    pue: float
    source: str
    energy_j: float


class Point(Doc):
    """One interval of the report's time, for plots.

    Example::

        curve = [(point.end, point.spent_g) for point in report.timeline]
    """

    start: UtcTime
    end: UtcTime
    g_per_kwh: float | None
    """Time-weighted over all rows of the box, so it is also known while the job waited."""
    spent_g: float
    """Cumulative, at `end`."""
    power_w: float | None
    segment: int | None
