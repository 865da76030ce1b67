"""Auto trains each segment in the setting that the daemon chooses: all of the model, tensors that were drawn by lot, or the last tokens of each row.

Nothing is measured: a draw that goes deep (`spread`) was no worse than a measured selection at the same ρ (docs/results.md), and a pass before each
segment would be paid for also where full fine-tuning is chosen. Without a daemon's word it trains at the ρ it is given.
"""

from carbonsched.model.methods.traits import MethodTraits
from carbonsched.model.profile import Profile
from carbonsched.model.setting import Setting
from trainer.methods.method import Method, SelectionCurve
from trainer.methods.tokens import Tokens

TENSORS = "greentrainer"
"""Name of the settings that select tensors."""
_RHOS = (0.5, 0.6, 0.7, 0.8)
"""The ρ at which tensors are offered: what lies between two of them, mixing both reaches as well."""
_WAYS = (0.0, 1 / 3, 2 / 3)
"""Number of token shares offered, from the cheapest to all tokens."""
_ROOM = 0.02
"""A ρ closer to the floor trains next to nothing."""


class Auto(Method):
    """Offers full fine-tuning, tensors at a few ρ, and, where the model's rows can run in two parts, a few shares of their tokens.

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
        self.tokens: Tokens | None = None
        """For segments that train every tensor on the last tokens of each row; None: this model's rows cannot run in two parts."""
        self.adapters: float | None = None
        """ρ of adapters, which the job may choose before its first step; None: this model, or this training, takes none."""
        self.without_adapters: str | None = None
        """Why the model takes no adapters; None: it does, or that was not checked."""

    def settings(self, curve: SelectionCurve) -> tuple[tuple[Setting, float], ...]:
        rhos = [rho for rho in _RHOS if curve.floor + _ROOM < rho < self.ceiling - _ROOM]
        full = (Setting(method="full"), self.ceiling)
        return (full, *((Setting(method=TENSORS), rho) for rho in rhos), *self._shares())

    def curve_in(self, setting: Setting) -> SelectionCurve | None:
        return (
            self.tokens.curve({}) if self.tokens is not None and setting.method == self.tokens.name else None
        )

    def _shares(self) -> list[tuple[Setting, float]]:
        """The answers' tokens alone, and two steps from there to all tokens; each with its share of the coming batches' tokens."""
        if self.tokens is None or self.tokens.prices is None:
            return []
        curve, found = self.tokens.curve({}), {}
        for way in _WAYS:
            chosen = curve.select(curve.floor + way * (1 - curve.floor))
            share = self.tokens.prices.realised(chosen.gradient_share or 0.0)
            if 0 < share < 1 and chosen.rho_planned < self.ceiling - _ROOM:
                found[chosen.rho_planned] = Setting(method=self.tokens.name, gradient_share=share)
        return [(setting, rho) for rho, setting in found.items()]
