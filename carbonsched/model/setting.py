"""Defines Setting: how a segment trains (method, tensors, τ, clock), and what each setting offers."""

from typing import Annotated

from pydantic import Field

from carbonsched.model.base import JobFolderDoc, Line, Real

Share = Annotated[float, Field(gt=0, le=1)]
MOST_SETTINGS = 64
"""That a segment offers: the trainer has nine, and planning, which all jobs wait for, takes 10 ms of CPU longer with each."""


def setting_name(method: str, rho: float, share: float | None = None) -> str:
    """For people. share: τ; None: every token.

    Example:
        >>> setting_name("full", 1.0), setting_name("greentrainer", 0.6), setting_name("tokens", 0.5, 0.25)
        ('full', 'tensors at rho 0.60', 'tokens at 0.25 of the tokens')
    """
    if share is not None:
        return f"{method} at {share:.2f} of the tokens"
    if method == "full":
        return method
    # greentrainer's setting under `auto`, whose tensors are drawn and not chosen by importance
    return f"{'tensors' if method == 'greentrainer' else method} at rho {rho:.2f}"


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


class ForeseenSetting(JobFolderDoc):
    """A setting that a job of method auto will have the choice of, as a check finds it before the job has begun.

    Example:
        >>> ForeseenSetting(setting=Setting(method="lora"), rho=0.71, lr=3.2e-4).rho
        0.71
    """

    setting: Setting
    rho: Annotated[float, Field(ge=0, le=1e6)]
    lr: Annotated[float, Field(gt=0)]
    """Peak learning rate that its steps are taken at."""
