"""Shows a running job to a waiting person: one live panel on a terminal, else one line per change."""

from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from carbonsched import text
from carbonsched.cli import output as o
from carbonsched.cli import standard_streams
from carbonsched.cli.ps import starts
from carbonsched.model.grid import GridNow
from carbonsched.model.views import JobDetail

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table


class Progress(Protocol):
    """The methods that `wait` calls while the job goes on.

    Example::

        with progress(json=False, terminal=sys.stdout.isatty()) as shown:
            shown.update(client.show(job_id), client.grid(0).now)
    """

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
    def update(self, job: JobDetail, grid: GridNow) -> None: ...
    def trouble(self, text: str) -> None:
        """The daemon does not answer at the moment; the job goes on."""


class Silent:
    """Shows nothing, for `--json`.

    Example:
        >>> with Silent() as shown:
        ...     shown.trouble("the daemon does not answer")
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        pass

    def update(self, job: JobDetail, grid: GridNow) -> None:
        pass

    def trouble(self, text: str) -> None:
        pass


class Lines(Silent):
    """A line on stdout whenever state, segment or reason change; for logs and CI.

    Example:
        >>> with Lines() as shown:
        ...     shown.trouble("the daemon does not answer")
        the daemon does not answer
    """

    def __init__(self) -> None:
        self._last: tuple[object, ...] = ()

    def update(self, job: JobDetail, grid: GridNow) -> None:
        now = (job.state, job.segment, len(job.segments_done), job.reason)
        if now != self._last:
            self._last = now
            standard_streams.say(text.one_line(line(job, grid)))

    def trouble(self, text: str) -> None:
        if self._last != (text,):
            self._last = (text,)
            standard_streams.say(text)


class Panel(Silent):
    """A table that is redrawn in place, and stays at the end.

    Example::

        with Panel() as shown:
            shown.update(job, grid)
    """

    def __init__(self) -> None:
        self._live: Live | None = None

    def __enter__(self) -> Self:
        from rich.live import Live

        self._live = Live(console=o.console(), auto_refresh=False)
        self._live.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, job: JobDetail, grid: GridNow) -> None:
        if self._live is not None:
            self._live.update(panel(job, grid), refresh=True)

    def trouble(self, text: str) -> None:
        if self._live is not None:
            self._live.update(text, refresh=True)


def progress(*, json: bool, terminal: bool) -> Progress:
    if json:
        return Silent()
    return Panel() if terminal else Lines()


def line(job: JobDetail, grid: GridNow) -> str:
    """The same in one line."""
    parts = [
        f"{job.id} {job.state}",
        f"segment {_segment(job)}",
        intensity(grid),
        f"ρ {text.rho(job.rho)}",
    ]
    if job.segments_done:
        last = job.segments_done[-1]
        parts.append(f"last planned {text.rho(last.rho_planned)} realised {text.rho(last.rho_realised)}")
    parts += [
        text.energy(job.energy_j, job.estimated),
        _budget(job),
        text.about(job.power_w, job.estimated, "W"),
        f"loss {text.figure(job.loss, digits=4)}",
    ]
    if not job.state.ended:
        parts.append(f"starts {starts(job)}" if job.starts_why else f"left {text.duration(job.eta_s)}")
    parts.append(job.reason)
    return " | ".join(parts)


def panel(job: JobDetail, grid: GridNow) -> "Table":
    last = job.segments_done[-1] if job.segments_done else None
    before = (
        f", segment {last.k + 1} planned {text.rho(last.rho_planned)} realised {text.rho(last.rho_realised)}"
        if last
        else ""
    )
    steps = f", step {job.step}/{job.steps}" if job.step is not None and job.steps is not None else ""
    facts = [
        (job.state.value, job.id),
        ("segment", f"{_segment(job)}{steps}"),
        ("grid", intensity(grid)),
        ("ρ", f"{text.rho(job.rho)} directed{before}"),
        ("spent", f"{_bar(job)}{_budget(job)}"),
        ("energy", f"{text.energy(job.energy_j, job.estimated)}, {text.about(job.power_w, job.estimated, 'W')}"),
        ("loss", text.figure(job.loss, digits=5)),
        ("starts", starts(job)) if job.starts_why else ("left", "ended" if job.state.ended else text.duration(job.eta_s)),
        ("why", job.reason),
    ]  # fmt: skip
    made = o.table("key", "value", wrap=("value",))
    made.show_header = False
    for key, value in facts:
        made.add_row(key, value)
    return made


def _segment(job: JobDetail) -> str:
    """The running segment, or the number of finished ones."""
    if job.segment is not None:
        return text.nth(job.segment, job.segments, job.segments_over)
    if job.segments is None and not job.segments_done:
        return text.NOT_KNOWN
    return f"{len(job.segments_done)}/{job.segments if job.segments is not None else '?'} done"


def intensity(grid: GridNow) -> str:
    if grid.g_per_kwh is None:
        return f"intensity not known: {grid.reason or 'no feed has answered yet'}"
    kind = grid.kind.shown if grid.kind else ""
    said = text.source(grid.provider, kind, grid.note)
    return f"{text.figure(grid.g_per_kwh)} g/kWh ({said})"


def _budget(job: JobDetail) -> str:
    spent = text.grams(job.spent_g, job.estimated)
    return f"{spent} of {text.grams(job.budget_g)}" if job.budget_g is not None else spent


def _bar(job: JobDetail, cells: int = 20) -> str:
    if not job.budget_g:
        return ""
    full = min(cells, round(cells * job.spent_g / job.budget_g))
    return f"{'█' * full}{'░' * (cells - full)} "
