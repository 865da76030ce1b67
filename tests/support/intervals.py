"""The rows of a ledger as the intervals they were made from."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from carbonsched.ledger import Ledger
from carbonsched.ledger.rows import maybe_moment, moment
from carbonsched.model.energy import Account, EnergyDelta, EnergyMethod, Interval
from carbonsched.model.grid import Basis, Kind, Reading, Source


def intervals(
    ledger: Ledger, job_id: str | None = None, start: datetime | None = None, end: datetime | None = None
) -> list[Interval]:
    """See `Ledger.rows`."""
    return [interval_of(row) for row in ledger.rows(job_id, start, end)]


def interval_of(row: Mapping[Any, Any]) -> Interval:
    """The interval a row was made from."""
    intensity = None
    if row["g_per_kwh"] is not None:
        source = Source(
            provider=row["provider"],
            zone=row["zone"],
            basis=Basis(row["basis"]),
            kind=Kind(row["kind"]),
            fetched_at=moment(row["fetched_us"]),
            issued_at=maybe_moment(row["issued_us"]),
            body_sha256=row["body_sha256"],
            time_compression=row["time_compression"],
            note=row["note"],
        )
        intensity = Reading(
            start=moment(row["intensity_start_us"]),
            end=moment(row["intensity_end_us"]),
            g_per_kwh=row["g_per_kwh"],
            source=source,
            grid_start=maybe_moment(row["grid_start_us"]),
        )
    delta = EnergyDelta(
        device=row["board"],
        start=moment(row["start_us"]),
        end=moment(row["end_us"]),
        energy_mj=row["energy_mj"],
        power_w=row["power_w"],
        method=EnergyMethod(row["method"]),
        counter_epoch=row["counter_epoch"],
        counter_start_mj=row["counter_start_mj"],
        counter_end_mj=row["counter_end_mj"],
        bridged=bool(row["bridged"]),
        coverage=row["coverage"],
        reason=row["reason"],
        meter=row["meter"],
    )
    return Interval(
        account=Account(row["account"]),
        job_id=row["job_id"],
        segment=row["segment"],
        delta=delta,
        intensity=intensity,
        pue=row["pue"],
        pue_source=row["pue_source"],
        rho=row["rho"],
        grams=row["grams"],
    )
