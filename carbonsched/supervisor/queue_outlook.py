"""Estimates when queued jobs will start: after the jobs before them, which end by their plans or by what this box measured for others.

Every start is an estimate, or None with a reason. Waits for cleaner hours count only for running jobs, whose plans contain them. The ledger
is not read while the supervisor's lock is held.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from carbonsched.model.base import rfc3339
from carbonsched.model.job import JobSpec
from carbonsched.model.profile import CheckResult
from carbonsched.model.views import JobView
from carbonsched.supervisor.job_views import eta_s
from carbonsched.supervisor.jobs.job_run import JobRun
from carbonsched.supervisor.placement import CPU, TAKEN, boards_of
from carbonsched.supervisor.starter import queue
from carbonsched.text import several

if TYPE_CHECKING:
    from carbonsched.supervisor.estimates.throughput import Throughput
    from carbonsched.supervisor.supervisor import Supervisor

_V = TypeVar("_V", bound=JobView)

MOST: Final = 200
"""Queued jobs that are estimated, in the order in which they start."""
_KEPT_S: Final = 60.0
"""Seconds for which an estimated duration is cached."""


@dataclass(slots=True)
class Place:
    """Room for one job: a board, or the box if it has none.

    Example:
        >>> Place("gpu 0", free_s=0.0).before
        0
    """

    board: str = ""
    """Name of the board; empty on a box without boards."""
    free_s: float | None = 0.0
    """Seconds until it is free; None: unknown."""
    before: int = 0
    """Number of jobs that have it first."""
    holder: str = ""
    """The last of these jobs."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A queued job.

    Example:
        >>> Waiting("a-1", lasts_s=60.0).places
        1
    """

    id: str
    lasts_s: float | None
    places: int = 1
    """Boards that it takes; 0: a slot of the CPU of a box that has boards."""
    opens_s: float = 0.0
    """Seconds until its allowed hours begin."""
    after: tuple[str, ...] = ()
    """Unfinished jobs that it has to wait for."""
    held: str = ""
    """Why it does not start until somebody acts."""


@dataclass(frozen=True, slots=True)
class ExpectedStart:
    """When a queued job is expected to start.

    Example:
        >>> ExpectedStart(None, "the box is drained by ada").seconds is None
        True
    """

    seconds: float | None
    """Estimated seconds from now; None: unknown."""
    why: str
    """What it waits for, or why that is unknown."""


def forecast(
    places: list[Place], jobs: Sequence[Waiting], ends: dict[str, float | None]
) -> dict[str, ExpectedStart]:
    """Job → its start; each job in its turn takes the places that are free first. Pure. places: changed as they are taken. ends: running
    job → seconds to its end, None if unknown.

    Example:
        >>> found = forecast([Place("gpu 0", 60.0, before=1, holder="a")], [Waiting("b", 30.0), Waiting("c", None)], {"a": 60.0})
        >>> [(start.seconds, start.why) for start in found.values()]
        [(60.0, 'after 1 job on gpu 0'), (90.0, 'after 2 jobs on gpu 0')]
    """
    found: dict[str, ExpectedStart] = {}
    ends, kept_s = dict(ends), 0.0
    for job in jobs:
        start, taken = _start(job, places, ends, kept_s)
        found[job.id], ends[job.id] = start, None
        if start.seconds is None:
            for place in taken:
                place.free_s = None
            continue
        if job.lasts_s is not None:
            ends[job.id] = start.seconds + job.lasts_s
        if job.places > 1:
            kept_s = start.seconds  # nobody overtakes it
        for place in taken:
            place.free_s, place.before, place.holder = ends[job.id], place.before + 1, job.id
    return found


def _start(
    job: Waiting, places: Sequence[Place], ends: dict[str, float | None], kept_s: float
) -> tuple[ExpectedStart, Sequence[Place]]:
    """Its start, and the places it takes."""
    if job.held:
        return ExpectedStart(None, job.held), ()
    unknown = next((other for other in job.after if ends.get(other) is None), None)
    if unknown is not None:
        return ExpectedStart(None, f"comes after {unknown}, and nobody knows yet when that ends"), ()
    taken = _first_free(places, job.places)
    if len(taken) < max(job.places, 1):
        wanted = several(job.places, "board") if job.places else "a slot of the CPU (launch.cpu_slots)"
        return ExpectedStart(None, f"takes {wanted}, this box has {len(taken)}"), ()
    blocked = next((place for place in taken if place.free_s is None), None)
    if blocked is not None:
        return ExpectedStart(
            None, f"{blocked.holder} is before it, and nobody knows yet when that ends"
        ), taken
    room_s = max([kept_s, *(place.free_s or 0.0 for place in taken)])
    after_s = max((ends[other] or 0.0 for other in job.after), default=0.0)
    start_s = max(room_s, job.opens_s, after_s)
    if start_s == after_s > room_s:
        why = f"after {', '.join(job.after)}"
    elif start_s == job.opens_s > room_s:
        why = "when its allowed hours begin"
    else:
        why = _describe(taken)
    return ExpectedStart(start_s, why), taken


def _first_free(places: Sequence[Place], wanted: int) -> list[Place]:
    """The places that are free first; one per board if several are wanted, and one of the CPU for 0."""
    fit = [place for place in places if (place.board == CPU) == (not wanted)]
    in_order = sorted(fit, key=lambda place: (place.free_s is None, place.free_s or 0.0, place.before))
    if wanted <= 1:
        return in_order[:1]
    chosen: dict[str, Place] = {}
    for place in in_order:
        chosen.setdefault(place.board, place)
    return list(chosen.values())[:wanted]


def _describe(taken: Sequence[Place]) -> str:
    before = max(place.before for place in taken)
    if not before:
        return "next"
    boards = ", ".join(place.board for place in taken if place.board)
    jobs = "1 job" if before == 1 else f"{before} jobs"
    return f"after {jobs}{f' on {boards}' if boards else ''}"


@dataclass(frozen=True, slots=True)
class _Work:
    """What a job's duration is estimated from."""

    id: str
    spec: JobSpec
    checked: CheckResult | None
    steps: int | None
    """Steps of the whole job."""
    done: tuple[int, float]
    """Steps done, and the seconds they took."""


