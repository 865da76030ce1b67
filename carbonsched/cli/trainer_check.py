"""Lets the trainer check a job before it is submitted: model, data, batch shapes, the floor of ρ.

It runs as the submitting user, so that a job cannot read what its owner cannot, and in the trainer's environment.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from carbonsched.errors import CarbonschedError, InputError, LaunchError
from carbonsched.model.job import JobSpec
from carbonsched.model.profile import CheckResult

_WHERE = """
import importlib.util, json, pathlib
spec = importlib.util.find_spec("trainer")
file = spec and (spec.origin or ", ".join(spec.submodule_search_locations or ()))
mark = pathlib.Path(file or "").with_name("methods") / "registry.py"
print(json.dumps({"trainer": file, "ours": bool(file) and mark.is_file()}))
"""
"""Asks an interpreter which `trainer` it would import, without importing it; ours is told by a file it alone has."""
_PROBE_S = 30.0
"""Longest time until the interpreter answers."""


def check(spec: JobSpec, python: str | None) -> CheckResult:
    """The result of `python -m trainer check SPEC --json` for the job.

    Raises InputError's exit code with the trainer's own line if the job has a fault, LaunchError if the trainer
    has one. The temporary spec and the child are removed afterwards, also at Ctrl-C.
    """
    if python is None:
        raise LaunchError("the daemon does not say which interpreter has the trainer; set launch.python")
    with tempfile.TemporaryDirectory(prefix="carbonsched-") as folder:
        path = Path(folder) / "spec.json"
        path.write_text(spec.model_dump_json(), encoding="utf-8")
        argv = [python, "-m", "trainer", "check", str(path), "--json"]
        try:
            # from the empty folder: `-m` would find a `trainer` in the user's working directory
            done = _run(argv, folder)
        except OSError as e:
            raise LaunchError(
                f"launch.python: {python} cannot be run: {e.strerror}; name the interpreter that has the trainer"
            ) from e
        if not _is_ours(done):
            _refuse_another_trainer(python, folder)
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
        return subprocess.run(
            argv, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    from carbonsched.cli.output import console

    with console(stderr=True).status("checking model, data and the floor of ρ"):
        return subprocess.run(
            argv, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )


def _is_ours(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether this output can only be that of carbonsched's own trainer."""
    if done.returncode == InputError.exit_code:
        return any(line.startswith("trainer: ") for line in done.stderr.splitlines())
    return done.returncode == 0 and "rho_floor" in done.stdout


def _refuse_another_trainer(python: str, folder: str) -> None:
    """Raises LaunchError if the interpreter finds another `trainer` than carbonsched's. Imports neither."""
    try:
        done = subprocess.run(
            [python, "-c", _WHERE], cwd=folder, capture_output=True, text=True, check=False, timeout=_PROBE_S
        )
        found = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return
    if isinstance(found, dict) and found.get("trainer") and not found.get("ours"):
        raise LaunchError(
            f"{python} finds another trainer, {found['trainer']}, which hides carbonsched's; rename that file, take its "
            "folder out of PYTHONPATH, or uninstall the distribution that brought it"
        )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("trainer: ") if lines else ""
