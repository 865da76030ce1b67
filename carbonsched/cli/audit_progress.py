"""Shows the progress and the remaining time of a verification on a terminal, and continues an interrupted one."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from carbonsched.cli.client import Client
from carbonsched.errors import CarbonschedError
from carbonsched.ledger.checkpoint import Checkpoint, Done
from carbonsched.ledger.ledger import Ledger
from carbonsched.model.audit import AuditResult

_POLL_S = 0.5


@contextmanager
def verifying(ledger: Ledger, path: Path | None, *, archive: bool, shown: bool) -> Iterator[Checkpoint]:
    """path: of the checkpoint, None: none is kept. archive: whether it is recomputed, too. shown: whether a terminal shows the progress;
    a pipe never does."""
    steps = Checkpoint(path)
    rows, hours = ledger.held() if shown and sys.stderr.isatty() else (0, 0)
    if not rows:
        yield steps
        return
    done = Done(rows, hours, ledger.merged_rows() if archive else 0)
    with _bar() as progress:
        bar = progress.add_task(done.part, total=1.0)

        def advance(part: str, count: int) -> None:
            done.add(part, count)
            progress.update(bar, completed=done.share, description=part)

        steps.report = advance
        yield steps


def asked(client: Client, *, shown: bool) -> AuditResult:
    """The daemon's own verification; meanwhile a terminal shows its progress."""
    if not shown or not sys.stderr.isatty():
        return client.audit()
    with ThreadPoolExecutor(1) as pool, _bar() as progress:
        bar, answer = progress.add_task("rows", total=1.0), pool.submit(client.audit)
        while not wait([answer], _POLL_S).done:
            try:
                found = client.audit_progress()
            except CarbonschedError:
                continue  # an older daemon reports none; any other error is in the result itself
            if found.part is not None and found.share is not None:
                progress.update(bar, completed=found.share, description=found.part)
        return answer.result()


def _bar() -> Progress:
    columns = (
        TextColumn("verifying {task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(file=sys.stderr), transient=True)
