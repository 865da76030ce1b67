"""Builds what people and scripts see of a job, from the ledger and, until it is over, from its run."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from carbonsched.clock import Clock
from carbonsched.ledger.ledger import Ledger
from carbonsched.ledger.listed import ListedJob, ListedSegment, of_record
from carbonsched.ledger.records import JobRecord
from carbonsched.ledger.totals import Totals, total
from carbonsched.model.job_state import JobState
from carbonsched.model.protocol import Started, Waste
from carbonsched.model.views import JobDetail, JobView, SegmentView
from carbonsched.supervisor.jobs.job_run import JobRun
from carbonsched.units import MJ_PER_J

SHOWN = 500
"""Most recent entries of each kind in a job's history."""
MOST_SHOWN = 5000
"""Most recent segments and evaluations of a job."""
PAGE = 200
"""Jobs that are read together for a list."""
OVER_SHOWN = 20
"""Most recently ended jobs in a list that was not asked for all."""


def job_detail(row: JobRecord, seen: dict[str, Any], ledger: Ledger) -> JobDetail:
    """What `show` prints: the row of `ps`, the directive, the evaluations and the history.

    Of a long history only the most recent entries are shown; `left_out` counts the others.
    """
    history, validation = _history(row, ledger), tuple(seen.get("validation", ()))
    segments = segment_views(row.id, ledger)
    counts = Counter(str(entry["kind"]) for entry in history)
    more = {kind: ledger.count(row.id, kind) - number for kind, number in counts.items() if number >= SHOWN}
    if len(segments) >= MOST_SHOWN:
        more["segment"] = ledger.count_segments(row.id) - len(segments)
    if len(validation) > MOST_SHOWN:
        more["evaluated"] = ledger.count(row.id, "evaluated") - MOST_SHOWN
    return JobDetail(
        **seen | {"validation": validation[-MOST_SHOWN:], "waste": Waste.total(s.waste for s in segments)},
        spec=row.spec,
        sha256=row.sha256,
        segments_done=segments,
        history=history,
        left_out={kind: number for kind, number in more.items() if number},
    )


def _history(row: JobRecord, ledger: Ledger) -> tuple[dict[str, Any], ...]:
    """The job's history; of budget accruals only the last."""
    found = ledger.history(row.id, kinds=("submitted", "state", "budget", "started", "note"), newest=SHOWN)
    if row.spec.carbon.budget_rate_g_per_h is None:
        return found
    grown = [entry for entry in found if entry["kind"] == "budget"]
    return tuple(entry for entry in found if entry not in grown[:-1])


def segment_views(job_id: str, ledger: Ledger) -> tuple[SegmentView, ...]:
    sums, nothing = ledger.segment_totals(job_id), total(())
    found = ledger.segments(job_id, newest=MOST_SHOWN)
    return tuple(SegmentView.of(row, sums.get(row.k, nothing)) for row in found)


def _of_row(row: JobRecord | ListedJob) -> dict[str, Any]:
    row = row if isinstance(row, ListedJob) else of_record(row)
    return {
        "id": row.id,
        "name": row.name,
        "owner": row.owner.user,
        "state": row.state,
        "reason": row.reason,
        "budget_g": row.budget_g,
        "pool": row.pool,
        "labels": row.labels,
        "submitted_at": row.submitted_at,
        "started_at": row.started_at,
        "ended_at": row.ended_at,
    }


@dataclass(frozen=True, slots=True)
class Past:
    """What the ledger has of a job that is over, beside its row.

    Example:
        >>> Past(total(()), None).totals.rows
        0
    """

    totals: Totals
    last: ListedSegment | None
    """The last segment that was finished."""


def pasts(rows: Sequence[ListedJob], ledger: Ledger) -> dict[str, Past]:
    """Read them for the jobs that are over, in a few queries for all. If those of one job cannot be read, the result is empty and each is
    read alone."""
    ids = [row.id for row in rows if row.state.ended]
    try:
        sums, last = ledger.totals_of(ids), ledger.last_segments(ids)
    except (ValueError, ArithmeticError, TypeError):
        return {}
    return {each: Past(sums[each], last.get(each)) for each in ids}


