"""Writes a ledger as text for an auditor: both chains, jobs, segments, a manifest, and scripts that recompute totals and effects.

The scripts need only Python. The first one's output must equal the manifest, which the database summed; the second one, a copy of
`carbonsched.ledger.effects`, recomputes what reports say that jobs saved.
"""

import hashlib
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Table, func, select

from carbonsched import __version__
from carbonsched.errors import InputError
from carbonsched.ledger.heads import MANIFEST, head_of
from carbonsched.ledger.journal_agreement import sha256
from carbonsched.ledger.rollup import TIERS, rolled_to
from carbonsched.ledger.rows import canonical
from carbonsched.ledger.tables import INTERVALS, JOBS, JOURNAL, SEGMENTS
from carbonsched.model.audit import Exported, ExportedFile, ExportedTotal

_PAGE: Final = 1000
CHAINS: Final = (INTERVALS, JOURNAL)
SCRIPT: Final = "recompute.py"
EFFECTS: Final = "effects.py"
RECOMPUTE: Final = '''\
"""Verifies and recomputes this export: `python3 recompute.py`. It needs Python alone; it ends with a line that begins with ok or with BAD."""
import hashlib, json, math, pathlib, sys

here, sums = pathlib.Path(__file__).parent, {}
def must(true, what):
    if not true: sys.exit("BAD: " + what)
def check():
    manifest = json.loads((here / "manifest.json").read_text(encoding="utf-8"))
    for name, told in manifest["files"].items():
        must(hashlib.sha256((here / name).read_bytes()).hexdigest() == told["sha256"], name + " was changed")
    for chain in ("intervals", "journal"):
        ends = dict(manifest["begins"]) if chain == "intervals" else {}
        for number, line in enumerate(open(here / (chain + ".tsv"), encoding="utf-8", newline="\\n"), start=1):
            digest, text = line.rstrip("\\n").split("\\t", 1)
            row = json.loads(text)
            tier = str(row.get("tier") or 0)
            before = ends.get(tier, "0" * 64)
            must(hashlib.sha256((before + text).encode()).hexdigest() == digest, f"{chain}, line {number} does not follow from the one before")
            ends[tier] = digest
            energy, pue, intensity = (row.get(name) for name in ("energy_mj", "pue", "g_per_kwh"))
            if energy is not None:
                grams = energy / 3.6e9 * pue * (intensity or 0.0)
                sums[row["job_id"]] = [a + b for a, b in zip(sums.get(row["job_id"], (0, 0.0)), (energy, grams))]
        must(ends.get("0", "0" * 64) == manifest["heads"][chain], chain + " ends with another hash than the manifest says")
    for told in manifest["totals"]:
        energy, grams = sums.get(told["job_id"], (0, 0.0))
        same = energy == told["energy_mj"] and math.isclose(grams, told["grams"], rel_tol=1e-9)
        must(same, f"the rows of {told['job_id'] or 'nobody'} come to {energy} mJ and {grams!r} g, not to {told['energy_mj']} mJ and {told['grams']!r} g")
        print(told["job_id"] or "nobody", energy / 1000, "J", grams, "g")
    must(set(sums) <= {told["job_id"] for told in manifest["totals"]}, "there are rows of a job that the manifest has no total of")
    print("ok: files, both chains, and totals are as the manifest says; last row", manifest["heads"]["intervals"])
try: check()
except (OSError, ValueError, KeyError, TypeError, AttributeError) as e: sys.exit(f"BAD: a file of the export is missing or is not what export wrote ({type(e).__name__}: {e})")
'''


def export(connection: Connection, folder: Path, at: datetime, schema: str) -> Exported:
    """Write intervals.tsv, journal.tsv, jobs.tsv and segments.tsv (lines of `hash, tab, canonical JSON`), the manifest and the scripts. A
    line's hash in a chain is SHA-256 of the previous line's hash (64 zeros before the first) + the JSON. Raises InputError if the folder
    cannot be written or is not empty."""
    try:
        return _export(connection, folder, at, schema)
    except OSError as e:
        raise InputError("DIR", f"{folder} cannot be written: {e.strerror}", "choose another folder") from e


def _export(connection: Connection, folder: Path, at: datetime, schema: str) -> Exported:
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise InputError(
            "DIR", f"{folder} is not empty", "choose another folder: an export is not mixed with an older one"
        )
    files = {}
    for table in CHAINS:
        files[f"{table.name}.tsv"] = _write(folder / f"{table.name}.tsv", _chain(connection, table))
    for table in (JOBS, SEGMENTS):
        files[f"{table.name}.tsv"] = _write(folder / f"{table.name}.tsv", _unchained(connection, table))
    files[SCRIPT] = _write(folder / SCRIPT, iter(RECOMPUTE.splitlines(keepends=True)))
    source = Path(__file__).with_name(EFFECTS).read_text(encoding="utf-8")
    files[EFFECTS] = _write(folder / EFFECTS, iter(source.splitlines(keepends=True)))
    head = head_of(connection)
    manifest = Exported(
        made_at=at,
        version=__version__,
        ledger_schema=schema,
        heads=head.chain_heads(),
        rows=head.rows or 0,
        entries=head.entries or 0,
        begins={str(tier): rolled_to(connection, tier)[1] for tier in (0, *TIERS)},
        files=files,
        totals=_totals(connection),
    )
    text = json.dumps(manifest.dump(), indent=2, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return manifest


def _chain(connection: Connection, table: Table) -> Iterator[str]:
    query = select(table).order_by(table.c.id).execution_options(yield_per=_PAGE)
    for row in connection.execute(query).mappings():
        yield f"{row['hash']}\t{canonical(row)}\n"


def _unchained(connection: Connection, table: Table) -> Iterator[str]:
    """Add the hash that the row's journal entry contains; for a job that is the hash of what was submitted, here `spec`."""
    query = select(table).order_by(*table.primary_key.columns).execution_options(yield_per=_PAGE)
    for row in connection.execute(query).mappings():
        fields = dict(row)
        digest = sha256(row)
        if table is JOBS:
            # beside `submitted`, the time
            fields["spec"] = fields.pop("submitted")
            digest = sha256({"submitted": fields["spec"]})
        yield f"{digest}\t{canonical(fields)}\n"


def _write(path: Path, lines: Iterator[str]) -> ExportedFile:
    digest, count = hashlib.sha256(), 0
    with path.open("wb") as out:
        for line in lines:
            raw = line.encode()
            digest.update(raw)
            out.write(raw)
            count += 1
    return ExportedFile(sha256=digest.hexdigest(), lines=count)


def _totals(connection: Connection) -> tuple[ExportedTotal, ...]:
    t = INTERVALS.c
    sums = (
        func.sum(func.coalesce(t.rows, 1)),
        func.coalesce(func.sum(t.energy_mj), 0),
        func.coalesce(func.sum(t.grams), 0.0),
    )
    query = select(t.job_id, *sums).group_by(t.job_id).order_by(t.job_id)
    return tuple(
        ExportedTotal(job_id=job_id, rows=int(rows), energy_mj=int(energy), grams=float(grams))
        for job_id, rows, energy, grams in connection.execute(query)
    )
