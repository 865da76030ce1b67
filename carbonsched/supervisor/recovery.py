"""The lives of a job, one for each of its processes: noted as they begin and end, and lived again after a restart.

The journal holds where each began (`started`: its devices, and how far events.jsonl reached before it could say
anything), that it was told to end and what is to come then (`ending`), and that its end was seen (`ended`). A process
whose end nobody saw is the job's still: its energy is charged, and its end met, at the next tick.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from carbonsched.clock import Clock
from carbonsched.launch.base import Launcher
from carbonsched.ledger.ledger import Ledger
from carbonsched.ledger.records import JobRecord
from carbonsched.ledger.totals import total, total_by
from carbonsched.model.base import rfc3339
from carbonsched.model.files import load
from carbonsched.model.job_state import JobState
from carbonsched.model.profile import CheckResult
from carbonsched.model.protocol import Directive
from carbonsched.supervisor.budgets.allocator import BudgetAllocator
from carbonsched.supervisor.budgets.pools import DAEMON
from carbonsched.supervisor.estimates.job_cost import JobCostEstimator
from carbonsched.supervisor.jobs.event_follower import EventFollower
from carbonsched.supervisor.jobs.job_run import JobRun

CHECKED = "check.json"
"""In the job's directory: what the trainer's check foresaw."""


@dataclass(frozen=True, slots=True)
class ProcessJournal:
    ledger: Ledger
    clock: Clock
    launcher: Launcher
    outlook: JobCostEstimator
    allowances: BudgetAllocator
    jobs: Path
    """The folder of the job directories."""

    def begins(self, run: JobRun, devices: tuple[str, ...]) -> None:
        """Note it before the start: whatever happens next, a successor knows on which devices a process may be."""
        self._note(run, "started", {"boards": list(devices), "events": run.follower.offset})

    def ending(self, run: JobRun) -> None:
        wake_at = None if run.wake_at is None else rfc3339(run.wake_at)
        self._note(run, "ending", {"state": run.target, "reason": run.target_reason, "wake_at": wake_at})

    def ended(self, run: JobRun) -> None:
        self._note(run, "ended", {})

    def rebuild(self, row: JobRecord) -> JobRun:
        """The run as a daemon that had never left would have it, as far as its events are recorded."""
        path = self.jobs / row.id
        run = JobRun(
            job=row.submitted,
            dir=path,
            follower=EventFollower(path / "events.jsonl"),
            state=row.state,
            reason=row.reason,
            budget_g=row.budget_g,
        )
        totals = self.ledger.totals(row.id)
        run.spent_mj, run.spent_g, run.unknown_s = totals.energy_mj, totals.grams, totals.unknown_s
        run.estimated = totals.estimated
        run.reserved_g = self.outlook.charged_g(row.id) - totals.grams
        run.checked = load(path / CHECKED, CheckResult)
        self.allowances.restore(run)
        self._live_again(run)
        return run

    def _live_again(self, run: JobRun) -> None:
        run.recorded, alive = self.ledger.offset(run.id), False
        for entry in self.ledger.history(run.id, kinds=("started", "ending", "ended")):
            alive = entry["kind"] != "ended"
            match entry["kind"]:
                case "started":
                    self._hear(run, entry.get("events", 0))
                    at = datetime.fromisoformat(entry["at"])
                    run.begin(min(at, self.clock.now()), tuple(entry["boards"]))
                case "ending":
                    run.target, run.target_reason = JobState(entry["state"]), entry["reason"]
                    run.wake_at = datetime.fromisoformat(entry["wake_at"]) if entry["wake_at"] else None
        self._hear(run, run.recorded)
        # a start that was noted may not have come to pass
        if not alive or not (run.state.live or self.launcher.poll(run.dir).state == "running"):
            run.leave(run.wake_at if run.state is JobState.WAITING else None)
            return
        charged = self.ledger.groups(run.id, start=run.alive_from)
        run.segment_mj = {k: sums.energy_mj for k, sums in total_by(charged, lambda g: g.segment).items()}
        run.begun_g = run.charged_g - total(charged).grams
        run.directive, run.planned_at = load(run.dir / "control.json", Directive), self.clock.monotonic()

    def _hear(self, run: JobRun, until: int) -> None:
        for event in run.follower.replay(min(until, run.recorded)):
            run.apply(event, self.clock)

    def _note(self, run: JobRun, kind: str, detail: dict[str, Any]) -> None:
        self.ledger.note(run.id, kind, detail, DAEMON, self.clock.now())
