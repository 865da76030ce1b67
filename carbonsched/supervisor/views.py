"""What people and scripts are shown of a job, from the ledger and, while it lives, from its run."""

from typing import Any

from carbonsched.clock import Clock
from carbonsched.ledger.ledger import JobRecord, Ledger
from carbonsched.model.view import JobDetail, JobView, SegmentView
from carbonsched.supervisor.run import JobRun
from carbonsched.units import MJ_PER_J


def job_view(row: JobRecord, run: JobRun | None, ledger: Ledger, clock: Clock) -> JobView:
    return JobView(**_fields(row, run, ledger, clock))


def job_detail(row: JobRecord, run: JobRun, ledger: Ledger, clock: Clock) -> JobDetail:
    """`show`: the row of `ps`, and everything the job went through."""
    return JobDetail(
        **_fields(row, run, ledger, clock),
        spec=row.spec,
        sha256=row.sha256,
        directive=run.directive,
        segments_done=segment_views(row.id, ledger),
        validation=tuple(event.dump() for event in run.evaluated),
        history=_history(row, ledger),
    )


def _history(row: JobRecord, ledger: Ledger) -> tuple[dict[str, Any], ...]:
    """What happened to the job; of what accrued only the last."""
    found = ledger.history(row.id, kinds=("submitted", "state", "budget", "started", "note"))
    if row.spec.carbon.budget_rate_g_per_h is None:
        return found
    grown = [entry for entry in found if entry["kind"] == "budget"]
    return tuple(entry for entry in found if entry not in grown[:-1])


def segment_views(job_id: str, ledger: Ledger) -> tuple[SegmentView, ...]:
    totals = ledger.segment_totals(job_id)
    return tuple(
        SegmentView(
            k=row.k,
            start=row.start,
            end=row.end,
            rho_directed=row.done.rho_directed,
            rho_planned=row.done.rho_planned,
            rho_realised=row.done.rho_realised,
            flops=row.done.flops,
            flops_full=row.done.flops_full,
            steps=row.done.steps,
            loss=row.done.loss,
            energy_j=totals[row.k].energy_mj / MJ_PER_J,
            spent_g=totals[row.k].grams,
            g_per_kwh=totals[row.k].g_per_kwh,
            power_w=totals[row.k].power_w,
            price=row.price,
            reason=row.reason,
            selected=row.done.selected,
        )
        for row in ledger.segments(job_id)
    )


def _fields(row: JobRecord, run: JobRun | None, ledger: Ledger, clock: Clock) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": row.id,
        "name": row.spec.name,
        "owner": row.owner.user,
        "state": row.state,
        "reason": row.reason,
        "budget_g": row.budget_g,
        "pool": row.spec.carbon.pool,
        "submitted_at": row.submitted_at,
        "started_at": row.started_at,
        "ended_at": row.ended_at,
    }
    if run is None:
        totals = ledger.totals(row.id)
        done = ledger.segments(row.id)
        last = done[-1].done if done else None
        return fields | {
            "segment": None,
            "segments": None,
            "step": last.first_step + last.steps if last else None,
            "rho": None,
            "loss": last.loss if last else None,
            "spent_g": totals.grams,
            "unknown_s": totals.unknown_s,
            "energy_j": totals.energy_mj / MJ_PER_J,
            "estimated": totals.estimated,
            "power_w": None,
        }
    live = run.state.live
    return fields | {
        "state": run.state,
        "reason": run.reason,
        "segment": run.segment if live else None,
        "segments": run.segments or (run.started.segments if run.started else None),
        "step": run.step,
        "steps": run.started.steps if run.started else None,
        "rho": run.directive.rho if run.directive and live else None,
        "spent_g": run.spent_g,
        "unknown_s": run.unknown_s,
        "budget_g": run.budget_g,
        "energy_j": run.spent_mj / MJ_PER_J,
        "estimated": run.estimated,
        "power_w": run.power_w if live else None,
        "loss": run.loss,
        "boards": run.boards,
        "eta_s": eta_s(run, clock),
    }


def eta_s(run: JobRun, clock: Clock) -> float | None:
    """Seconds to the end by the last plan; None without one."""
    if not run.state.live or run.plan is None or not run.plan.placed:
        return None
    tail = run.fit.model().tail_s if run.fit else 0.0
    return max(run.plan.placed[-1].end_s + tail - (clock.monotonic() - run.planned_at), 0.0)
