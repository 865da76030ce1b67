"""A training method that trains the norms alone: few tensors, at one ρ of its own.

[train]
method = "example-norms"
"""

from carbonsched.errors import InputError
from carbonsched.model.methods.traits import MethodTraits
from trainer.methods.constant import ConstantMethod
from trainer.methods.registry import MethodRow


class NormsMethod(ConstantMethod):
    """Trains the weights and biases of every normalization."""

    def narrow(self, names: list[str]) -> list[str]:
        found = [name for name in names if "norm" in name.lower()]
        if not found:
            raise InputError("train.method", "'example-norms' finds no norm in this model", "use full")
        return found


# what it can and cannot: at one ρ it can only wait or stop under a budget, and the daemon plans it so
NORMS = MethodRow(MethodTraits(constant_rho=True), NormsMethod)
