"""Chooses the graphics clock of a job's board before each segment, has it locked, and journals every change.

It acts only if both the config and the job allow it, and if no other process seems to use the board; the helper checks that as well
(`carbonsched.clocks`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from carbonsched.clocks.client import ClockClient
from carbonsched.launch.base import Launcher
from carbonsched.plan.clocks import OWN, Clock, Seen, Work, choose, offers
from carbonsched.power.base import Meter
from carbonsched.supervisor.control.decision import Decision, Outcome
from carbonsched.supervisor.estimates.inputs import PlanningInputs
from carbonsched.supervisor.estimates.job_cost import JobCostEstimator
from carbonsched.supervisor.jobs.job_run import JobRun
from carbonsched.units import grams

_LOCK_S = 0.1
"""Seconds that a directive waits for the helper's answer; a later answer is applied with a later directive."""


@dataclass(frozen=True, slots=True)
class ClockChoice:
    """The clock that the next plan assumes.

    Example:
        >>> ClockChoice(anew=False, offered=()).offered
        ()
    """

    anew: bool
    """Whether the assumed clock changed, so that the inputs have to be gathered again."""
    offered: tuple[Clock, ...]
    """Clocks that the plan may choose from, beside the board's own; empty: the clock is already decided."""


@dataclass(slots=True)
class ClockDial:
    """The clocks of all jobs' boards.

    Example::

        choice = dial.choose(run, inputs)  # before the plan: what it takes depends on the clock
        decision = dial.apply(run, decision)
        dial.keep()  # at every tick
    """

    helper: ClockClient | None
    """None: `power.clocks` is off."""
    costs: JobCostEstimator
    meter: Meter
    launcher: Launcher
    runs: Mapping[str, JobRun]
    strangers: Callable[[], Mapping[str, str]]
    """Board → the other processes that use it."""
    note: Callable[[str | None, str, Mapping[str, Any]], None]
    noted: dict[str, tuple[str, int | None]] = field(default_factory=dict)
    """Job → its board, and the clock last journalled for it."""

    def choose(self, run: JobRun, inputs: PlanningInputs) -> ClockChoice:
        """Choose the clock to assume from now on, or offer the plan the clocks that were metered (`settle`)."""
        board, fit = self._board(run), self.costs.fits.get(run.id)
        chosen = OWN
        offered: tuple[Clock, ...] = ()
        if self.helper is not None and board is not None and fit is not None:
            segment_g = _segment_g(inputs, self.costs, run)
            tried: dict[int, Seen] = {}
            for clock in {o.clock for o in fit.observations if o.clock is not None}:
                if (ratios := fit.at_clock(clock)) is not None:
                    tried[clock] = Seen(*ratios, excess_g=max(ratios[0] - 1.0, 0.0) * segment_g)
            measured = any(o.clock is None and o.joules for o in fit.observations)
            work = self._work(run, inputs, segment_g)
            chosen = choose(self.helper.levels(board), tried, run.clock.mhz, work, measured=measured)
            told = run.directive
            if inputs.problem.points and told is not None and told.phase == "cooldown":
                chosen = run.clock  # what the energy model assumed
            elif inputs.problem.points and measured and not chosen.trial:
                chosen, offered = OWN, offers(tried, work.max_slowdown)
        changed = (chosen.joules, chosen.seconds) != (run.clock.joules, run.clock.seconds)
        run.run_at(chosen)
        return ClockChoice(changed or bool(offered), offered)

    def settle(self, run: JobRun, choice: ClockChoice, decision: Decision) -> None:
        """Assume the clock that the plan has chosen for the next segment."""
        point = None if decision.plan is None else decision.plan.point
        if choice.offered and point is not None and point.clocks is not None:
            run.run_at(next(clock for clock in choice.offered if clock.mhz == point.clocks))

    def apply(self, run: JobRun, decision: Decision) -> Decision:
        """Return the decision with the clock that the board really has now."""
        board = self._board(run)
        if self.helper is None or board is None:
            return decision
        trains = decision.directive.action == "train" and decision.outcome is Outcome.GO_ON
        polled = self.launcher.poll(run.dir).run
        if not trains or polled is None:
            self.helper.want(board, None)
            return decision
        held = self.helper.want(board, run.clock.mhz, polled.pid, wait_s=_LOCK_S)
        self._note(run, board, held)
        return replace(decision, directive=decision.directive.model_copy(update={"clocks": held}))

    def correct(self, run: JobRun) -> Decision | None:
        """Return the running directive with the clock that the board has now; None if it already says so."""
        board, running = self._board(run), run.directive
        if self.helper is None or board is None or running is None or running.action != "train":
            return None
        held = self.helper.held(board)
        if held == running.clocks:
            return None
        update = {"seq": running.seq + 1, "clocks": held}
        return Decision(running.model_copy(update=update), Outcome.GO_ON, journal=False)

    def keep(self) -> None:
        """Renew the wanted clocks, release those of jobs that are gone, and journal changes."""
        if self.helper is None:
            return
        self.helper.beat()
        boards = {board: run for run in self.runs.values() if (board := self._board(run)) is not None}
        for board in self.helper.wanted():
            if board not in boards:
                self.helper.want(board, None)
        for board, run in boards.items():
            self._note(run, board, self.helper.held(board))
        for job_id, (board, held) in list(self.noted.items()):
            if job_id not in {run.id for run in boards.values()}:
                del self.noted[job_id]
                if held is not None:
                    why = "the job has ended, or has the board no longer to itself"
                    self.note(job_id, "clocks", {"board": board, "mhz": None, "reason": why})

    def stop(self) -> None:
        """Release all boards: the daemon is ending."""
        if self.helper is not None:
            self.helper.stop()
            for job_id, (board, held) in self.noted.items():
                if held is not None:
                    self.note(job_id, "clocks", {"board": board, "mhz": None, "reason": "the daemon ends"})

    def _board(self, run: JobRun) -> str | None:
        """The board that the job has to itself, if its clock may be changed."""
        if self.helper is None or run.spec.carbon.clocks == "off" or not run.alive or run.process.part.id:
            return None
        mine = [each for each in self.meter.devices if each.id in run.process.devices and each.kind == "gpu"]
        if len(mine) != 1 or mine[0].split or not mine[0].id.startswith("GPU-"):
            return None
        board = mine[0].id
        alone = all(other is run or board not in other.process.devices for other in self.runs.values())
        return board if alone and board not in self.strangers() else None

    def _note(self, run: JobRun, board: str, held: int | None) -> None:
        before = self.noted.get(run.id, (board, None))
        if before != (board, held):
            self.noted[run.id] = board, held
            self.note(run.id, "clocks", {"board": board, "mhz": held, "reason": run.clock.reason})

    def _work(self, run: JobRun, inputs: PlanningInputs, segment_g: float) -> Work:
        own, rho = self.costs.at_own_clock(run), inputs.problem.rho_max
        segments = inputs.remaining.segments
        steps = sum(segment.steps for segment in segments)
        expected_g = steps / segments[0].steps * segment_g + run.charged_g
        budget_g = inputs.lease.funds.budget_g
        return Work(
            segment_g=segment_g,
            budget_g=expected_g if budget_g is None else budget_g,
            rest_s=sum(own.seconds(rho, segment.steps) for segment in segments) + own.tail_s,
            left_s=inputs.problem.deadline_s,
            max_slowdown=run.spec.carbon.max_slowdown,
            segments=len(segments),
        )


def _segment_g(inputs: PlanningInputs, costs: JobCostEstimator, run: JobRun) -> float:
    """Upper bound on the grams of the next segment's steps at the board's own clock and today's grid."""
    own, segment = costs.at_own_clock(run), inputs.remaining.segments[0]
    joules = own.joules(inputs.problem.rho_max, segment.steps) - own.overhead_j
    return grams(joules, inputs.problem.slots[0].g_per_kwh, inputs.problem.pue)