@dataclass(slots=True)
class QueueOutlook:
    """Estimates the starts of a box's queued jobs.

    Example::

        starts = outlook.starts(supervisor)
        starts["scitldr-7f3a1c"].why
    """

    _lasts: dict[str, tuple[float, float | None]] = field(default_factory=dict)
    """Job → (monotonic time of the estimate, its duration in seconds)."""
    _throughput: dict[Any, tuple[float, "Throughput"]] = field(default_factory=dict)
    """Throughput on this box, by the properties of a job that determine it."""

    def starts(self, supervisor: "Supervisor") -> dict[str, ExpectedStart]:
        """Estimate every queued job's start. Takes the supervisor's lock for a moment."""
        with supervisor.lock:
            queued = queue(supervisor.runs.values())
            if not queued:
                return {}
            live = [(run.id, eta, _work(run), _ran_s(supervisor, run)) for run, eta in _live(supervisor)]
            works = [(_waiting(supervisor, run), _work(run)) for run in queued[:MOST]]
            places = supervisor.placement.places(supervisor.live())
            late = [run.id for run in queued[MOST:]]
        ends: dict[str, float | None] = {}
        for job_id, eta, work, ran_s in live:
            lasts = self._lasts_s(supervisor, work) if eta is None and ran_s is not None else None
            ends[job_id] = eta if lasts is None or ran_s is None else max(lasts - ran_s, 0.0)
        rooms = [
            Place(board, ends.get(holder) if holder else 0.0, int(bool(holder)), holder)
            for board, holder in places
        ]
        jobs = [_with_duration(waiting, self._lasts_s(supervisor, work)) for waiting, work in works]
        found = forecast(rooms, jobs, ends)
        return found | dict.fromkeys(late, ExpectedStart(None, f"more than {MOST} jobs are before it"))

    def _lasts_s(self, supervisor: "Supervisor", work: _Work) -> float | None:
        now = supervisor.clock.monotonic()
        known = self._lasts.get(work.id)
        if known is not None and now - known[0] < _KEPT_S:
            return known[1]
        if len(self._lasts) > 2 * MOST:
            self._lasts.clear()
        seconds = self._estimate(supervisor, work)
        self._lasts[work.id] = now, seconds
        return seconds

    def _estimate(self, supervisor: "Supervisor", work: _Work) -> float | None:
        """Duration at ρ = 1 with loading and evaluation; None for a job of open end, or if no check gave its steps."""
        from carbonsched.supervisor.estimates.evaluation_cost import evaluation_cost
        from carbonsched.supervisor.estimates.job_cost import LOAD_S

        checked, steps, (done, seconds) = work.checked, work.steps, work.done
        if checked is None or steps is None:
            return None
        ledger, devices = supervisor.ledger, supervisor.meter.devices
        throughput = self._speed(supervisor, work.spec)
        step_s = seconds / done if done else throughput.step_s(checked)
        evaluation = evaluation_cost(ledger, devices, work.spec, checked, throughput)
        return LOAD_S + evaluation.before_s + evaluation.after_s + max(steps - done, 0) * step_s

    def _speed(self, supervisor: "Supervisor", spec: JobSpec) -> "Throughput":
        from carbonsched.supervisor.estimates.throughput import estimate_throughput

        train, now = spec.train, supervisor.clock.monotonic()
        key = (*spec.model.dump().values(), train.autocast, train.device, train.processes, train.threads)
        known = self._throughput.get(key)
        if known is None or now - known[0] >= _KEPT_S:
            if len(self._throughput) > MOST:
                self._throughput.clear()
            known = now, estimate_throughput(supervisor.ledger, supervisor.meter.devices, spec)
            self._throughput[key] = known
        return known[1]


