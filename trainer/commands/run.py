"""Does `python -m trainer run JOB_DIR` and `python -m trainer check SPEC`, as plain functions."""

import logging
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from carbonsched.errors import CarbonschedError, InputError
from carbonsched.model.job_file import read_job
from carbonsched.model.profile import CheckResult
from carbonsched.model.protocol import Failed
from trainer.job.job_dir import JobDir, now

log = logging.getLogger("trainer")


def run(job_dir: Path, *, alone: bool = False) -> int:
    """Run a job directory; returns the exit code: 0 finished or stopped, 2 bad input, 1 failed. Logs to stderr."""
    logging.basicConfig(
        level=logging.WARNING if JobDir(job_dir).quiet else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
        force=True,
    )
    for noisy in ("httpx", "accelerate", "filelock", "datasets", "huggingface_hub"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    job = JobDir(job_dir)
    with _stop_on_signals() as stop:
        try:
            job.spec()  # before the heavy imports: a wrong folder is known at once
            from trainer.run import run_job

            run_job(job, stop.asked, alone=alone)
        except Exception as e:
            return _failed(job, e)
        finally:
            job.close()
    return 0


def check(spec: Path) -> CheckResult:
    """What `submit` learns before it accepts a job: JOB.toml or spec.json, model, data, ρ floor, batch shape.

    Relative paths are read from the spec's own folder. Loads no weights. Raises InputError.
    """
    job = read_job(spec)
    from trainer.check import check_job

    return check_job(job)


def _failed(job: JobDir, error: Exception) -> int:
    if isinstance(error, CarbonschedError):
        code, line = error.exit_code, str(error)
    else:
        code, line = 1, _describe(error)
    if code != InputError.exit_code:
        log.error("".join(traceback.format_exception(error)).rstrip())
    log.error(line)
    if job.path.is_dir():
        job.send(Failed(at=now(), error=line))
    return code


def _describe(error: Exception) -> str:
    """One line; a known trouble comes with a hint."""
    if isinstance(error, ImportError):
        return f"{error}: install carbonsched[train] for this interpreter"
    if type(error).__name__ == "OutOfMemoryError":
        return "the GPU's memory is full: lower train.batch_size, or set train.gradient_checkpointing = true"
    return f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"


@dataclass(slots=True)
class _Stop:
    signalled: bool = False

    def asked(self) -> bool:
        return self.signalled


@contextmanager
def _stop_on_signals() -> Iterator[_Stop]:
    """SIGTERM and SIGINT only set a flag, which the trainer polls: a checkpoint is never cut short."""
    stop = _Stop()

    def note(number: int, frame: FrameType | None) -> None:
        stop.signalled = True

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
