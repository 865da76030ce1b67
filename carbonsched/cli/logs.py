"""`carbonsched logs ID`: print the output of the job's process."""

import codecs
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from carbonsched.cli.flags import between
from carbonsched.cli.options import Debug, JobId, Json, Socket, connect
from carbonsched.text import visible

if TYPE_CHECKING:
    from carbonsched.cli.client import Client

POLL_S = 0.5


def logs(
    ctx: typer.Context,
    job: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    tail: Annotated[
        int | None,
        typer.Option(
            "--tail",
            "-n",
            metavar="LINES",
            callback=between(0, math.inf),
            help="Only the last lines, and with -f what follows; of those that --since leaves.",
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="WHEN",
            help="Only what was written since: a time, a day, or so long ago, such as 10m.",
        ),
    ] = None,
    json: Json = False,
    socket: Socket = None,
    debug: Debug = False,
) -> None:
    """Print a job's log; with -f, continue as it grows.

    With --json one document `{id, text}`; with -f as well, a line `{"id": …, "line": …}` for every line of the log.
    """
    from carbonsched.cli.flags import naming_flags
    from carbonsched.cli.output import emit
    from carbonsched.model.views import JobLog, LogLine

    client = connect(ctx)
    job = client.show(job).id  # the user may have given its name
    reader = _Reader(client, job)
    if since is not None:
        with naming_flags({"since": "--since"}):
            reader.offset = client.log(job, 0, when(since)).offset
    if tail is not None:
        reader.seek(tail)
    chunks = reader.follow() if follow else reader.all()
    if not json:
        _write(chunks)
    elif follow:
        for text in _lines(chunks):
            print(LogLine(id=job, line=text).model_dump_json(), flush=True)
    else:
        text = b"".join(chunks).decode("utf-8", "replace")
        emit(JobLog(id=job, text=text))


def when(text: str, now: datetime | None = None) -> str:
    """A time in the API's form: a duration before `now`, or the text itself.

    >>> when("90m", datetime(2026, 11, 22, 12, 0, tzinfo=UTC))
    '2026-11-22T10:30:00+00:00'
    """
    from carbonsched.errors import InputError
    from carbonsched.units import seconds

    try:
        ago_s = seconds(text)
    except (InputError, ValueError):
        return text
    return ((now or datetime.now(UTC)) - timedelta(seconds=ago_s)).isoformat()


def _write(chunks: Iterator[bytes]) -> None:
    """Byte for byte into a pipe or a file; on a terminal control characters are escaped, except a progress bar's \\r."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    terminal = sys.stdout.isatty()
    for chunk in chunks:
        if terminal:
            sys.stdout.write("\r".join(map(visible, decoder.decode(chunk).split("\r"))))
            sys.stdout.flush()
        else:
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()


@dataclass(slots=True)
class _Reader:
    client: "Client"
    job: str
    offset: int = 0
    """The log was read up to here."""

    def all(self) -> Iterator[bytes]:
        """Up to the log's end at that time."""
        while True:
            chunk = self.client.log(self.job, self.offset)
            if chunk.offset > self.offset:
                gone = f"{chunk.offset - self.offset:,} bytes of the log are gone: a job's is kept up to launch.log_bytes, twice"
                typer.echo(f"carbonsched: {gone}", err=True)
            self.offset = chunk.next_offset
            if chunk.data:
                yield chunk.data
            if self.offset >= chunk.size:
                return

    def seek(self, lines: int) -> None:
        """Begin at the last `lines` lines, including an unfinished one; no earlier than the present offset."""
        first, size, back = self.offset, self.client.log(self.job, -1).size, 8192
        while True:
            known = self._read(max(size - back, first), size)
            if len(known) < back or known.count(b"\n", 0, -1) >= lines:
                break
            back *= 4
        kept = known.splitlines(keepends=True)
        self.offset = size - sum(map(len, kept[-lines:] if lines else ()))

    def _read(self, start: int, end: int) -> bytes:
        found = b""
        while start + len(found) < end:
            chunk = self.client.log(self.job, start + len(found))
            if chunk.offset > start + len(found):  # deleted meanwhile
                start, found = chunk.offset, b""
            if not chunk.data:
                break
            found += chunk.data
        return found[: end - start]

    def follow(self) -> Iterator[bytes]:
        while True:
            # requested first, so that everything written before the end is in the log
            ended = self.client.show(self.job).state.ended
            yield from self.all()
            if ended:
                return
            time.sleep(POLL_S)


def _lines(chunks: Iterator[bytes]) -> Iterator[str]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode("utf-8", "replace")
    if rest:
        yield rest.decode("utf-8", "replace")
