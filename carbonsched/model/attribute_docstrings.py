"""Reads the docstrings below a document's keys from its source, where a JSON Schema is made."""

import ast
import inspect
import itertools
import textwrap

from pydantic import BaseModel


def attribute_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Key → the docstring below it, also those of keys that it inherits.

    Example:
        >>> from carbonsched.model.upkeep import RetentionConfig
        >>> attribute_docstrings(RetentionConfig)["after"]
        'After its end; None: until somebody removes it. Its rows in the ledger stay in any case.'
    """
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if not issubclass(cls, BaseModel) or cls is BaseModel:
            continue
        for field, below in itertools.pairwise(_statements(cls)):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                found.pop(field.target.id, None)  # declared anew
                if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                    found[field.target.id] = inspect.cleandoc(str(below.value.value))
    return found


def _statements(cls: type[BaseModel]) -> list[ast.stmt]:
    """Empty where a plugin's source is not at hand."""
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    except (OSError, TypeError):
        return []
    return tree.body if isinstance(tree, ast.ClassDef) else []
