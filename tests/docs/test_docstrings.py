"""What docstrings promise: every module says what it is for, every public class shows one use of it, and the examples run."""

import ast
import doctest
import importlib
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(
    path.relative_to(ROOT)
    for top in ("carbonsched", "trainer")
    for path in (ROOT / top).rglob("*.py")
    if "migrations" not in path.parts
)
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def public_classes(path: Path) -> Iterator[ast.ClassDef]:
    if any(part.startswith("_") and not part.startswith("__") for part in path.with_suffix("").parts):
        return
    for node in tree(path).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node


def module(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    doc = ast.get_docstring(tree(path))
    assert doc, f"{path} has no docstring"
    assert doc.splitlines()[0].rstrip(":").endswith((".", "?", ")")) or ":" in doc.splitlines()[0]


@pytest.mark.parametrize("path", [path for path in FILES if any(public_classes(path))], ids=str)
def test_every_public_class_shows_its_use(path: Path) -> None:
    silent = [node.name for node in public_classes(path) if "Example:" not in (ast.get_docstring(node) or "")]
    assert not silent, f"{path}: no example of {', '.join(silent)}"


@pytest.mark.parametrize("path", [path for path in FILES if ">>> " in (ROOT / path).read_text()], ids=str)
def test_the_examples_run(path: Path) -> None:
    failed, tried = doctest.testmod(importlib.import_module(module(path)), optionflags=OPTIONS)
    assert tried
    assert not failed


@pytest.mark.parametrize(
    "path", [path for path in FILES if "Example::" in (ROOT / path).read_text()], ids=str
)
def test_the_examples_that_need_more_than_a_process_are_code(path: Path) -> None:
    """Blocks after `Example::` compile, and every name they import from us exists."""
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            continue
        for block in (ast.get_docstring(node) or "").split("Example::")[1:]:
            lines = block.strip("\n").splitlines()
            code = []
            for line in lines:
                if line.strip() and not line.startswith("    "):
                    break
                code.append(line)
            parsed = ast.parse(textwrap.dedent("\n".join(code)))
            assert parsed.body, f"{path}: an empty example of {getattr(node, 'name', 'the module')}"
            for found in ast.walk(parsed):
                if isinstance(found, ast.ImportFrom) and (found.module or "").split(".")[0] in (
                    "carbonsched",
                    "trainer",
                ):
                    source = importlib.import_module(str(found.module))
                    for alias in found.names:
                        assert hasattr(source, alias.name), f"{path}: {found.module} has no {alias.name}"
