"""The messages between `carbonsched run` and whoever meters its command: the request, the answers, and the total at the end."""

from typing import Annotated

from pydantic import Field

from carbonsched.model.base import Doc, Grams, UtcTime
from carbonsched.model.job import CommandPart
from carbonsched.model.job_state import JobState
from carbonsched.model.labels import Labels

AUTO, HOST, ALL = "auto", "host", "all"
"""Values of `--device` beside a board: a free one, none, and every one."""


class RunRequest(Doc):
    """Body of POST /v1/runs: meter this process from now on.

    Example:
        >>> RunRequest(name="train", command={"argv": ["make"]}, pid=4711).devices
        ('auto',)
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    command: CommandPart
    pid: int
    """Pid of the caller, or of one of its descendants."""
    budget_g: Grams | None = None
    labels: Labels = {}
    devices: Annotated[tuple[str, ...], Field(min_length=1)] = (AUTO,)
    """`auto`, `host`, `all`, or boards by UUID or index."""
    share: bool = False
    """Also allow boards that a job or another command uses: the energy is then shared equally, and estimated."""


class RunStarted(Doc):
    """Its answer: from here on its energy is the run's.

    Example:
        >>> RunStarted(id="train-7f3a1c", devices=["host"], env={}).notes
        ()
    """

    id: str
    devices: tuple[str, ...]
    """Devices whose energy is charged to the command."""
    env: dict[str, str]
    """Environment for the command."""
    lock: str | None = None
    """A file on which it and its processes hold a shared lock (flock) as long as they live; None: the daemon can see them."""
    notes: tuple[str, ...] = ()
    """What has to be known about the figures, in words."""


class RunStatus(Doc):
    """GET /v1/runs/{id}: the run so far.

    Example:
        >>> RunStatus(state="running", spent_g=1.5, budget_g=None).ending is None
        True
    """

    state: JobState
    spent_g: float
    """What is compared with the budget: the known grams, and the unknown at their worst case."""
    budget_g: float | None
    warn_g: float | None = None
    """Grams at which a warning is due; None: never."""
    ending: str | None = None
    """Why the command has to end now; None: it does not."""
    kill: bool = False
    """Whether it had its time to end, or its budget pays for no more of it: SIGKILL is due."""
    grace_s: float | None = None
    """Seconds that it would have to end, of its `grace_s`, at its present power and the grid's present intensity; None: no budget ends it."""


class RunEnd(Doc):
    """Body of POST /v1/runs/{id}/end: how the command ended.

    Example:
        >>> RunEnd(code=0).signal is None
        True
    """

    code: int | None = None
    signal: int | None = None
    at: UtcTime | None = None
    """When; None: now."""


class RunTotal(Doc):
    """`run`: what the command used.

    Example:
        >>> RunTotal(id="a-1", state="finished", reason="done", exit_code=0, seconds=2.0, energy_j=200.0, spent_g=0.02, unknown_s=0,
        ...     estimated=True, g_per_kwh=400, kinds={"static": 0.02}, devices=["host"], budget_g=None).remaining
        0
    """

    id: str
    state: JobState
    reason: str
    exit_code: int | None
    """Of the command, 128 + N where signal N ended it; None: nobody saw its end."""
    seconds: float
    """Seconds that were metered."""
    energy_j: float | None
    """None: no energy is known."""
    spent_g: float | None
    """Known CO2e; None: none is known."""
    unknown_s: float
    """Seconds of unknown energy or intensity, which are in no sum."""
    estimated: bool
    """Not all of the energy is a hardware counter's own difference for this command alone."""
    g_per_kwh: float | None
    """Mean intensity by energy."""
    kinds: dict[str, float]
    """Grams by kind of intensity: actual, estimated, forecast, held, fallback, static."""
    devices: tuple[str, ...]
    budget_g: float | None
    remaining: int = 0
    """Processes that the command left running: the run is metered until they end."""
    notes: tuple[str, ...] = ()