def with_start(view: _V, start: ExpectedStart, now: datetime) -> _V:
    """The view of a queued job with its expected start."""
    return view.model_copy(update={"starts_at": _at(start, now), "starts_why": start.why})


def start_fields(start: ExpectedStart, now: datetime) -> tuple[str | None, str]:
    """The same fields as a document writes them."""
    at = _at(start, now)
    return None if at is None else rfc3339(at), start.why


def _at(start: ExpectedStart, now: datetime) -> datetime | None:
    return None if start.seconds is None else now + timedelta(seconds=start.seconds)


# ---- with the supervisor's lock held


def _live(supervisor: "Supervisor") -> Iterable[tuple[JobRun, float | None]]:
    """Jobs that have a process, with the seconds to its end where their plans tell."""
    for run in supervisor.live():
        ends_now = run.process.target is not None or run.process.alive_to is not None
        yield run, 0.0 if ends_now else eta_s(run, supervisor.clock)


def _ran_s(supervisor: "Supervisor", run: JobRun) -> float | None:
    """None for a command, whose duration nobody knows."""
    began = run.process.alive_from
    if run.command is not None or began is None:
        return None
    return (supervisor.clock.now() - began).total_seconds()


def _work(run: JobRun) -> _Work:
    started, done = run.progress.started, run.progress.done
    steps = started.steps if started is not None else run.checked.steps if run.checked is not None else None
    spent = sum(d.steps for d in done), sum(d.seconds for d in done)
    return _Work(run.id, run.spec, run.checked, steps, spent)


def _waiting(supervisor: "Supervisor", run: JobRun) -> Waiting:
    now, starter, runs = supervisor.clock.now(), supervisor.starter, supervisor.runs
    others = [runs.get(job_id) for job_id in run.spec.queue.after]
    after = tuple(other.id for other in others if other is not None)
    opens = run.opens_at(now)
    held = starter.drain.why or (run.reason if run.reason.startswith(TAKEN) else "")
    if not held and opens is None:
        held = run.held_back(now)
    if not held and any(other is None or not (other.alive or other in queue([other])) for other in others):
        held = starter.waits_for(run)
    opens_s = 0.0 if opens is None else (opens - now).total_seconds()
    boards = boards_of(run.spec) if supervisor.placement.has_boards() else 1
    return Waiting(run.id, None, boards, opens_s, after, held)


def _with_duration(job: Waiting, lasts_s: float | None) -> Waiting:
    return Waiting(job.id, lasts_s, job.places, job.opens_s, job.after, job.held)
