"""Keeps the box drained, that is, from starting jobs. The flag is in the ledger's journal, so it survives a restart."""

from dataclasses import dataclass, field

from carbonsched.clock import Clock
from carbonsched.ledger.ledger import Ledger

DRAINED = "the box is drained by "
"""The reason of a job that waits only for this begins with these words."""


@dataclass(slots=True)
class Drain:
    """The drain flag. Hold the supervisor's lock to change it.

    Example::

        drain = Drain(ledger, clock)
        drain.begin("new disks", "ada")
        drain.why  # 'the box is drained by ada: new disks'
    """

    ledger: Ledger
    clock: Clock
    why: str = field(init=False, default="")
    """Who drained the box, and why; empty: it is not drained."""

    def __post_init__(self) -> None:
        last = self.ledger.history(None, kinds=("drain",), newest=1)
        if last and last[-1]["drained"]:
            self.why = _reason_text(last[-1]["reason"], last[-1]["actor"])

    def begin(self, reason: str, actor: str) -> None:
        """Drain the box, or change the reason. Raises LedgerError; nothing has changed then."""
        self.ledger.note(None, "drain", {"drained": True, "reason": reason}, actor, self.clock.now())
        self.why = _reason_text(reason, actor)

    def end(self, actor: str) -> None:
        """End the drain. Raises LedgerError; nothing has changed then."""
        if self.why:
            self.ledger.note(None, "drain", {"drained": False, "reason": ""}, actor, self.clock.now())
            self.why = ""


def _reason_text(reason: str, actor: str) -> str:
    return f"{DRAINED}{actor}" + (f": {reason}" if reason else "")
