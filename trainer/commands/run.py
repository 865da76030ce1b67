"""Does `python -m trainer run` (of a job directory, or of a JOB.toml) and `python -m trainer check SPEC`, as plain functions."""

import getpass
import logging
import os
import sys
import time
import traceback
from contextlib import nullcontext
from pathlib import Path

from carbonsched.errors import CarbonschedError, InputError
from carbonsched.model.job import JobSpec, Owner, SubmittedJob
from carbonsched.model.job_file import read_job
from carbonsched.model.profile import CheckResult
from carbonsched.model.protocol import Failed, Finished
from trainer.distributed.launching import launch, takes_several
from trainer.job import checkpoint
from trainer.job.inputs import own_names
from trainer.job.job_dir import JobDir, now, write_json
from trainer.job.stop_signal import EARLY, StoppedAtOnce, StopSignal

log = logging.getLogger("trainer")

OF_RANK_0 = "rank 0: "
"""Prefix of what `Ranks.broadcast` raises on the other ranks."""
RANK_0_S = 30.0
"""Under torchrun, seconds that the other ranks wait for the job directory that rank 0 creates."""


def run(job_dir: Path, *, alone: bool = False, out: Path | None = None, parts: bool = False) -> int:
    """Run a job directory; returns the exit code: 0 finished or stopped, 2 bad input, 1 failed. Logs to stderr.

    job_dir: or a JOB.toml, which is trained without a daemon in `out` (the folder of its name here, unless given); run again
    it goes on there. Raises InputError for a job file that cannot be read, and where `out` holds something else.
    """
    if job_dir.is_file() or job_dir.suffix == ".toml":  # a missing one is reported as missing
        job_dir, alone = make_job_dir(job_dir, out), True
    elif out is not None:
        raise InputError("--out", f"goes with a JOB.toml, {job_dir} is none", "leave it out")
    logging.basicConfig(
        level=logging.WARNING if JobDir(job_dir).quiet else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
        force=True,
    )
    for noisy in ("httpx", "accelerate", "filelock", "datasets", "huggingface_hub"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    job = JobDir(job_dir)
    with (EARLY if EARLY.installed else StopSignal()).handled() as stop:
        try:
            spec = job.spec().spec  # before the heavy imports, so that a wrong folder is reported at once
            name = spec.name
            _hide_boards(spec)
            if takes_several(spec.train):
                return launch(spec.train, _arguments(job_dir, alone, parts), stop.asked)
            if alone:
                log.info("%s in %s: no daemon is asked, no budget is kept", name, job.path)
            # a rank ends with the others: they would wait for it
            with nullcontext() if "WORLD_SIZE" in os.environ else stop.at_once():
                from trainer.run import run_job
            run_job(job, stop.asked, alone=alone, parts=parts)
        except StoppedAtOnce:
            _stopped(job)
        except Exception as e:
            return _failed(job, e)
        finally:
            job.close()
    return 0


def _hide_boards(spec: JobSpec) -> None:
    """For a job of the CPU: CUDA reads this variable once, when torch asks it for the first time."""
    if spec.train.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def _stopped(job: JobDir) -> None:
    """Say that it ended before it did anything."""
    log.info("stopped: signal")
    last = checkpoint.find_newest(job.checkpoints)
    job.send(Finished(at=now(), step=checkpoint.step_of(last), reason="stopped", peak_memory_bytes=None))


def _arguments(job_dir: Path, alone: bool, parts: bool) -> list[str]:
    """The command line of a rank."""
    return ["run", str(job_dir), *(["--alone"] if alone else []), *(["--parts"] if parts else [])]


def make_job_dir(file: Path, out: Path | None = None) -> Path:
    """The job directory of a job file: a new one, or the one made for it before."""
    spec = read_job(file)
    folder, digest = out or Path(spec.name), spec.sha256
    if (folder / "spec.json").is_file():
        if JobDir(folder).spec().sha256 != digest:
            raise InputError(
                "--out",
                f"{folder} holds another job, or this one with other settings",
                "give another folder, or remove it",
            )
        return folder
    if int(os.environ.get("RANK", "0")):
        return _made_by_rank_0(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError("--out", f"{folder} is no empty folder", "give another one")
    owner = Owner(uid=os.getuid(), gid=os.getgid(), user=getpass.getuser())
    job = SubmittedJob(id=spec.name, spec=spec, owner=owner, submitted_at=now(), sha256=digest)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "spec.json", job.dump())
    except OSError as e:
        raise InputError(
            "--out", f"{folder} cannot be made: {e.strerror or e}", "give a folder you can write"
        ) from e
    return folder


def _made_by_rank_0(folder: Path) -> Path:
    deadline = time.monotonic() + RANK_0_S
    while not (folder / "spec.json").is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    return folder


def check(spec: Path) -> CheckResult:
    """What `submit` needs to know before it accepts a job (JOB.toml or spec.json): model, data, ρ floor, batch shape. Relative paths start
    at the spec's own folder. Loads no weights. Raises InputError."""
    job = read_job(spec)
    _hide_boards(job)
    from trainer.check import check_job

    return check_job(job)


def _failed(job: JobDir, error: Exception) -> int:
    if isinstance(error, CarbonschedError):
        code, line = error.exit_code, str(error)
    else:
        code, line = 1, _describe(error)
    if not isinstance(error, CarbonschedError):  # expected errors are one line
        log.error("".join(traceback.format_exception(error)).rstrip())
    line = _own_names(job, line)
    log.error(line)
    if job.path.is_dir():
        _report(job, line)
    return code


def _report(job: JobDir, line: str) -> None:
    """A rank that writes no other events reports why it fails, unless it fails because rank 0 did."""
    if not job.quiet:
        job.send(Failed(at=now(), error=line))
    elif not line.startswith(OF_RANK_0):
        loud = JobDir(job.path, quiet=False)
        loud.send(Failed(at=now(), error=f"rank {os.environ.get('RANK', '?')}: {line}"))
        loud.close()


def _own_names(job: JobDir, line: str) -> str:
    try:
        return own_names(job, job.spec().spec, line)
    except InputError:  # the line already names it
        return line


def _describe(error: Exception) -> str:
    """One line; a known problem comes with a hint."""
    if isinstance(error, ImportError):
        return f"{error}: install carbonsched[train] for this interpreter"
    if type(error).__name__ == "OutOfMemoryError":
        return "the GPU's memory is full: lower train.batch_size, or set train.gradient_checkpointing = true"
    said = " ".join(str(error).split()) or "no message"
    if "Connection closed by peer" in said or "Connection reset by peer" in said:
        return f"another process of this training died, see the log for which: {type(error).__name__}: {said}"
    return f"{type(error).__name__}: {said}"
