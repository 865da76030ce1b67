"""Seals, finds and prunes checkpoints, so that one is either whole or not there.

`segment.json`, written last and durably, is both our state and the seal. transformers writes the rest of a `checkpoint-N` folder in place; one that a crash left half-written has no seal, is
never resumed, and is removed at the next save.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from carbonsched.model.files import sync
from trainer.job.job_dir import give_modes, write_json

SEAL = "segment.json"
IMPORTANCE = "importance.json"


def step_of(folder: Path | None) -> int:
    """The optimizer step of a checkpoint's folder; 0 without one."""
    return int(folder.name.rpartition("-")[2]) if folder else 0


def seal(folder: Path, state: dict[str, Any]) -> int:
    """Flush every file of `folder` to disk, then write the seal; returns the folder's bytes."""
    size = 0
    give_modes(folder)
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            size += file.stat().st_size
            sync(file)
    write_json(folder / SEAL, state)
    return size + (folder / SEAL).stat().st_size


def read(folder: Path) -> dict[str, Any] | None:
    """The state under the seal; None for a checkpoint without one that can be read."""
    return _read_object(folder / SEAL)


def find_newest(checkpoints: Path) -> Path | None:
    """The sealed checkpoint of the most steps."""
    sealed = _sealed(checkpoints)
    return sealed[-1] if sealed else None


def prune(checkpoints: Path, keep: int) -> None:
    """Remove all but the `keep` newest sealed checkpoints, and every one without a seal."""
    spared = set(_sealed(checkpoints)[-keep:])
    for folder in checkpoints.glob("checkpoint-*"):
        if folder not in spared:
            # unsealed first: a crash in the middle of removal must not leave a sealed ruin
            (folder / SEAL).unlink(missing_ok=True)
            shutil.rmtree(folder)


def save_importance(checkpoints: Path, step: int, found: dict[str, Any]) -> None:
    """Save the importance measured before optimizer step `step`: a job that has to wait for hours ends and is launched again."""
    checkpoints.mkdir(exist_ok=True)
    write_json(checkpoints / IMPORTANCE, {"step": step, "found": found})


def read_importance(checkpoints: Path, step: int) -> dict[str, Any] | None:
    """The saved importance, if it was measured before this very step."""
    kept = _read_object(checkpoints / IMPORTANCE)
    return kept.get("found") if kept is not None and kept.get("step") == step else None


def _read_object(file: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _sealed(checkpoints: Path) -> list[Path]:
    found = [f for f in checkpoints.glob("checkpoint-*") if f.name.rpartition("-")[2].isdecimal()]
    return sorted((f for f in found if read(f) is not None), key=lambda f: int(f.name.rpartition("-")[2]))
