"""A trainer of a job of open end whose steps take seconds: evaluates, saves and waits for leases as the real one does."""

from dataclasses import dataclass
from typing import Any

from support.open_auto import OpenAuto

from carbonsched.model.protocol import Directive
from trainer.job.directives import Granted


@dataclass
class SlowAuto(OpenAuto):
    """All seconds are the box's full power; a checkpoint is saved where a segment ends and where the cooldown begins."""

    step_s: float = 5.0
    load_s: int = 3
    eval_s: int = 5
    save_s: int = 1
    slow: tuple[float, ...] = ()
    """By what the first steps take longer."""
    waits: bool = False
    _state: str = "load"
    _passed: int = 0
    """Seconds in this state."""
    _credit: float = 0.0
    _begun: bool = False
    _rate: float = 1.0
    _lease: tuple[tuple[int, int] | None, int] = (None, 0)
    _cooled: bool = False

    def second(self) -> None:
        if self.job.rig.launcher.poll(self.job.dir).state != "running" or self.over:
            return
        self._passed += 1
        over = self.schedule.is_over(self.step)
        k = max(self.step - 1, 0) // self.length
        if self._state == "load":
            if self._passed >= self.load_s:
                self.job.started(segments=None, steps=None, most_steps=self.most)
                self._go("before")
        elif self._state == "before":
            if self._passed >= self.eval_s:
                seen: dict[str, Any] = {"loss": 3.0, "samples": 8, "tokens": 80}
                self.job.say("evaluated", when="before", step=0, seconds=float(self.eval_s), **seen)
                self._go("train")
        elif self._state == "save":
            if self._passed >= self.save_s:
                seconds = float(self.save_s)
                self.job.say("checkpoint", k=k, step=self.step, path="c", seconds=seconds, bytes=10)
                self._go("tail" if over else "train")
        elif self._state == "tail":
            if self._passed >= self.eval_s + max(self.save_s // 3, 1):
                self._end("done")
        else:
            self._second_of_training()

    def _go(self, state: str) -> None:
        self._state, self._passed = state, 0

    def _second_of_training(self) -> None:
        directive = Directive.model_validate_json((self.job.dir / "control.json").read_text())
        if directive.action == "stop":
            self._end("stopped")
            return
        k = self.step // self.length
        if not self._ready:
            self._offer(k)
            self._credit = 0.0
        elif directive.k == k and (self._begun or self._begin(k, directive)):
            self._work(k, directive)

    def _begin(self, k: int, directive: Directive) -> bool:
        """Begin a step, if the lease covers it."""
        mark = (directive.seq, directive.k)
        used = self._lease[1] if self._lease[0] == mark else 0
        lapsed = self.job.rig.clock.now() >= directive.lease.valid_until or used >= directive.lease.max_steps
        if lapsed and not self.waits:
            self.job.say("waiting", k=k, step=self.step, until=None, reason="the lease is over")
        elif self.waits and not lapsed:
            self.job.say("resumed", k=k, step=self.step)
        self.waits, self._begun = lapsed, not lapsed
        if not lapsed:
            self._lease = (mark, used + 1)
            self.schedule.obey(Granted.by(directive, 1.0), self.step)
            self._rate = self.schedule.factor(self.step)
        return not lapsed

    def _work(self, k: int, directive: Directive) -> None:
        self._credit += 1.0
        while self._begun:
            cost = self.step_s * (self.slow[self.step] if self.step < len(self.slow) else 1.0)
            if self._credit < cost - 1e-9:
                return
            self._credit, self._seconds, self._begun = self._credit - cost, self._seconds + cost, False
            self.rates.append(self._rate)
            self.job.say("step", k=k, step=self.step, steps=None, loss=2.0, lr=1e-3, seconds=cost, rho=1.0)
            self.schedule.obey(Granted.by(directive, 1.0), self.step)
            if self.schedule.is_over(self.step) or self.step % self.length == 0:
                self._close(k, directive)
            elif self.schedule.is_cooling(self.step) and not self._cooled:
                self._cooled = True
                self._go("save")
            else:
                self._begin(k, directive)
        self._credit = 0.0

    def _close(self, k: int, directive: Directive) -> None:
        self._ready = False
        self.job.say(
            "segment_done", k=k, first_step=self._first, steps=self.step - self._first, rho_directed=1.0, rho_planned=1.0,
            rho_realised=1.0, setting=None, flops=1e12, flops_full=1e12, loss=2.0, seconds=self._seconds,
            importance_seconds=0.0, selection_seconds=0.0, selected=["a"], directive_seq=directive.seq,
            **self.schedule.segment_end(self.step),
        )  # fmt: skip
        self._go("save")