def of_ledger(row: JobRecord | ListedJob, ledger: Ledger, past: Past | None = None) -> dict[str, Any]:
    """Fields of a `JobView` for a job that is over: a few short queries, however long it ran."""
    if not row.state.ended:  # it ended while it was being listed
        row = ledger.job(row.id)
    past = past or Past(ledger.totals(row.id), ledger.last_segments([row.id]).get(row.id))
    totals, last = past.totals, past.last
    return _of_row(row) | {
        "segment": None,
        "segments": _segments(row.state, last),
        "segments_over": last.k + 1 if last else 0,
        "step": last.step if last else None,
        "rho": None,
        "loss": last.loss if last else None,
        "spent_g": totals.grams,
        "location_g": totals.location_g,
        "on_site_g": totals.on_site_g,
        "unknown_s": totals.unknown_s,
        "energy_j": totals.energy_mj / MJ_PER_J,
        "estimated": totals.estimated,
        "power_w": None,
    }


def _segments(state: JobState, last: ListedSegment | None) -> int | None:
    if last is None:
        return None
    return last.k + 1 if state is JobState.FINISHED else last.segments


def of_past(row: JobRecord, ledger: Ledger, started: Started | None) -> dict[str, Any]:
    """Fields of a `JobDetail` for a job that is over, without reading its events again; started: what it announced."""
    told = ledger.history(row.id, kinds=("evaluated",), newest=MOST_SHOWN + 1)
    fields = of_ledger(row, ledger)
    return fields | {
        # a job of open end announces neither when it starts
        "segments": started.segments if started and started.segments else fields["segments"],
        "steps": started.steps if started and started.steps else fields["step"],
        "directive": None,
        "validation": tuple({k: v for k, v in e.items() if k not in ("kind", "actor")} for e in told),
    }


def of_run(row: JobRecord | ListedJob, run: JobRun, clock: Clock) -> dict[str, Any]:
    """Fields of a `JobView` from memory alone, since the lock is held meanwhile."""
    live = run.state.live
    return _of_row(row) | {
        "state": run.state,
        "reason": reason_of(run),
        "segment": run.process.segment if live else None,
        "segments": run.progress.segments or (run.checked.segments if run.checked is not None else None),
        "segments_over": len(run.progress.done),
        "step": run.progress.step,
        "steps": run.progress.started.steps if run.progress.started else None,
        "steps_expected": _expected(run) if live else None,
        "phase": _phase(run) if live else None,
        "rho": run.directive.rho if run.directive and live else None,
        "spent_g": run.account.spent_g,
        "location_g": run.account.location_g,
        "on_site_g": run.account.on_site_g if run.account.supplied else None,
        "unknown_s": run.account.unknown_s,
        "budget_g": run.budget_g,
        "energy_j": run.account.spent_mj / MJ_PER_J,
        "estimated": run.account.estimated,
        "power_w": run.process.power_w if live else None,
        "loss": run.progress.loss,
        "boards": run.process.devices,
        "eta_s": eta_s(run, clock),
        "waste": Waste.total(done.waste for done in run.progress.done),
    }


def _expected(run: JobRun) -> int | None:
    told = run.directive
    if told is not None and told.phase == "cooldown" and told.cooldown_steps is not None:
        return (told.cooldown_from or 0) + told.cooldown_steps
    return run.plan.steps if run.plan is not None else None


def _phase(run: JobRun) -> Literal["stable", "cooldown"] | None:
    """The current phase; a cooldown may be directed before it begins."""
    told = run.directive
    if told is None or told.phase is None:
        return None
    cools = told.phase == "cooldown" and (run.progress.step or 0) >= (told.cooldown_from or 0)
    return "cooldown" if cools else "stable"


def reason_of(run: JobRun) -> str:
    """Why the job is in its state, preceded by what is wrong with it."""
    if run.aside:
        return f"set aside: {run.aside}; tried again every minute"
    wrong = run.trouble or run.unheard or run.unresponsive[1]
    reason = f"is ending: {run.reason}" if run.alive and run.process.target is not None else run.reason
    return f"{wrong} ({reason})" if wrong else reason


def job_view(row: JobRecord | ListedJob, fields: Callable[[], dict[str, Any]]) -> JobView:
    """A row of `ps`. If a job's figures cannot be shown, the row says why, and the other rows are unaffected."""
    try:
        return JobView(**fields())
    except (ValueError, ArithmeticError, TypeError) as e:
        reason = f"cannot be shown: {type(e).__name__}: {str(e).splitlines()[0]}"
        unknown = dict.fromkeys(("segment", "segments", "rho", "budget_g", "power_w"))
        figures = {"spent_g": 0.0, "energy_j": 0.0, "estimated": True}
        return JobView(**_of_row(row) | unknown | figures | {"reason": reason})


def eta_s(run: JobRun, clock: Clock) -> float | None:
    """Seconds to the end by the last plan; None without one."""
    if not run.state.live or run.plan is None or run.plan.end_s is None:
        return None
    return max(run.plan.end_s - (clock.monotonic() - run.plan.made_s), 0.0)
