"""Defines Setting: how a segment trains, of which ρ is one coordinate (DESIGN section 1), and what each one offers."""

from typing import Annotated

from pydantic import Field

from carbonsched.model.base import JobFolderDoc, Line, Real

Share = Annotated[float, Field(gt=0, le=1)]


class Setting(JobFolderDoc):
    """A method, and the share of tokens that gradient flows through.

    Example:
        >>> Setting(method="tokens", gradient_share=0.25).gradient_share
        0.25
    """

    method: Line
    gradient_share: Share | None = None
    """τ; None: every token."""


class SettingPoint(JobFolderDoc):
    """What a segment gains under one setting at one planned ρ.

    Example:
        >>> SettingPoint(setting=Setting(method="full"), rho=1.0, gain=0.2, low=0.1, high=0.3).gain
        0.2
    """

    setting: Setting
    rho: Annotated[float, Field(ge=0, le=1e6)]
    """The importance batches included, as in `frontier`."""
    gain: Real
    """Expected fall of the held-out loss over the segment, nats per target token; estimated."""
    low: Real | None = None
    """Lower end of its band; None: no band is known."""
    high: Real | None = None
