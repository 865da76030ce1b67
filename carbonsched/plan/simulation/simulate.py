"""Runs a job against a trace of the grid by the very planner and guard of the daemon: `carbonsched simulate`.

Pure: the trace comes in as arrays, the result is a document. At any time t the planner sees the rows with datetime ≤ t
and, of what lies ahead, what the chosen forecast gives: `perfect` the trace itself, `column` the trace's forecast
column (taken as issued for all its rows), `persistence` the past. A segment runs tick by tick under `guard.must_stop`;
the tick at which it would stop is computed, not looped for.
"""

from dataclasses import replace

import numpy as np

from carbonsched.plan.planner import solve
from carbonsched.plan.problem import Plan
from carbonsched.plan.segment_arrays import SegmentArrays
from carbonsched.plan.simulation.policies import PolicyMemory, decide, full_steps, with_settings
from carbonsched.plan.simulation.request import SimRequest
from carbonsched.plan.simulation.result import SimResult, SimSegment
from carbonsched.plan.simulation.run import SimRun, true_decay
from carbonsched.units import grams

_LONGEST_WAIT_S = 4 * 3600.0
"""A wait is looked at again after this long: the forecast may have changed."""


def simulate(request: SimRequest) -> SimResult:
    """Run one job. Raises InputError where the trace does not cover it or a number cannot be."""
    run = SimRun.begin(request)
    oracle: Plan | None = None
    if request.oracle or request.policy == "oracle":
        everything = run.problem(run.slots_ahead("perfect", whole=True), 0)
        everything = replace(everything, decay=true_decay(request))
        oracle = solve(with_settings(everything) if request.policy == "auto" else everything)
    segments, reason, waits = _loop(run, oracle)
    return _result(run, segments, reason, waits, oracle)


def _loop(run: SimRun, oracle: Plan | None) -> tuple[list[SimSegment], str, int]:
    request = run.request
    memory = PolicyMemory()
    done: list[SimSegment] = []
    reason, waits = "", 0
    planned = {p.k: p for p in oracle.segments} if oracle is not None and request.policy == "oracle" else None
    while len(done) < request.segments:
        k = len(done)
        if planned is not None:
            if k not in planned:
                return done, oracle.reason if oracle else "", waits
            if planned[k].start_s > run.t - run.grid.t0 + 1e-6:
                waits += 1
                run.pause(run.grid.t0 + planned[k].start_s)
            rho, reason = planned[k].rho, "oracle"
        else:
            problem = run.problem(run.slots_ahead(request.forecast), k)
            decision = decide(
                request.policy, problem, memory, run.recent_slots() if request.policy == "dual" else ()
            )
            reason = decision.reason
            if decision.action == "stop":
                return done, reason, waits
            if decision.action == "wait":
                waits += not run.waiting
                run.pause(run.t + min(max(decision.wait_s, 1.0), _LONGEST_WAIT_S))
                continue
            rho = decision.rho
        before = run.spent_g
        done.append(run.train(k, rho))
        memory.spent_g = run.spent_g - before
        if done[-1].done < 1.0 - 1e-12:
            return done, f"stop: the next tick could pass the budget; {reason}", waits
    return done, reason, waits


def _at_once_g(run: SimRun, segments: list[SimSegment]) -> float:
    """What the same segments at the same ρ emit where they begin at the start and follow each other."""
    at, total = run.request.start.timestamp(), 0.0
    for s in segments:
        lasts = run.energy.seconds(s.rho, 1) * s.done
        total += run.grid.grams_working(run.energy.joules(s.rho, 1) * s.done, at, lasts)
        at = run.grid.after(at, lasts)
    return total


def _result(
    run: SimRun, segments: list[SimSegment], reason: str, waits: int, oracle: Plan | None
) -> SimResult:
    request = run.request
    whole = SegmentArrays(
        replace(
            run.problem(run.grid.slots(), 0),
            budget_g=request.budget_g,
            may_pause=False,
            allowed=None,
        )
    )
    share, curve = 1.0 / request.segments, whole.curves[0]
    worth = true_decay(request) ** np.arange(request.segments)
    worth /= worth.sum()
    rho = np.array([s.rho for s in segments])
    parts = np.array([s.done for s in segments])
    gains = curve.at(rho)
    if request.policy == "auto":  # it plans by full steps, whatever the frontier says
        gains = np.array([full_steps(whole.problem, float(r)) for r in rho])
    gain = float((worth[: len(rho)] * gains * parts).sum()) if segments else 0.0
    finished = len(segments) == request.segments and all(s.done >= 1 - 1e-12 for s in segments)
    end = segments[-1].end if segments else request.start
    spent = run.spent_g
    full_there = sum(
        run.grid.grams_working(
            run.energy.joules_full * s.done, s.start.timestamp(), run.energy.seconds(s.rho, 1) * s.done
        )
        for s in segments
    )
    joules = sum(s.done * run.energy.joules(s.rho, 1) for s in segments)
    until = max(end.timestamp(), run.deadline or 0.0)
    mean = float(run.grid.curve.mean_between(np.array([0.0]), np.array([max(until - run.grid.t0, 1.0)]))[0])
    late = max(0.0, end.timestamp() - run.deadline) if run.deadline is not None and segments else 0.0
    return SimResult(
        policy=request.policy,
        forecast=request.forecast,
        spent_g=spent,
        budget_g=request.budget_g,
        floor_g=whole.schedule(whole.lo).spend_g,
        full_g=whole.schedule(whole.hi).spend_g,
        flops_ratio=float((rho * parts).sum()) * share if segments else 0.0,
        gain=gain,
        oracle_gain=None if oracle is None else sum(p.gain for p in oracle.segments),
        oracle_gap=None if oracle is None else oracle.gap,
        finished=finished,
        finished_at=end if finished else None,
        missed_deadline_s=late,
        waits=waits,
        reason=reason,
        flops_effect_g=full_there - spent,
        timing_effect_g=grams(joules, mean, request.pue) - spent,
        at_once_effect_g=_at_once_g(run, segments) - spent,
        segments=tuple(segments),
    )
