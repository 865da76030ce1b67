"""An in-memory box behind the API: a `Service` that keeps to the state table and the ownership rule, driven by a test.

`serving` puts it on a real Unix socket; `support.command.cli` runs the real command against it.
"""

import contextlib
import json
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from carbonsched.api.app import create_app
from carbonsched.api.server import serve
from carbonsched.errors import NotFoundError, StateError
from carbonsched.model.audit import AuditProgress, AuditResult
from carbonsched.model.base import rfc3339
from carbonsched.model.grid import (
    Basis,
    FeedStatus,
    ForecastPoint,
    ForecastScore,
    GridNow,
    GridView,
    HorizonScore,
    Kind,
    Source,
)
from carbonsched.model.job import JobSpec, Owner
from carbonsched.model.job_state import JobState, move
from carbonsched.model.pools import PoolList, PoolView
from carbonsched.model.profile import CheckResult
from carbonsched.model.protocol import Directive, Lease, Waste
from carbonsched.model.upkeep import Drained, Removed
from carbonsched.model.views import (
    Acted,
    Budgeted,
    ExpectedSegment,
    Explained,
    JobDetail,
    JobList,
    JobView,
    ReportQuery,
    SegmentView,
    Submitted,
    Version,
)
from carbonsched.report import find
from carbonsched.supervisor import access, job_reference

START = datetime(2026, 11, 22, 10, tzinfo=UTC)
SPEC: dict[str, Any] = {
    "name": "scitldr-smollm2",
    "model": {"name_or_path": "HuggingFaceTB/SmolLM2-135M"},
    "data": {"name_or_path": "allenai/scitldr"},
    "carbon": {"budget_g": 120.0},
}
JOB_TOML = """\
name = "scitldr-smollm2"
[model]
name_or_path = "HuggingFaceTB/SmolLM2-135M"
[data]
name_or_path = "allenai/scitldr"
[carbon]
budget_g = 120.0
"""


SCORES = (
    ForecastScore(
        provider="replay",
        zone="DE",
        basis=Basis.AVERAGE_LIFECYCLE,
        forecasts=400,
        kept_h=400.0,
        reason=None,
        horizons=(
            HorizonScore(from_h=3, to_h=6, n=0),
            HorizonScore(
                from_h=6,
                to_h=12,
                n=40,
                mean_g_per_kwh=200.0,
                mae_g_per_kwh=12.5,
                bias_g_per_kwh=-3.0,
                mae_percent=6.25,
                bias_percent=-1.5,
                persistence_mae_g_per_kwh=20.0,
                persistence_bias_g_per_kwh=1.0,
                persistence_mae_percent=10.0,
                persistence_bias_percent=0.5,
            ),
        ),
    ),
    ForecastScore(
        provider="other",
        zone="DE",
        basis=Basis.AVERAGE_LIFECYCLE,
        forecasts=6,
        kept_h=5.0,
        reason="not scored yet: 5 h of forecasts kept",
        horizons=(),
    ),
)


@dataclass
class Entry:
    id: str
    spec: JobSpec
    owner: Owner
    state: JobState = JobState.QUEUED
    reason: str = "waiting for a free slot"
    segments_done: list[SegmentView] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)


