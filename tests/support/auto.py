"""A trainer that plays itself on the rig: loads, asks, trains at the ρ it is told, checkpoints, waits, ends."""

from dataclasses import dataclass
from datetime import datetime

from support.rig import Played

from carbonsched.model.protocol import Directive


@dataclass
class Auto:
    """A full step takes `step_s`, at ρ that share of it. What was not checkpointed is lost when it is killed."""

    job: Played
    step_s: float = 2.0
    load_s: float = 3.0
    saved: int = 0
    """Steps in the last checkpoint."""
    _life: datetime | None = None
    _asked: int = 0
    _step: float = 0.0
    _ready: int | None = None
    _seconds: float = 0.0
    _waits: bool = False
    _first: int = 0
    _lease: tuple[int, int] = (-1, 0)
    over: bool = False

    def __post_init__(self) -> None:
        self.job.rig.autos.append(self)

    def second(self) -> None:
        rig, job = self.job.rig, self.job
        process = rig.launcher.poll(job.dir)
        if process.state != "running" or process.run is None or self.over:
            return
        now = rig.clock.now()
        if self._life != process.run.started_at:
            self._life, self._step, self._ready = process.run.started_at, float(self.saved), None
            self._first, self._waits, self._lease = -1, False, (-1, 0)
            self._asked = rig.launcher.asked.count(("terminate", job.dir))
        if rig.launcher.asked.count(("terminate", job.dir)) > self._asked:
            self._end("stopped")
        elif (now - self._life).total_seconds() >= self.load_s:
            self._train(now)

    def _train(self, now: datetime) -> None:
        job = self.job
        if self._first < 0:
            self._first = self.saved
            job.started(first_step=self.saved)
        k = int(self._step) // job.segment
        if self._ready != k:
            self._ready, self._seconds = k, 0.0
            job.ready(k)
            return
        control = job.dir / "control.json"
        if not control.exists():
            return
        told = Directive.model_validate_json(control.read_text())
        if told.k != k and told.action != "stop":
            return
        if told.action == "stop":
            self._end("stopped")
            return
        if self._lease[0] != told.seq:
            self._lease = (told.seq, int(self._step))
        lapsed = now >= told.lease.valid_until or int(self._step) - self._lease[1] >= told.lease.max_steps
        if told.action == "wait" or lapsed:
            if not self._waits:
                self._waits, self.saved = True, int(self._step)
                until = None if told.until is None else told.until.isoformat()
                job.say("waiting", k=k, step=int(self._step), until=until, reason=told.reason)
            return
        if self._waits:
            self._waits = False
            job.say("resumed", k=k, step=int(self._step))
        rho = told.rho or 1.0
        self._seconds += 1.0
        self._step += 1 / (self.step_s * rho)
        if self._step >= (k + 1) * job.segment - 1e-9:
            self._step = float((k + 1) * job.segment)
            self.saved = int(self._step)
            job.done(k, rho, self._seconds)
            if self.saved >= job.steps:
                self._end("done")

    def _end(self, reason: str) -> None:
        self.saved = int(self._step)
        self.job.say("finished", step=self.saved, reason=reason)
        self.job.rig.launcher.end(self.job.dir)
        self.over = reason == "done"
