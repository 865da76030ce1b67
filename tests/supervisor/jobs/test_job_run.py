"""A job's run: who may change it, and how its parts follow its events."""

import ast
from datetime import timedelta
from pathlib import Path

import pytest
from support.rig import Rig

import carbonsched.supervisor

PACKAGE = Path(carbonsched.supervisor.__file__).parent
RUNS = ("run", "other", "played")
"""Names that a JobRun has in the package."""
MUTATORS = ("append", "clear", "extend", "insert", "pop", "popitem", "remove", "setdefault", "update")


def root_of(node: ast.expr) -> str | None:
    """The name that a chain of attributes and indices begins with: `run` of `run.account.busy[0]`."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def changes(tree: ast.AST) -> list[int]:
    """Lines in which something that belongs to a run is assigned to, deleted, or changed in place."""
    lines = []
    for node in ast.walk(tree):
        targets: list[ast.expr] = []
        match node:
            case ast.Assign() | ast.Delete():
                for target in node.targets:
                    targets += target.elts if isinstance(target, ast.Tuple | ast.List) else [target]
            case ast.AugAssign() | ast.AnnAssign():
                targets = [node.target]
            case ast.Call(func=ast.Attribute(attr=attr, value=value)) if attr in MUTATORS:
                targets = [value]
        found = [t for t in targets if isinstance(t, ast.Attribute | ast.Subscript)]
        lines += [node.lineno for target in found if root_of(target) in RUNS]  # type: ignore[attr-defined]
    return lines


def test_the_check_finds_what_it_looks_for() -> None:
    for text in (
        "run.state = 1", "run.a, b = 1, 2", "run.account.spent_g += 1", "run.process.spans.append(1)",
        "run.progress.gains[0] = 1.0", "del run.progress.gains[0]",
    ):  # fmt: skip
        assert changes(ast.parse(text)) == [1], text
    for text in ("run.move(state, reason)", "run = self.runs[job_id]", "runs.pop(run.id)", "x = run.state"):
        assert changes(ast.parse(text)) == [], text


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent.name != "jobs"],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_a_run_is_changed_in_its_own_folder_alone(path: Path) -> None:
    lines = changes(ast.parse(path.read_text(encoding="utf-8")))
    assert not lines, f"{path}: lines {lines} change a JobRun; give it a verb in jobs/"


def test_a_new_process_has_an_account_of_its_own_and_keeps_the_sum(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    job = rig.running()
    list(job.play(0))
    run = rig.supervisor.runs[job.id]
    charged_g, load_s = run.charged_g, run.progress.load_s
    assert run.account.segment_mj[0] > 0
    run.begin(rig.clock.now(), ("GPU-1",))
    assert (run.account.segment_mj, run.account.busy) == ({}, {})
    assert (run.charged_g, run.account.begun_g) == (charged_g, charged_g)
    assert (run.progress.load_s, run.loading) == (load_s, True)
    assert len(run.progress.done) == 1, "what it has done stays done"


def test_a_clock_that_is_set_moves_what_happened_before(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    job = rig.running()
    run = rig.supervisor.runs[job.id]
    began, spans = run.process.alive_from, run.process.spans
    assert began is not None
    run.shift(timedelta(hours=1))
    assert run.process.alive_from == began + timedelta(hours=1)
    assert [s.start for s in run.process.spans] == [s.start + timedelta(hours=1) for s in spans]
