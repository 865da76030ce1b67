"""Books the runs in other tools' logs, as rows with an account and a method of their own. All runs are booked or none, and each only once."""

from collections.abc import Iterable
from datetime import datetime

from carbonsched.ledger.ledger import Ledger
from carbonsched.model.energy import Account, EnergyDelta, EnergyMethod, Interval
from carbonsched.model.grid import Kind, Reading, Source
from carbonsched.model.imported import ImportBody, Imported, ImportedPart, ImportedRun
from carbonsched.units import MJ_PER_J, grams

KIND = "imported"
"""Kind of the journal entry that names the runs and their rows."""


def book(ledger: Ledger, body: ImportBody, actor: str, uid: int, now: datetime) -> Imported:
    """Book the runs. Raises LedgerError; nothing is booked then."""
    with ledger.transaction():
        known = _known(ledger)
        new = [run for run in body.runs if run.key not in known]
        told = {run.key: _digest(run) for run in new}
        changed = tuple(run.where for run in body.runs if run.key in known and known[run.key] != _digest(run))
        rows = [_row(run, part, body, now) for run in new for part in run.parts]
        beside_mj = _metered_beside(ledger, new)
        found = [row.grams for row in rows if row.grams is not None]
        result = Imported(
            source=body.source,
            runs=len(new),
            rows=len(rows),
            energy_j=sum(row.delta.energy_mj or 0 for row in rows) / MJ_PER_J,
            grams=sum(found) if found else None,
            known=len(body.runs) - len(new),
            changed=changed,
            left_out=body.left_out,
            metered_beside_j=beside_mj / MJ_PER_J,
        )
        if new:
            ledger.append(rows)
            detail = {
                "source": body.source,
                "file": body.file,
                "sha256": body.sha256,
                "uid": uid,
                "runs": told,
                "rows": len(rows),
                "metered_beside_mj": beside_mj,
            }
            ledger.note(None, "imported", detail, actor, now)
    return result


def _known(ledger: Ledger) -> dict[str, str]:
    """Run → its digest when it was booked."""
    return {
        str(key): str(said)
        for entry in ledger.history(None, kinds=(KIND,))
        for key, said in entry.get("runs", {}).items()
    }


def _digest(run: ImportedRun) -> str:
    """Digest of what is booked of a run, so that the same file under another name is recognised."""
    parts = "+".join(f"{part.name}={part.energy_mj}" for part in run.parts)
    return f"{run.start.isoformat()} {run.end.isoformat()} {parts} {run.pue!r} {run.g_per_kwh!r}"


def _row(run: ImportedRun, part: ImportedPart, body: ImportBody, now: datetime) -> Interval:
    reading = None
    if run.g_per_kwh is not None:
        source = Source(
            provider=f"{body.source} (imported)",
            zone=run.zone or "unknown",
            basis=body.basis,
            kind=Kind.ESTIMATED,
            fetched_at=now,
            body_sha256=body.sha256,
        )
        reading = Reading(start=run.start, end=run.end, g_per_kwh=run.g_per_kwh, source=source)
    seconds = (run.end - run.start).total_seconds()
    delta = EnergyDelta(
        device=f"{run.key}:{part.name}",
        start=run.start,
        end=run.end,
        energy_mj=part.energy_mj,
        power_w=part.energy_mj / MJ_PER_J / seconds if seconds > 0 else None,
        method=EnergyMethod.IMPORTED,
        counter_epoch=KIND,
        reason=f"imported: {run.name}, {run.where}",
        meter=f"imported from {run.tool}",
    )
    spent = None if reading is None else grams(part.energy_mj / MJ_PER_J, reading.g_per_kwh, run.pue)
    return Interval(
        account=Account.IMPORTED,
        delta=delta,
        intensity=reading,
        pue=run.pue,
        pue_source=f"imported from {run.tool}",
        grams=spent,
    )


def _metered_beside(ledger: Ledger, runs: Iterable[ImportedRun]) -> int:
    """Millijoules that carbonsched itself metered in rows that begin during these runs."""
    spans: list[tuple[datetime, datetime]] = []
    for start, end in sorted((run.start, run.end) for run in runs):
        if spans and start <= spans[-1][1]:
            spans[-1] = spans[-1][0], max(end, spans[-1][1])
        else:
            spans.append((start, end))
    return sum(
        group.energy_mj
        for start, end in spans
        for group in ledger.groups(None, start, end)
        if group.account is not Account.IMPORTED
    )
