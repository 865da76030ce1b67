"""Auto trains each segment in the setting that the daemon chooses: all of the model, or a selection of tensors that was drawn by lot.

Nothing is measured: a draw that goes deep (`spread`) was no worse than a measured selection at the same ρ (docs/results.md), and a pass before each
segment would be paid for also where full fine-tuning is chosen. Without a daemon's word it trains at the ρ it is given.
"""

from carbonsched.model.methods.traits import MethodTraits
from carbonsched.model.profile import Profile
from carbonsched.model.setting import Setting
from trainer.methods.method import Method, SelectionCurve

TENSORS = "greentrainer"
"""Name of the settings that select tensors."""
_RHOS = (0.5, 0.6, 0.7, 0.8)
"""At which tensors are offered: between them nothing is to be had that two of them do not bracket."""
_ROOM = 0.02
"""A ρ nearer to the floor trains next to nothing."""


class Auto(Method):
    """Offers full fine-tuning and tensors at a few ρ.

    Example::

        method = build_method("auto", profile)
        method.settings(method.curve(method.importance(0, None)))  # ((Setting(method="full", …), 1.0), …)
    """

    def __init__(
        self,
        name: str,
        traits: MethodTraits,
        profile: Profile,
        seed: int = 0,
        among: frozenset[str] | None = None,
        importance: str = "spread",
    ) -> None:
        super().__init__(name, traits, profile, seed, among, "spread")

    def settings(self, curve: SelectionCurve) -> tuple[tuple[Setting, float], ...]:
        rhos = [rho for rho in _RHOS if curve.floor + _ROOM < rho < self.ceiling - _ROOM]
        full = (Setting(method="full"), self.ceiling)
        return (full, *((Setting(method=TENSORS), rho) for rho in rhos))