class Box:
    """Five segments a job, 20 g and 100 kJ each, at 200 g/kWh of a feed that is labelled synthetic."""

    def __init__(self, folder: Path, trainer_python: str = sys.executable) -> None:
        self.folder = folder
        self.trainer_python: str | None = trainer_python
        self.entries: dict[str, Entry] = {}
        self.lock = threading.RLock()
        self.g_per_kwh: float | None = 200.0
        self.estimated = False
        self.over_shown = 20
        self.starts: dict[str, tuple[datetime | None, str]] = {}
        """Queued job → when it should start, and why then."""
        self.report: Callable[[], Iterator[str]] | None = None
        self.broken: Exception | None = None
        self.why: str | None = None
        self.pool_views: tuple[PoolView, ...] = ()
        self.audit_result = AuditResult(ok=True, rows=7, first_bad=None)

    # what the test does to it

    def add(self, name: str = "job", uid: int | None = None, **parts: Any) -> Entry:
        spec = JobSpec.parse(SPEC | {"name": name} | parts)
        owner = Owner(uid=uid if uid is not None else 0, gid=0, user="alice")
        return self.entries[self.submit(spec, owner).id]

    def go(self, entry: Entry, state: JobState, reason: str = "as planned") -> None:
        with self.lock:
            entry.state = move(entry.id, entry.state, state)
            entry.reason = reason
            self._note(entry, "the daemon")

    def segment(self, entry: Entry, rho_own: float | None = None) -> None:
        """One more segment is done. rho_own: against what the user would have run."""
        with self.lock:
            k = len(entry.segments_done)
            entry.segments_done.append(
                SegmentView(
                    k=k,
                    start=START + timedelta(hours=k),
                    end=START + timedelta(hours=k, minutes=50),
                    rho_directed=0.6,
                    rho_planned=0.597,
                    rho_realised=0.595,
                    rho_own=rho_own,
                    flops=6e15,
                    flops_full=1e16,
                    waste=Waste(stock_flops=2e16, padding_flops=4e15, head_flops=6e15, orders=16),
                    steps=100,
                    loss=2.5 - 0.1 * k,
                    energy_j=1e5,
                    spent_g=20.0,
                    g_per_kwh=200.0,
                    power_w=None if self.estimated else 320.0,
                    price=0.01,
                    reason="the budget binds",
                    selected=("model.norm.weight", "model.layers.29.mlp.down_proj.weight"),
                    departure="every gradient is 0: nothing is trained",
                )
            )

    # what the API asks of it

    def allow(self, operation: str, actor: Owner) -> None:
        access.allow(operation, actor, None, ())

    def submit(self, spec: JobSpec, owner: Owner, checked: CheckResult | None = None) -> Submitted:
        with self.lock:
            entry = Entry(f"{spec.name}-{len(self.entries):04x}", spec, owner)
            self.entries[entry.id] = entry
            self._note(entry, owner.user)
            return Submitted(id=entry.id, state=entry.state)

    def submitted(self, dedupe_key: str, actor: Owner) -> Submitted:
        for entry in self.entries.values():
            if entry.spec.queue.dedupe_key == dedupe_key:
                return Submitted(id=entry.id, state=entry.state)
        raise NotFoundError("there is none")

    def explain(self, spec: JobSpec, owner: Owner, checked: CheckResult) -> Explained:
        at = [START + timedelta(hours=k) for k in range(checked.segments + 1)]
        segments = tuple(
            ExpectedSegment(k=k, start=at[k], end=at[k + 1], rho=0.6, g=20.0, low_g=15.0, high_g=26.0)
            for k in range(checked.segments)
        )
        return Explained(
            name=spec.name,
            action="train",
            reason="rho 0.600 at 200 g/kWh",
            start=at[0],
            end=at[-1],
            deadline=None,
            rho=0.6,
            gain=0.7,
            g=20.0 * checked.segments,
            low_g=80.0,
            high_g=121.0,
            loading_g=0.5,
            evaluation_g=1.5,
            floor_g=60.0,
            budget_g=spec.carbon.budget_g,
            budget="as given",
            energy_j=1e5 * checked.segments,
            binds=("budget", "guard"),
            gain_per_more_g=0.004,
            gain_per_more_hour=None,
            g_per_more_hour=None,
            jobs_before=0,
            segments=segments,
            segments_in_all=checked.segments,
            estimated=True,
            assumptions=("assumed: 1e14 FLOP/s and 300 W",),
            removals=checked.removals,
        )

    def budget(self, job_id: str, grams: float, actor: Owner) -> Budgeted:
        with self.lock:
            entry = self._find(job_id)
            old = entry.spec.carbon.budget_g
            carbon = entry.spec.carbon.model_copy(update={"budget_g": grams})
            entry.spec = entry.spec.model_copy(update={"carbon": carbon})
            self._note(entry, actor.user)
            spent = sum(segment.spent_g for segment in entry.segments_done)
            return Budgeted(
                id=job_id, state=entry.state, reason=entry.reason, from_g=old, budget_g=grams, spent_g=spent
            )

    def resolve(self, reference: str, actor: Owner) -> str:
        newest_first = [job_id for job_id, entry in reversed(self.entries.items())]
        if reference != job_reference.LATEST:
            return job_reference.pick(reference, newest_first)
        return next(i for i in newest_first if self.entries[i].owner.uid == actor.uid)

    def job_list(self, actor: Owner, every: bool = False) -> Iterator[str]:
        yield self.jobs(actor, every).model_dump_json()

    def jobs(self, actor: Owner, every: bool = False) -> JobList:
        if self.broken is not None:
            raise self.broken
        with self.lock:
            views = [JobView(**self._view(entry)) for entry in self.entries.values()]
            over = [view for view in views if view.state.ended]
            gone = [] if every else over[: max(len(over) - self.over_shown, 0)]
            return JobList(
                jobs=tuple(view for view in views if view not in gone),
                left_out=len(gone),
                drained=self.why,
            )

    def show(self, job_id: str, actor: Owner) -> JobDetail:
        with self.lock:
            entry = self._readable(job_id, actor)
            directive = Directive(
                seq=1,
                k=len(entry.segments_done),
                action="train",
                rho=0.6,
                lease=Lease(valid_until=START + timedelta(minutes=5), max_steps=50),
                price=0.01,
                reason="the budget binds: 100 g left for 5 segments",
            )
            return JobDetail(
                **self._view(entry),
                spec=entry.spec,
                sha256="0" * 64,
                directive=directive if entry.state.live else None,
                segments_done=tuple(entry.segments_done),
                validation=(
                    {
                        "event": "evaluated",
                        "at": rfc3339(START),
                        "when": "before",
                        "step": 0,
                        "loss": 3.21,
                        "samples": 64,
                        "tokens": 900,
                        "seconds": 2.0,
                        "metrics": {},
                    },
                ),
                history=tuple(entry.history),
                waste=Waste.total(s.waste for s in entry.segments_done),
            )

    def cancel(self, job_id: str, actor: Owner) -> Acted:
        return self._act(job_id, actor, JobState.CANCELLED)

    def pause(self, job_id: str, actor: Owner) -> Acted:
        return self._act(job_id, actor, JobState.PAUSED)

    def resume(self, job_id: str, actor: Owner) -> Acted:
        return self._act(job_id, actor, JobState.QUEUED)

    def remove(self, job_id: str, actor: Owner) -> Removed:
        with self.lock:
            entry = self._find(job_id)
            if not entry.state.ended:
                raise StateError(f"job {job_id} is {entry.state}; carbonsched cancel {job_id} ends it")
            del self.entries[job_id]
            return Removed(id=job_id, freed_bytes=12_300_000)

    def drain(self, reason: str, actor: Owner) -> Drained:
        self.why = f"the box is drained by {actor.user}: {reason}"
        return Drained(drained=True, reason=self.why, live=1, queued=2)

    def drained(self) -> Drained:
        return Drained(drained=self.why is not None, reason=self.why or "", live=0, queued=2)

    def undrain(self, actor: Owner) -> Drained:
        self.why = None
        return Drained(drained=False, reason="", live=0, queued=2)

    def pools(self, actor: Owner) -> PoolList:
        return PoolList(pools=self.pool_views)

    def grid(self, hours: float) -> GridView:
        known = self.g_per_kwh is not None
        return GridView(
            now=GridNow(
                g_per_kwh=self.g_per_kwh,
                kind=Kind.ACTUAL if known else None,
                provider="replay" if known else None,
                zone="DE",
                basis=Basis.AVERAGE_LIFECYCLE,
                start=START if known else None,
                end=START + timedelta(hours=1) if known else None,
                fetched_at=START if known else None,
                note="synthetic",
                reason=None if known else "every feed failed",
            ),
            forecast=tuple(
                ForecastPoint(
                    start=START + timedelta(hours=h),
                    end=START + timedelta(hours=h + 1),
                    g_per_kwh=200.0 + 10 * h,
                    low=180.0,
                )
                for h in range(int(hours))
            ),
            feeds=(FeedStatus(name="replay", state="ok", last_success=START, error=None),),
            forecast_source=Source(
                provider="replay",
                zone="DE",
                basis=Basis.AVERAGE_LIFECYCLE,
                kind=Kind.FORECAST,
                fetched_at=START,
                note="synthetic",
            ),
            scores=SCORES,
        )

    def log_path(self, job_id: str, actor: Owner) -> Path:
        return self.log_file(self._readable(job_id, actor))

    def log_file(self, entry: Entry) -> Path:
        return self.folder / f"{entry.id}.log"

    def render_report(self, asked: ReportQuery, form: str, actor: Owner) -> tuple[Iterator[str], str]:
        find(form)
        if asked.job is not None:
            self._readable(asked.job, actor)
        if self.report is not None:
            return self.report(), "text/csv"
        told = {
            "job": asked.job,
            "start": asked.start and rfc3339(asked.start),
            "end": asked.end and rfc3339(asked.end),
            **({"user": asked.user} if asked.user else {}),
            **({"labels": list(asked.labels)} if asked.labels else {}),
            **({"site": asked.site} if asked.site else {}),
            "format": form,
        }
        if form == "json":
            return iter([json.dumps(told)]), "application/json"
        if form == "html":
            return iter(["<!DOCTYPE html><title>report</title><p>report</p>"]), "text/html"
        return iter([f"{','.join(told)}\r\n", f"{','.join(map(str, told.values()))}\r\n"]), "text/csv"

    def metrics(self, actor: Owner) -> str:
        return ""

    def audit(self) -> AuditResult:
        return self.audit_result

    def audit_progress(self) -> AuditProgress:
        return AuditProgress(part=None, share=None)

    def version(self) -> Version:
        return Version(version="0.1.0", python="3.11.4", trainer_python=self.trainer_python, pid=1)

    def _act(self, job_id: str, actor: Owner, state: JobState) -> Acted:
        with self.lock:
            entry = self._find(job_id)
            if actor.uid not in (0, entry.owner.uid):
                raise StateError(f"only {entry.owner.user} or root may do this, you are {actor.user}")
            entry.state = move(job_id, entry.state, state)
            entry.reason = f"{state} by {actor.user}"
            self._note(entry, actor.user)
            return Acted(id=job_id, state=entry.state, reason=entry.reason)

    def _readable(self, job_id: str, actor: Owner) -> Entry:
        entry = self._find(job_id)
        access.check("show", actor, entry.owner, (), job_id)
        return entry

    def _find(self, job_id: str) -> Entry:
        try:
            return self.entries[job_id]
        except KeyError as e:
            raise NotFoundError(f"there is no job {job_id}; carbonsched ps lists them") from e

    def _note(self, entry: Entry, actor: str) -> None:
        entry.history.append(
            {
                "at": rfc3339(START),
                "kind": "state",
                "actor": actor,
                "state": entry.state.value,
                "reason": entry.reason,
            }
        )

    def _view(self, entry: Entry) -> dict[str, Any]:
        done = entry.segments_done
        live = entry.state.live
        return {
            "id": entry.id,
            "name": entry.spec.name,
            "owner": entry.owner.user,
            "state": entry.state,
            "reason": entry.reason,
            "segment": len(done) if live else None,
            "segments": 5 if live or done else None,
            "step": 100 * len(done) if done else None,
            "steps": 500 if done else None,
            "rho": 0.6 if live else None,
            "spent_g": sum(segment.spent_g for segment in done),
            "budget_g": entry.spec.carbon.budget_g,
            "energy_j": sum(segment.energy_j for segment in done),
            "estimated": self.estimated,
            "power_w": 321.5 if live and not self.estimated else None,
            "loss": done[-1].loss if done else None,
            "boards": ("GPU-0",) if live else (),
            "labels": entry.spec.labels,
            "submitted_at": START,
            "ended_at": START if entry.state.ended else None,
            "eta_s": 3600.0 * (5 - len(done)) if live else None,
            "starts_at": self.starts.get(entry.id, (None, None))[0],
            "starts_why": self.starts.get(entry.id, (None, None))[1],
        }


@contextlib.contextmanager
def serving(box: Box, socket: Path) -> Iterator[Path]:
    server = serve(create_app(box), socket)
    server.start()
    try:
        yield socket
    finally:
        server.stop()
