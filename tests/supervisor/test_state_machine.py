"""Jobs, people and faults in any order, against a small model: no job is lost, none runs twice, every move is one of the table,
budgets hold, and each joule is charged once.

A few examples in the suite; `CARBONSCHED_EXAMPLES=5000` (`make state-machine`) tries so many.
"""

import os
import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.manual_clock import ManualClock
from support.replay_launcher import ReplayLauncher
from support.rig import ME, START, Played, Rig, spec

from carbonsched.errors import CarbonschedError, FeedError, InputError, LaunchError, LedgerError
from carbonsched.launch.base import ProcessStatus
from carbonsched.model.energy import EnergyDelta
from carbonsched.model.job import JobSpec
from carbonsched.model.job_state import TRANSITIONS, JobState
from carbonsched.model.protocol import RunRecord
from carbonsched.power.counter import DeviceCounter
from carbonsched.power.replay import ReplayMeter
from carbonsched.power.sample import Sample
from carbonsched.units import grams

EXAMPLES = int(os.environ.get("CARBONSCHED_EXAMPLES", "3"))
STEPS = 30 if EXAMPLES > 100 else 10
WATTS, BOARDS = 100.0, 2
OVER = (JobState.FINISHED, JobState.CANCELLED)


@dataclass
class BoxClock(ManualClock):
    """Knows of the box's boots, too."""

    boots: int = 1
    booted_s: float = 0.0
    """Awake time at the last one."""

    def reboot(self, seconds: float) -> None:
        """The box is off so long."""
        self.advance(seconds)
        self.boots, self.booted_s = self.boots + 1, self.awake()


class Board(ReplayMeter):
    """Draws power while the box is awake, however its clock is set, and counts from its boot on: what was used can be known."""

    def __init__(self, path: Path, clock: BoxClock, index: int = 0, board: str | None = None) -> None:
        super().__init__(path, clock, index, board)
        self.box = clock
        device = self.devices[0]
        self._counter = DeviceCounter(
            device.id, "board", f"boot-{clock.boots}", watts_limit=device.watts_limit
        )

    def read(self) -> tuple[EnergyDelta, ...]:
        box = self.box
        counter_mj = round(1000 * WATTS * (box.awake() - box.booted_s))
        sample = Sample(box.now(), box.monotonic(), counter_mj, WATTS, awake_s=box.awake())
        delta = self._counter.add(sample)
        return (*(() if delta is None else (delta,)), *self._counter.take_late())


@dataclass
class Strict(ReplayLauncher):
    """Refuses what no launcher would be asked: a second process of a job that has one."""

    starts: dict[Path, int] = field(default_factory=dict)

    def start(self, job_dir: Path, *args: Any, **kwargs: Any) -> RunRecord:
        assert self.poll(job_dir).state != "running", f"{job_dir.name} is started while it runs"
        self.pid += 1
        self.starts[job_dir] = self.starts.get(job_dir, 0) + 1
        return ReplayLauncher.start(self, job_dir, *args, **kwargs)

    def running(self) -> list[Path]:
        return [path for path, status in self.statuses.items() if status.state == "running"]


