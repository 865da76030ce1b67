"""Lets the trainer check a job before it is submitted: model, data, batch shapes, the floor of ρ.

Runs as the submitting user, so that a job cannot reach what its owner cannot, and in the trainer's environment.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from carbonsched.errors import CarbonschedError, InputError, LaunchError
from carbonsched.model.job import JobSpec
from carbonsched.model.profile import CheckResult


def check(spec: JobSpec, python: str | None) -> CheckResult:
    """What `python -m trainer check SPEC --json` says of the job.

    Raises InputError's exit code with the trainer's own line where the job is at fault, LaunchError where the trainer
    is. The temporary spec and the child are gone afterwards, Ctrl-C included.
    """
    if python is None:
        raise LaunchError("the daemon does not say which interpreter has the trainer; set launch.python")
    with tempfile.TemporaryDirectory(prefix="carbonsched-") as folder:
        path = Path(folder) / "spec.json"
        path.write_text(spec.model_dump_json(), encoding="utf-8")
        argv = [python, "-m", "trainer", "check", str(path), "--json"]
        try:
            # from the empty folder: `-m` would find a `trainer` that happens to lie where the user stands
            done = _run(argv, folder)
        except OSError as e:
            raise LaunchError(
                f"launch.python: {python} cannot be run: {e.strerror}; name the interpreter that has the trainer"
            ) from e
    said = _last_line(done.stderr)
    if done.returncode == InputError.exit_code:
        raise InputError("", said or "the trainer refused the job without a word")
    if done.returncode != 0:
        raise LaunchError(
            f"the trainer's check failed with exit code {done.returncode}: {said or 'no message'}"
        )
    try:
        return CheckResult.model_validate_json(done.stdout)
    except ValueError as e:
        raise CarbonschedError(
            f"the trainer of {python} answers in a way this carbonsched does not know; install the same version"
        ) from e


def _run(argv: list[str], folder: str) -> subprocess.CompletedProcess[str]:
    if not sys.stderr.isatty():
        return subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    from carbonsched.cli.output import console

    with console(stderr=True).status("checking model, data and the floor of ρ"):
        return subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("trainer: ") if lines else ""
