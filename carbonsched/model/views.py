"""The answers of the API and of `--json`. Every number that is an estimate says so beside it."""

from typing import Any, Literal

from pydantic import Field

from carbonsched.model.base import Doc, UtcTime
from carbonsched.model.grid import GridNow
from carbonsched.model.job import JobSpec
from carbonsched.model.job_state import JobState
from carbonsched.model.profile import Removal
from carbonsched.model.protocol import Directive, Waste
from carbonsched.model.segment_figures import SegmentFigures


class JobView(Doc):
    """A row of `ps`.

    Example:
        >>> job = JobView(id="a-1", name="a", owner="alice", state="running", reason="rho 0.600", segment=0, segments=5, rho=0.6,
        ...     spent_g=3.5, budget_g=120, energy_j=9e4, estimated=False, power_w=300, submitted_at="2026-11-22T10:00:00Z")
        >>> job.state.live
        True
    """

    id: str
    name: str
    owner: str
    state: JobState
    reason: str
    """Why it is in this state or what the planner last said, in words."""
    segment: int | None
    """The one now running, from 0; None before the first."""
    segments: int | None
    segments_over: int | None = None
    """How many were finished; None for those who may not read the job."""
    step: int | None = None
    steps: int | None = None
    """Of the whole job; None: not known, or the daemon decides while it runs."""
    steps_expected: int | None = None
    """Estimated, where the daemon decides how many there are."""
    phase: Literal["stable", "cooldown"] | None = None
    """Where its learning rate stands, with train.scheduler = 'budget'."""
    rho: float | None
    """Directed for the running segment."""
    spent_g: float
    """Known grams, by the account that budgets are charged by; `unknown_s` tells for how long the energy or the intensity was not known."""
    unknown_s: float = 0.0
    location_g: float | None = None
    """All energy at the grid's intensity."""
    on_site_g: float | None = None
    """With the site's own supply counted, as far as it is known; None where the box has none."""
    budget_g: float | None
    """None until `budget_share` is resolved at the first segment, and for min-carbon without a budget. Of a rate what
    was granted so far; of a pool's job what it spent and its present part of what is left."""
    pool: str | None = None
    energy_j: float
    estimated: bool
    """Whether any of the energy is estimated rather than metered."""
    power_w: float | None
    """Over the last tick; None where unknown or not running."""
    loss: float | None = None
    boards: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    """Its owner's; none for those who may not read the job."""
    submitted_at: UtcTime
    started_at: UtcTime | None = None
    ended_at: UtcTime | None = None
    starts_at: UtcTime | None = None
    """When a queued job should start: estimated, by the plans of those that run and by what this box did for others. None: not known, or it is
    not queued."""
    starts_why: str | None = None
    """Of a queued job: what is before it, or why its start is not known, in words."""
    eta_s: float | None = None
    waste: Waste | None = None
    """What a stock Trainer would have computed beyond `flops_full` in the segments that are done; None: not known, or the job is over
    and `show` has it."""


class SegmentView(SegmentFigures):
    """A finished segment in `show`.

    Example::

        detail = client.show("scitldr-7f3a1c")
        spent_g = sum(segment.spent_g for segment in detail.segments_done)
    """


class JobDetail(JobView):
    """`show ID`.

    Example::

        detail = client.show("scitldr-7f3a1c")
        print(detail.state, detail.reason, len(detail.segments_done))
    """

    spec: JobSpec
    sha256: str
    directive: Directive | None
    segments_done: tuple[SegmentView, ...]
    eur: float | None = None
    """What it cost so far, as far as rows are written and their price is known; None: no price is known, or no `[[prices]]`."""
    output: str | None = None
    """Folder of the fine-tuned model on the daemon's box; None until the job has written one."""
    validation: tuple[dict[str, Any], ...] = ()
    """The `evaluated` events, oldest first."""
    history: tuple[dict[str, Any], ...] = ()
    """State changes: at, state, actor, reason."""
    left_out: dict[str, int] = {}
    """Kind → how many older entries, segments (`segment`) or evaluations (`evaluated`) than those listed there are."""


