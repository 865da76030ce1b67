"""Compares two exports line by line: how far their chains agree, and how the first differing row differs."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

from carbonsched.errors import InputError
from carbonsched.ledger.export import CHAINS
from carbonsched.model.audit import AuditDiff, ChainDiff

_MOST_LINE: Final = 1024 * 1024
"""Characters; no row has so many."""


def compare(a: Path, b: Path) -> AuditDiff:
    """Raises InputError if a folder contains no export."""
    chains = tuple(_compared(table.name, a, b) for table in CHAINS)
    whole = all(chain.first_different is None for chain in chains)
    longer = {
        "b" if chain.b > chain.a else "a"
        for chain in chains
        if chain.first_different is None and chain.a != chain.b
    }
    return AuditDiff(
        same=whole and not longer,
        continued=longer.pop() if whole and len(longer) == 1 else None,
        chains=chains,
    )


def _compared(chain: str, a: Path, b: Path) -> ChainDiff:
    counts, common = [0, 0], 0
    different: int | None = None
    fields: dict[str, tuple[Any, Any]] = {}
    with ExitStack() as stack:
        lines = [_lines(stack, folder / f"{chain}.tsv", name) for folder, name in ((a, "A"), (b, "B"))]
        for number, pair in enumerate(zip_longest(*lines), start=1):
            counts = [n + (line is not None) for n, line in zip(counts, pair, strict=True)]
            if None in pair or different is not None:
                continue
            if pair[0] == pair[1]:
                common = number
            else:
                different = number
                fields = _fields(*(_read(line, chain, number) for line in pair))
    return ChainDiff(
        chain=chain, a=counts[0], b=counts[1], common=common, first_different=different, fields=fields
    )


def _lines(stack: ExitStack, path: Path, name: str) -> Iterator[str]:
    try:
        file = stack.enter_context(path.open(encoding="utf-8", errors="replace", newline="\n"))
    except OSError as e:
        raise InputError(
            name, f"{path} cannot be read: {e.strerror}", "name two folders of `audit export`"
        ) from e
    return iter(lambda: file.readline(_MOST_LINE) or None, None)


def _read(line: str | None, chain: str, number: int) -> dict[str, Any]:
    digest, _, text = (line or "").rstrip("\n").partition("\t")
    try:
        row = json.loads(text)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise InputError(
            "A, B", f"line {number} of a {chain}.tsv is no row", "name two folders of `audit export`"
        )
    return row | {"hash": digest}


def _fields(a: dict[str, Any], b: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (a.get(name), b.get(name)) for name in sorted({*a, *b}) if a.get(name) != b.get(name)}
