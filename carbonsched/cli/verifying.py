"""Shows on a terminal how far a verification came and how long it still takes, and lets it go on where an earlier one was ended."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from carbonsched.ledger.checkpoint import Checkpoint
from carbonsched.ledger.ledger import Ledger


@contextmanager
def verifying(ledger: Ledger, path: Path | None, *, shown: bool) -> Iterator[Checkpoint]:
    """path: of the checkpoint, None: none is kept. shown: whether a terminal is told; a pipe never is."""
    steps = Checkpoint(path)
    rows, hours = ledger.held() if shown and sys.stderr.isatty() else (0, 0)
    if not rows:
        yield steps
        return
    columns = (
        TextColumn("verifying {task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as progress:
        # the rows of an hour are added up once more, at about half of what it takes to verify them
        each = {"rows": 1.0, "hours": rows / 2 / hours if hours else 0.0}
        bar = progress.add_task("rows", total=rows + rows / 2 * (hours > 0))
        steps.tell = lambda part, count: progress.update(bar, advance=count * each[part], description=part)
        yield steps
