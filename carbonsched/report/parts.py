"""The parts of a report's document. Every estimate is marked beside its number; what is unknown is null."""

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
    """Energy and emissions of some rows: what is known, how much of it is estimated, for how long nothing is known.

    Example::

        sums = Sums.of(ledger.totals(job_id))
        print(sums.spent_g, "estimated" if sums.estimated else "metered")
    """

    energy_j: float
    energy_kwh: float
    """Of the parts that are metered, see `boundary`: PUE is in the grams, not in here."""
    spent_g: float
    """gCO2e = Σ energy × PUE × intensity, as decided: with what was known when it was used, and by the account that budgets
    were charged by."""
    settled_g: float
    """As settled: with what became known later, by the account that budgets were charged by."""
    location_g: float
    """All energy at the grid's intensity."""
    on_site_g: float | None
    """With the site's own supply counted, as far as it is known; None where the box has none."""
    supply_unknown_s: float
    """Of the seconds: where it was not known what the supply gave, and the grid's intensity counts."""
    seconds: float
    unknown_s: float
    """Of these the energy or the intensity is not known; they are in no sum."""
    estimated: bool
    estimated_kwh: float
    """Not a hardware counter's own difference: integrated, modelled, split or bridged."""
    estimated_g: float
    bridged_kwh: float
    """Used while the daemon was away."""
    bridged_g: float
    bridged_s: float
    g_per_kwh: float | None
    """Energy-weighted mean of the intensities charged."""
    power_w: float | None

    @property
    def unknown(self) -> bool:
        """Whether no grams are known of any of it: then its sum of 0 says nothing."""
        return self.seconds <= self.unknown_s

    @property
    def unmetered(self) -> bool:
        """Whether no energy is known of any of it."""
        return self.unknown and not self.energy_j

    @classmethod
    def of(cls, totals: Totals, moved_g: float = 0.0) -> "Sums":
        """moved_g: by how much they were settled since."""
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
    """Of a board, a method, an account or a job."""
    sums: Sums


class BudgetChange(Doc):
    """Somebody, or what accrues, set the budget anew.

    Example:
        >>> BudgetChange(at="2026-11-22T10:00:00Z", actor="alice", from_g=120, budget_g=150, reason="one more epoch").budget_g
        150.0
    """

    at: UtcTime
    actor: str
    from_g: float | None
    """None: there was none before."""
    budget_g: float
    reason: str


class JobPart(Doc):
    """The job that a report is of.

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
    """Budget − known grams; below 0 it was passed. None without a resolved budget."""
    budget_changes: tuple[BudgetChange, ...] = ()
    """Since it was submitted, oldest first; of what accrues only the last."""
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
    """Above 1 where the segment was finished more than once, the earlier ones in vain."""
    first_step: int
    seconds: float
    estimated: bool
    unknown_s: float
    settled_g: float
    """As settled; `spent_g` is as decided."""
    clock_mhz: int | None = None
    """That the board was locked at while its steps ran; None: its own clock, or several."""


class Lost(Doc):
    """Energy of segments that were cut off before they ended, or finished and then repeated. It stays on the job's account.

    Example:
        >>> Lost(energy_j=3600, spent_g=0.2, segments=[4]).segments
        (4,)
    """

    energy_j: float
    spent_g: float
    segments: tuple[int, ...]
    note: str = "at most: a checkpoint inside the segment keeps the work before it"


class Gap(Doc):
    """A stretch that was bridged, is unknown, or of which there is no row.

    Example:
        >>> Gap(board="GPU-1", start="2026-11-22T10:00:00Z", end="2026-11-22T10:09:00Z", kind="unknown", energy_j=None,
        ...     spent_g=None, method="unavailable", reason="the driver was reloaded").energy_j is None
        True
    """

    board: str
    start: UtcTime
    end: UtcTime
    kind: Literal["bridged", "unknown", "missing"]
    """`bridged`: the daemon was away; `unknown`: energy or intensity could not be read; `missing`: nothing was metered."""
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
    """Of which jobs a period's report is.

    Example:
        >>> Selection(user="ada", labels=("project=thesis",)).words
        'jobs of ada, labelled project=thesis'
    """

    user: str | None = None
    """Who submitted them."""
    labels: tuple[str, ...] = ()
    """`key=value`, or `key`: whatever its value. All must hold."""
    jobs: tuple[str, ...] = ()
    """Those that it came to, of all times."""

    @property
    def any(self) -> bool:
        """Whether it leaves any job out."""
        return self.user is not None or bool(self.labels)

    @property
    def words(self) -> str:
        """For people."""
        of = f" of {self.user}" if self.user is not None else ""
        labelled = f", labelled {', '.join(self.labels)}" if self.labels else ""
        return f"jobs{of}{labelled}"


class FeedUse(Doc):
    """What one provider's intensities were charged to.

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
    """The same rows as settled, by this feed's later values or another's; like `spent_g` at the grid's intensity."""
    first: UtcTime
    last: UtcTime
    time_compression: float
    note: str


class KindSums(Doc):
    """What was charged by intensities of one kind.

    Example:
        >>> KindSums(kind="forecast", energy_j=3.6e6, spent_g=240, share=0.3, estimated=True).share
        0.3
    """

    kind: str
    """`actual`, `estimated`, `forecast`, `held` (kept on after its end), `fallback` or `static`."""
    energy_j: float
    spent_g: float
    """As decided, at the grid's intensity."""
    share: float | None
    """Of all grams."""
    estimated: bool
    """All but `actual`."""


class PriceUse(Doc):
    """What one source's prices were charged to.

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
    """What the energy cost, PUE included.

    Example:
        >>> Money(eur=0.08, eur_per_kwh=0.08, unknown_kwh=0, unknown_share=0, estimated=False, jobs={"a-1": 0.08}, segments={},
        ...     prices=()).eur
        0.08
    """

    eur: float
    """Of the energy whose price is known."""
    eur_per_kwh: float | None
    """Mean of what was paid, by energy with PUE."""
    unknown_kwh: float
    """Energy whose price was not known: it stands in no sum."""
    unknown_share: float
    """Of all energy."""
    estimated: bool
    """Whether any of it rests on an estimate: of the energy, or of the price (held, or a constant that stood in)."""
    jobs: dict[str, float]
    """EUR by job; idle energy is nobody's."""
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
    """One stretch of the report's time, for plots.

    Example::

        curve = [(point.end, point.spent_g) for point in report.timeline]
    """

    start: UtcTime
    end: UtcTime
    g_per_kwh: float | None
    """Time-weighted over all rows of the box, so that it is there while the job waited too."""
    spent_g: float
    """Cumulative, at `end`."""
    power_w: float | None
    segment: int | None
