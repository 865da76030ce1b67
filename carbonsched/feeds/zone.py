"""States the grid zone of the box, the config's `[zone]`: its name, its one basis, and its worst case for budgets."""

from typing import Annotated

from pydantic import Field

from carbonsched.model.base import Doc
from carbonsched.model.grid import Basis


class Zone(Doc):
    """What intensities mean on this box, and how high they may get.

    Example:
        >>> Zone(name="DE").worst_g_per_kwh
        1000.0
    """

    name: str = "unknown"
    """Grid zone as the feeds and the reports name it, e.g. `DE` or `GB`."""
    basis: Basis = Basis.AVERAGE_LIFECYCLE
    """The one basis every feed of this box must speak; budgets never mix two."""
    worst_g_per_kwh: Annotated[float, Field(gt=0)] = 1000.0
    """The stated worst case: the budget holds at intensities up to here, whatever the forecast does."""