class JobLife(RuleBasedStateMachine):
    """What people, trainers and the box do to a daemon; the model is what of it must hold whatever comes next.

    Example::

        run_state_machine_as_test(JobLife)
    """

    @initialize()
    def boot(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.rig = Rig(
            self.root,
            clock=BoxClock(START),
            devices=BOARDS,
            launchers=Strict,
            meters=Board,
            extra={"launch": {"slots": BOARDS, "stop_s": 5}},
        )
        self.jobs: dict[str, Played] = {}
        self.closed: dict[str, JobState] = {}
        """Jobs that were cancelled or finished, which nothing may wake."""
        self.heard: set[str] = set()
        """Whose process has said that it started."""

    def teardown(self) -> None:
        if hasattr(self, "rig"):
            try:
                self.at_last()
            finally:
                self.rig.die()
                shutil.rmtree(self.root, ignore_errors=True)

    @property
    def launcher(self) -> Strict:
        assert isinstance(self.rig.launcher, Strict)
        return self.rig.launcher

    def one(self, n: int) -> Played:
        return list(self.jobs.values())[n % len(self.jobs)]

    def tick(self, seconds: int) -> None:
        """Trainers that were told to end do so; those that were started say so."""
        for _ in range(seconds):
            for verb, path in self.launcher.asked:
                if verb == "terminate" and self.launcher.poll(path).state == "running":
                    self.launcher.end(path)
            self.launcher.asked.clear()
            for path in self.launcher.running():
                if path.name not in self.heard:
                    self.jobs[path.name].started()
                    self.heard.add(path.name)
            self.heard &= {path.name for path in self.launcher.running()}
            self.rig.run(1)

    # ---- people

    @rule(
        budget_g=st.sampled_from((0.3, 2.0, 100.0)),
        priority=st.integers(-1, 1),
        attempts=st.sampled_from((1, 3)),
        limit=st.sampled_from((None, 20.0)),
        hold=st.booleans(),
        after=st.booleans(),
    )
    def submit(
        self, budget_g: float, priority: int, attempts: int, limit: float | None, hold: bool, after: bool
    ) -> None:
        before = list(self.jobs)[-1:] if after else []
        queue: dict[str, object] = {
            "priority": priority,
            "max_attempts": attempts,
            "backoff": 3,
            "time_limit": limit,
            "hold": hold,
        }
        queue["after"] = before
        asked = JobSpec.parse(spec(budget_g=budget_g).dump() | {"queue": queue})
        if any(self.rig.ledger.job(job_id).state is JobState.CANCELLED for job_id in before):
            with pytest.raises(InputError, match="was cancelled, it will never finish"):
                self.rig.submit(asked)
            return
        played = self.rig.submit(asked)
        self.jobs[played.id] = played

    @precondition(lambda self: self.jobs)
    @rule(n=st.integers(0, 9), what=st.sampled_from(("pause", "resume", "cancel")))
    def ask(self, n: int, what: str) -> None:
        played = self.one(n)
        try:
            acted = getattr(self.rig.service, what)(played.id, ME)
        except CarbonschedError:
            return
        if acted.state in OVER:
            self.closed[played.id] = acted.state

    # ---- trainers

    @rule(seconds=st.integers(1, 8))
    def work(self, seconds: int) -> None:
        self.tick(seconds)

    @precondition(lambda self: self.launcher.running())
    @rule(n=st.integers(0, 9), how=st.sampled_from(("segment", "finish", "die", "fail", "deaf")))
    def train(self, n: int, how: str) -> None:
        running = self.launcher.running()
        played = self.jobs[running[n % len(running)].name]
        if how == "die":
            self.launcher.end(played.dir, signal=9)
        elif how == "fail":
            self.launcher.end(played.dir, code=1)
        elif how == "deaf":  # it goes on whatever it is told
            self.launcher.asked.clear()
        elif played.id in self.heard and (played.dir / "control.json").exists():
            if how == "segment":
                played.ready(0)
                self.tick(2)
            else:
                played.say("finished", step=played.steps, reason="done")
                self.launcher.end(played.dir)
        self.tick(1)

    # ---- faults

    @rule()
    def crash(self) -> None:
        self.rig.die()
        self.rig.boot()

    @rule(seconds=st.integers(1, 3600))
    def reboot(self, seconds: int) -> None:
        self.rig.die()
        for path in self.launcher.running():
            self.launcher.statuses[path] = ProcessStatus("lost", run=self.launcher.poll(path).run)
        assert isinstance(self.rig.clock, BoxClock)
        self.rig.clock.reboot(seconds)
        self.rig.boot()

    @rule(seconds=st.integers(-7200, 7200))
    def set_clock(self, seconds: int) -> None:
        self.rig.clock.at += timedelta(seconds=seconds)
        self.tick(1)

    @rule(seconds=st.integers(2, 3600))
    def suspend(self, seconds: int) -> None:
        self.rig.clock.suspend(seconds)
        self.tick(1)

    @rule(
        seconds=st.integers(1, 5),
        what=st.sampled_from(("disk", "disk of states", "feed", "launcher", "meter")),
    )
    def fault(self, seconds: int, what: str) -> None:
        rig, launcher = self.rig, type(self.rig.launcher)
        places: dict[str, tuple[tuple[object, str, Exception], ...]] = {
            "disk": (
                (rig.ledger, "append", LedgerError("disk full")),
                (rig.ledger, "note", LedgerError("disk full")),
            ),
            "disk of states": ((rig.ledger, "set_state", LedgerError("disk full")),),
            "feed": ((rig.chain, "poll_due", FeedError("no network")),),
            "launcher": ((launcher, "start", LaunchError("no shim")),),
            "meter": ((rig.meter, "read", OSError(5, "the driver is gone")),),
        }
        with ExitStack() as stack:
            for target, name, error in places[what]:
                stack.enter_context(patch.object(target, name, side_effect=error))
            for _ in range(seconds):
                rig.clock.advance(1.0)
                rig.supervisor.tick()
        self.tick(1)

    # ---- what holds whatever happens

    @invariant()
    def no_job_is_lost(self) -> None:
        if not hasattr(self, "rig"):
            return
        listed = {job.id: job for job in self.rig.service.jobs(ME, every=True).jobs}
        assert set(listed) == set(self.jobs)
        for job_id, state in self.closed.items():
            assert listed[job_id].state is state
        open_jobs = {job_id for job_id, job in listed.items() if not job.state.ended}
        assert open_jobs <= set(self.rig.supervisor.runs)

    @invariant()
    def no_board_has_two(self) -> None:
        if hasattr(self, "rig"):
            assert len(self.launcher.running()) <= BOARDS

    def at_last(self) -> None:
        """When all is well again: nothing runs that nobody knows of, each move was one of the table, budgets and sums hold."""
        self.tick(12)
        rig = self.rig
        for path in self.launcher.running():
            assert path.name in rig.supervisor.runs, f"{path.name} runs on unseen"
        tick_g = grams(WATTS, rig.config.zone.worst_g_per_kwh, rig.config.pue)
        for job_id, played in self.jobs.items():
            for entry in rig.ledger.history(job_id, kinds=("state",)):
                old, new = JobState(entry["from"]), JobState(entry["state"])
                assert old is new or new in TRANSITIONS[old], f"{job_id}: {old} -> {new}"
            view = played.show()
            assert view.budget_g is not None
            assert view.spent_g <= view.budget_g + 2 * tick_g, (
                f"{job_id} spent {view.spent_g} of {view.budget_g}"
            )
        rig.supervisor.flush()
        found = rig.ledger.verify()
        assert found.ok, found


TestJobLife = JobLife.TestCase
TestJobLife.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=EXAMPLES <= 100,
    print_blob=True,
    phases=(Phase.explicit, Phase.generate) if EXAMPLES <= 100 else tuple(Phase),
)
