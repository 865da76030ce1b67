"""Reads spec.json and control.json of a job directory, and writes its events.jsonl.

The daemon and the trainer share this directory and nothing else (docs/protocol.md). Only `send` writes, one line at a time with one `write` on an O_APPEND descriptor, so a
trainer that dies leaves at most one torn last line, which the next one closes before it writes.
"""

import json
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from carbonsched.errors import InputError
from carbonsched.model.files import replace
from carbonsched.model.job import SubmittedJob
from carbonsched.model.protocol import EVENTS, Directive, Event, Warned

CHECKPOINTS = "checkpoints"
OUTPUT = "output"


JOB_DIR = "CARBONSCHED_JOB_DIR"
"""Environment variable that names the job directory for whatever the daemon starts."""


def now() -> datetime:
    """Wall time for records, UTC."""
    return datetime.now(UTC)


@dataclass(slots=True)
class JobDir:
    """One job's directory.

    Example::

        job = JobDir(Path("/var/lib/carbonsched/jobs/7"))
        spec = job.spec().spec
        job.send(Warned(at=now(), message=f"{spec.name} begins"))
        job.close()
    """

    path: Path
    quiet: bool = field(
        default_factory=lambda: int(os.environ.get("WORLD_SIZE", 1)) > 1 and os.environ.get("RANK") != "0"
    )
    """No event is written: by the other ranks of a training of several processes."""
    _events_fd: int | None = None
    _control: bytes = b""
    _warned: set[str] = field(default_factory=set)

    @property
    def launched(self) -> bool:
        """Whether a daemon has started this process for this very directory."""
        named = os.environ.get(JOB_DIR, "")
        return named != "" and Path(named).resolve() == self.path.resolve()

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    @property
    def output(self) -> Path:
        return self.path / OUTPUT

    def spec(self) -> SubmittedJob:
        """spec.json. Raises InputError: absent, not JSON, not a job."""
        file = self.path / "spec.json"
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError as e:
            raise InputError(
                "JOB_DIR", f"there is no {file}", "give a job directory that holds spec.json"
            ) from e
        except (OSError, ValueError, RecursionError) as e:
            raise InputError("JOB_DIR", f"{file} cannot be read: {e}", "submit the job again") from e
        return SubmittedJob.parse(data, where="spec.json")

    def send(self, event: Event) -> None:
        """Append one event. Raises OSError where the disk is full: a trainer that cannot report must not train."""
        if self.quiet:
            return
        if self._events_fd is None:
            self._events_fd = self._open_events()
        line = event.model_dump_json().encode() + b"\n"
        written = os.write(self._events_fd, line)
        while written < len(line):  # only on a full disk or a signal: finish the line or raise
            written += os.write(self._events_fd, line[written:])

    def events(self) -> list[Event]:
        """All whole events so far, oldest first; lines that are not ours are passed over."""
        try:
            lines = (self.path / "events.jsonl").read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        found: list[Event] = []
        for line in lines:
            try:
                found.append(EVENTS.validate_json(line))
            except ValidationError:
                continue
        return found

    def read_directive(self) -> Directive | None:
        """control.json if it is another than at the last call; None where it is not, or is absent or damaged.

        The whole file is read every time, which takes tens of microseconds: inode, size and time can all be the same for
        two different directives.
        """
        file = self.path / "control.json"
        try:
            text = file.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as e:
            self._warn_once(str(e.strerror))
            return None
        if text == self._control:
            return None
        try:
            directive = Directive.parse(json.loads(text), where="control.json")
        except (ValueError, RecursionError, InputError) as e:
            # a writer other than the daemon may not replace the file in one go: it may be whole at the next call
            self._warn_once(str(e))
            return None
        self._control = text
        return directive

    def close(self) -> None:
        if self._events_fd is not None:
            os.close(self._events_fd)
            self._events_fd = None

    def _open_events(self) -> int:
        file = self.path / "events.jsonl"
        fd = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            os.write(fd, b"\n")  # a torn line of the process before us
        return fd

    def _warn_once(self, problem: str) -> None:
        if problem not in self._warned:
            self._warned.add(problem)
            self.send(Warned(at=now(), message=f"control.json passed over: {problem}"))


def find_job_dir(folder: str | Path | None) -> JobDir | None:
    """The job directory `folder`, else the one that the environment names; None: there is none."""
    named = folder or os.environ.get(JOB_DIR)
    return JobDir(Path(named)) if named else None


def give_modes(folder: Path) -> None:
    """Give all that lies in `folder` the mode that the umask says. safetensors makes its files for their user alone, and then
    nobody else may copy a model, not even the one who ordered it."""
    mask = _umask()
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def write_json(file: Path, document: dict[str, Any]) -> None:
    """Replace `file` in one step, durably. Raises OSError."""
    replace(file, json.dumps(document))
