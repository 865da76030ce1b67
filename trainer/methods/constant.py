"""Implements the methods that train the same tensors at one ρ, whatever ρ is directed: full fine-tuning, the last blocks, all adapters."""

from carbonsched.errors import InputError
from carbonsched.model.profile import Profile
from carbonsched.model.protocol import FrontierPoint
from trainer.methods.method import BLOCK, Method, SelectionCurve
from trainer.selection.cached_frontier import CacheSaving


class ConstantMethod(Method):
    """Trains all of its tensors: full, lora, prefix.

    Example::

        method = build_method("full", profile)
        assert method.floor == method.ceiling
    """

    @property
    def floor(self) -> float:
        return self.ceiling

    def curve(self, importance: dict[str, float], saving: CacheSaving | None = None) -> SelectionCurve:
        # unmeasured tensors have no importance; 1 makes a plan's gain proportional to the steps
        everything = self.everything(1.0, saving)
        rho = everything.rho_planned
        points = (FrontierPoint(rho=rho, importance=1.0),)
        return SelectionCurve(rho, points, lambda _: everything, saving)


class LastBlocks(ConstantMethod):
    """Trains the last two blocks and what lies above them: ft-top2.

    Example::

        names = build_method("ft-top2", profile).names
    """

    def narrow(self, names: list[str]) -> list[str]:
        return _last_blocks(names, self.profile)


def _last_blocks(names: list[str], profile: Profile, count: int = 2) -> list[str]:
    """Tensors of the last `count` blocks of the stack nearest the output, and those at no greater depth."""
    stacks: dict[str, set[int]] = {}
    for name in names:
        if found := BLOCK.match(name):
            stacks.setdefault(found[1], set()).add(int(found[2]))
    deep = [(stack, blocks) for stack, blocks in stacks.items() if len(blocks) >= count]
    if not deep:
        raise InputError(
            "train.method", "'ft-top2' finds no stack of blocks in this model", "use greentrainer"
        )
    # an encoder's blocks are below every decoder's: the nearest stack has the shallowest tensor
    depth = {t.name: t.depth_flops for t in profile.tensors}
    nearest = min(deep, key=lambda s: min(depth[n] for n in names if n.startswith(s[0] + ".")))
    top = sorted(nearest[1])[-count:]
    inside = [n for n in names if (f := BLOCK.match(n)) and f[1] == nearest[0] and int(f[2]) in top]
    deepest = max(depth[n] for n in inside)
    above = [n for n in names if not BLOCK.match(n) and depth[n] <= deepest]
    return [n for n in names if n in {*inside, *above}]