class JobList(Doc):
    """`ps`.

    Example:
        >>> JobList(jobs=[]).left_out
        0
    """

    jobs: tuple[JobView, ...]
    """Oldest first."""
    left_out: int = 0
    """Jobs that ended longer ago than those listed; `ps --all` lists them, too."""
    drained: str | None = None
    """Why the box starts no job, and who said so; None: it does."""


class Top(Doc):
    """`top --json`, one a line: the grid now, and the jobs that are not over.

    Example::

        for line in sys.stdin:  # carbonsched top --json | python watch.py
            seen = Top.model_validate_json(line)
    """

    grid: GridNow
    jobs: tuple[JobView, ...]
    drained: str | None = None
    """As in `ps`."""


class ReportQuery(Doc):
    """What a report is asked of: one job, or a period, or the jobs of a user, a label or this site, of all times or a period.

    Example:
        >>> ReportQuery(labels=("cost_centre=4711",)).selects
        True
    """

    job: str | None = None
    start: UtcTime | None = None
    end: UtcTime | None = None
    user: str | None = None
    """Who submitted the jobs."""
    labels: tuple[str, ...] = ()
    """`key=value`, or `key`: whatever its value; all must fit."""
    site: str | None = None
    """The box's own, by its config: another one is refused."""

    @property
    def selects(self) -> bool:
        """Whether some jobs alone are asked for."""
        return self.user is not None or bool(self.labels)


class Submitted(Doc):
    """`submit`.

    Example:
        >>> Submitted(id="scitldr-7f3a1c", state="queued").dump()
        {'id': 'scitldr-7f3a1c', 'state': 'queued'}
    """

    id: str
    state: JobState


class Acted(Doc):
    """Answer of cancel, pause, resume, wait; `budget` adds to it.

    Example:
        >>> Acted(id="a-1", state="paused", reason="by alice").state.ended
        False
    """

    id: str
    state: JobState
    reason: str
    output: str | None = None
    """Where the model lies that `wait` waited for; None elsewhere, and where there is none."""


class ActedList(Doc):
    """Answer of cancel, pause and resume of several jobs: those that it was done to.

    Example:
        >>> ActedList(jobs=[Acted(id="a-1", state="paused", reason="by alice")]).jobs[0].id
        'a-1'
    """

    jobs: tuple[Acted, ...]


class Budgeted(Acted):
    """Answer of `budget`.

    Example:
        >>> Budgeted(id="a-1", state="queued", reason="raised", from_g=120, budget_g=150, spent_g=119).budget_g
        150.0
    """

    from_g: float | None
    """The budget before; None where there was none yet."""
    budget_g: float
    spent_g: float


class ExpectedSegment(Doc):
    """A segment as it is expected to run.

    Example::

        answer = client.explain(spec, checked)
        dirtiest = max(answer.segments, key=lambda segment: segment.g)
    """

    k: int
    start: UtcTime
    end: UtcTime
    rho: float
    g: float
    low_g: float
    high_g: float
    """Band of the grid's quantiles and of the energy model's spread, each segment for itself."""
    eur: float | None = None
    """None where no price is known, or the config has no `[[prices]]`."""


class ExpectedLoss(Doc):
    """The held-out loss that a job should end at for its grams. Estimated.

    Example:
        >>> ExpectedLoss(budget_g=120.0, g=98.0, loss=2.87, low=2.85, high=2.89).loss
        2.87
    """

    budget_g: float | None
    """None: none was given."""
    g: float
    """Expected to be spent of it, as in `Explained.g`."""
    loss: float
    """Nats per target token; where `loss_relative`, as a share of the loss before training."""
    low: float
    """Nine of ten jobs should end between these two."""
    high: float


