"""Makes the JSON Schema of every document from the model that makes the document.

    python -m carbonsched.cli.schemas docs/schemas

Documents that people write (JOB.toml, the config) are described as read, all others as written. The `$id` has
the version: a change that breaks a reader of the old schema makes a new one.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any, get_args

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

VERSION = 1


def documents() -> dict[str, tuple[Any, JsonSchemaMode]]:
    """File stem → (type, how it is described)."""
    return {name: (kind, "validation") for name, kind in _read().items()} | {
        name: (kind, "serialization") for name, kind in _written().items()
    }


def _read() -> dict[str, Any]:
    from carbonsched.api.app import BudgetBody, SubmitBody
    from carbonsched.config import Config
    from carbonsched.model import command, imported, job, upkeep

    return {
        "job-spec": job.JobSpec,
        "config": Config,
        "submit-body": SubmitBody,
        "budget-body": BudgetBody,
        "drain-body": upkeep.DrainBody,
        "run-request": command.RunRequest,
        "run-end": command.RunEnd,
        "import-body": imported.ImportBody,
    }


def _written() -> dict[str, Any]:
    return _of_jobs() | _of_the_box() | _of_planning()


def _of_jobs() -> dict[str, Any]:
    """Documents of a job's directory, and the API's responses about jobs."""
    from carbonsched.model import command, job, protocol, upkeep
    from carbonsched.model import views as view

    return {
        "submitted-job": job.SubmittedJob,
        "directive": protocol.Directive,
        "event": protocol.Event,
        **{
            f"event-{event.model_fields['event'].default.replace('_', '-')}": event
            for event in get_args(get_args(protocol.Event)[0])
        },
        "run-record": protocol.RunRecord,
        "exit-record": protocol.ExitRecord,
        "job-list": view.JobList,
        "job-detail": view.JobDetail,
        "submitted": view.Submitted,
        "acted": view.Acted,
        "acted-list": view.ActedList,
        "budgeted": view.Budgeted,
        "removed": upkeep.Removed,
        "removed-list": upkeep.RemovedList,
        "run-started": command.RunStarted,
        "run-status": command.RunStatus,
        "run-total": command.RunTotal,
        "job-log": view.JobLog,
        "log-line": view.LogLine,
        "ended": view.Ended,
    }


def _of_the_box() -> dict[str, Any]:
    """Documents of the box: its pools, grid, ledger, reports and checks."""
    from carbonsched.model import audit, checks, grid, grid_setup, imported, pools, upkeep
    from carbonsched.model import views as view
    from carbonsched.report.document import Report

    return {
        "drained": upkeep.Drained,
        "imported": imported.Imported,
        "pool-list": pools.PoolList,
        "installation": checks.Installation,
        "version": view.Version,
        "top": view.Top,
        "written": view.Written,
        "check-list": checks.CheckList,
        "audit-result": audit.AuditResult,
        "audit-progress": audit.AuditProgress,
        "exported": audit.Exported,
        "audit-diff": audit.AuditDiff,
        "rolled-up": audit.RolledUp,
        "added-up": audit.AddedUp,
        "anchored": audit.Anchored,
        "problem": view.ErrorBody,
        "grid-view": grid.GridView,
        "grid-setup": grid_setup.GridSetup,
        "grid-zones": grid_setup.ZoneList,
        "grid-probe": grid_setup.ProbeList,
        "report": Report,
    }


def _of_planning() -> dict[str, Any]:
    """Output of `--explain`, `simulate` and the trainer's own commands."""
    from carbonsched.model import profile
    from carbonsched.model import views as view
    from carbonsched.plan.simulation.result import SimResult
    from carbonsched.plan.simulation.sweep import Sweep

    return {
        "explained": view.Explained,
        "simulation": SimResult,
        "sweep": Sweep,
        "profile": profile.Profile,
        "costs": profile.Costs,
        "selection": profile.Selection,
        # one document that was published under both names
        "frontier": profile.FrontierDoc,
        "frontier-doc": profile.FrontierDoc,
        "check-result": profile.CheckResult,
    }


def schema(name: str, kind: Any, mode: JsonSchemaMode) -> dict[str, Any]:
    """The JSON Schema (2020-12) of one document."""
    made = TypeAdapter(kind).json_schema(mode=mode)
    # written documents have all keys; and no schema may depend on the interpreter that made it
    _drop_defaults(made, everything=mode == "serialization")
    _drop_examples(made)
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        "$id": f"urn:carbonsched:v{VERSION}:{name}",
        **made,
    }


def _drop_defaults(node: Any, *, everything: bool) -> None:
    """Remove the defaults of all properties, or of those that are tables or this very interpreter."""
    if isinstance(node, list):
        for item in node:
            _drop_defaults(item, everything=everything)
    if not isinstance(node, dict):
        return
    for name, value in node.items():
        if name == "properties":
            for field in value.values():
                default = field.get("default")
                if everything or isinstance(default, dict) or default == sys.executable:
                    field.pop("default", None)
        _drop_defaults(value, everything=everything)


def _drop_examples(node: Any) -> None:
    """Remove the Python example from every description: it is for readers of the code."""
    if isinstance(node, list):
        for item in node:
            _drop_examples(item)
    if not isinstance(node, dict):
        return
    if isinstance(said := node.get("description"), str):
        node["description"] = re.split(r"\n+Examples?::?[ \t]*\n", said)[0]
    for value in node.values():
        _drop_examples(value)


def render() -> dict[str, str]:
    """File name → text, of all documents."""
    return {
        f"{name}.json": json.dumps(schema(name, kind, mode), indent=2, ensure_ascii=False) + "\n"
        for name, (kind, mode) in documents().items()
    }


def write(folder: Path) -> None:
    """Make `folder` hold exactly the current schemas."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = render()
    for old in folder.glob("*.json"):
        if old.name not in texts:
            old.unlink()
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/schemas"))