class Explained(Doc):
    """`submit --explain`: what the daemon would do with the job, were it submitted now. Nothing is queued.

    Example::

        answer = client.explain(spec, checked)
        print(f"{answer.g:.3g} g, likely {answer.low_g:.3g} to {answer.high_g:.3g}: {answer.reason}")
    """

    name: str
    action: Literal["train", "wait", "stop"]
    """The first directive; `stop`: the job cannot be afforded."""
    reason: str
    start: UtcTime | None
    """Of the first segment; None where nothing would be trained."""
    end: UtcTime | None
    """None where nothing would be trained, or where the job goes on past what was planned."""
    deadline: UtcTime | None
    rho: float | None
    """Mean over all steps."""
    gain: float | None
    """Share of what the whole job would gain with all steps and all that its method may train; None also where nothing says how many steps
    that would be."""
    g: float
    low_g: float
    high_g: float
    """Of the whole, loading and evaluation included: errors of different hours partly cancel."""
    loading_g: float
    """Of that: loading the model."""
    evaluation_g: float
    """Of that: evaluation on validation and test rows, before, between and after training; 0 where nothing is trained."""
    eur: float | None = None
    """What the whole is expected to cost, PUE included, by published prices and what the same hours cost before; None: not known."""
    money: str | None = None
    """What weighing money changes, in words; None where the job does not weigh it."""
    floor_g: float
    """What is due even at the lowest ρ."""
    budget_g: float | None
    """None: none was given."""
    budget: str
    """How the budget is set, in words."""
    energy_j: float
    binds: tuple[str, ...]
    """Of `budget`, `deadline`, `rho_min`, `rho_max`, `rho_mean`, `guard`."""
    gain_per_more_g: float | None
    """Gain that one more gram would buy at the margin; 0 where the budget does not bind, None without one and with train.scheduler = 'budget', where it
    buys steps."""
    gain_per_more_hour: float | None
    """Gain that one more hour before the deadline would buy; None without a deadline, for min-carbon and where it buys steps."""
    g_per_more_hour: float | None
    """For min-carbon: grams that one more hour before the deadline would save."""
    losses: tuple[ExpectedLoss, ...] = ()
    """What the job should end at, for its budget and for half of it where that trains too; none: nothing would be trained, or nobody knows for how long."""
    loss_relative: bool = False
    """Whether no loss of this model and data is known: `losses` are then shares of the loss before training."""
    loss_basis: str | None = None
    """What they rest on, in words."""
    jobs_before: int
    """That have to make room first."""
    segments: tuple[ExpectedSegment, ...]
    """Those that were planned, which the sums are of: of a long job no more than the forecast reaches."""
    segments_in_all: int | None
    """None where `steps` is."""
    steps: int | None = None
    """Optimizer steps; with train.scheduler = 'budget' as many as the grams and the time should pay for (estimated). None: not known yet."""
    steps_unknown: str | None = None
    """Why not, in words."""
    estimated: bool
    """Always true: nothing of the job was metered yet."""
    assumptions: tuple[str, ...]
    """What the figures rest on."""
    removals: tuple[Removal, ...] = ()
    """What waste of a stock Trainer the job leaves out, and what not and why; none: the trainer did not tell."""


class JobLog(Doc):
    """`logs ID --json`.

    Example:
        >>> JobLog(id="a-1", text="step 1\\n").dump()
        {'id': 'a-1', 'text': 'step 1\\n'}
    """

    id: str
    text: str
    """Bytes that are not UTF-8 are replaced."""


class LogLine(Doc):
    """A line of `logs -f ID --json`.

    Example:
        >>> LogLine(id="a-1", line="step 1").line
        'step 1'
    """

    id: str
    line: str


class Ended(Doc):
    """`daemon --json`, when it has stopped.

    Example:
        >>> Ended(exit_code=0).dump()
        {'exit_code': 0}
    """

    exit_code: int


class Written(Doc):
    """`init`.

    Example:
        >>> Written(file="job.toml").file
        'job.toml'
    """

    file: str


class Version(Doc):
    """Of the command, or of the daemon with where its parts are.

    Example:
        >>> Version(version="0.1.0", python="3.11.7").pid is None
        True
    """

    version: str
    python: str
    trainer_python: str | None = None
    state_dir: str | None = None
    ledger_schema: str | None = None
    ledger: str | None = None
    """Its URL, without a password."""
    pid: int | None = None


class ErrorBody(Doc):
    """Every error the API answers.

    Example:
        >>> ErrorBody(error="there is no job x; `carbonsched ps` lists them", exit_code=2).exit_code
        2
    """

    error: str
    exit_code: int = Field(ge=1, le=3)
