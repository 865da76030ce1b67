"""Lists the jobs as JSON, in pieces. Of thousands of queued jobs only those that changed since the last listing are serialised again.

Only a job's JSON text is cached: it takes a tenth of its `JobView`. Jobs with a process change at every tick, and jobs that are over are
read from the ledger; neither is cached.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from carbonsched.ledger.listed import ListedJob
from carbonsched.model.job import Owner
from carbonsched.model.views import JobView
from carbonsched.supervisor import access
from carbonsched.supervisor.job_views import OVER_SHOWN, PAGE, job_view, of_ledger, of_run, pasts, reason_of
from carbonsched.supervisor.jobs.job_run import JobRun
from carbonsched.supervisor.queue_outlook import ExpectedStart, QueueOutlook, start_fields

if TYPE_CHECKING:
    from carbonsched.supervisor.supervisor import Supervisor

_START: Final = '"starts_at":null,"starts_why":null'
"""The text is cut here: the expected start of a queued job changes while the rest does not. Inside a string the quotes would be escaped."""


class _Text(NamedTuple):
    """A job's row: what it was built from, and the JSON before and after its expected start."""

    of: tuple[Any, ...]
    head: str
    tail: str


@dataclass(slots=True)
class JobListing:
    """The listing behind `ps`.

    Example::

        listing = JobListing(QueueOutlook())
        JobList.model_validate_json("".join(listing.pieces(supervisor, actor, admins=(), every=False)))
    """

    outlook: QueueOutlook
    _kept: dict[tuple[str, bool], _Text] = field(default_factory=dict)
    """(job, whether for readers of the job) → its row. Rows of jobs that are over are dropped."""

    def pieces(
        self, supervisor: "Supervisor", actor: Owner, admins: Sequence[str], *, every: bool
    ) -> Iterator[str]:
        """The JSON of a `JobList`. every: include jobs that ended long ago. Takes the supervisor's lock for moments only."""
        ids, left_out = supervisor.ledger.listed(None if every else OVER_SHOWN)
        starts, all_mine = self.outlook.starts(supervisor), access.reads_all(actor, admins)
        opening = '{"jobs":['
        # one page of records at a time: those of ten thousand jobs would stay in the daemon's memory
        for page in (ids[at : at + PAGE] for at in range(0, len(ids), PAGE)):
            texts = _Page(supervisor, None if all_mine else actor.uid, starts, self._kept).texts(page)
            if texts:
                yield opening + ",".join(texts)
                opening = ","
        for key in [key for key in list(self._kept) if key[0] not in supervisor.runs]:
            self._kept.pop(key, None)  # another listing may have dropped it
        yield ("" if opening == "," else opening) + f'],"left_out":{left_out},"drained":{_json(supervisor)}}}'


def _json(supervisor: "Supervisor") -> str:
    return json.dumps(supervisor.starter.drain.why or None)


@dataclass(frozen=True, slots=True)
class _Page:
    """The jobs that are read together."""

    supervisor: "Supervisor"
    reader: int | None
    """Uid of a caller who may read only their own jobs; None: the caller may read all."""
    starts: Mapping[str, ExpectedStart]
    texts_kept: dict[tuple[str, bool], _Text]

    def texts(self, ids: Sequence[str]) -> list[str]:
        """The rows, in this order; ids that are no job are skipped."""
        found = self._unchanged(ids)
        if missing := [each for each in ids if each not in found]:
            found |= self._written(self.supervisor.ledger.records(missing))
        return [found[each] for each in ids if each in found]

    def _may_read(self, owner: Owner) -> bool:
        return self.reader is None or owner.uid == self.reader

    def _unchanged(self, ids: Sequence[str]) -> dict[str, str]:
        """The cached rows of jobs that did not change."""
        found: dict[str, str] = {}
        with self.supervisor.lock:
            for job_id in ids:
                run = self.supervisor.runs.get(job_id)
                if run is None or run.alive:
                    continue
                key = job_id, self._may_read(run.job.owner)
                kept = self.texts_kept.get(key)
                if kept is not None and kept.of == _state_of(run):
                    found[job_id] = self._with_start(kept, *key)
        return found

    def _written(self, rows: Sequence[ListedJob]) -> dict[str, str]:
        supervisor, views = self.supervisor, dict[str, tuple[JobView, tuple[Any, ...] | None]]()
        with supervisor.lock:
            for row in rows:
                run = supervisor.runs.get(row.id)
                if run is not None:
                    view = job_view(row, partial(of_run, row, run, supervisor.clock))
                    views[row.id] = view, None if run.alive else _state_of(run)
        rest = [row for row in rows if row.id not in views]
        past = pasts(rest, supervisor.ledger) if rest else {}
        for row in rest:
            view = job_view(row, partial(of_ledger, row, supervisor.ledger, past.get(row.id)))
            views[row.id] = view, None
        return {row.id: self._text(row, *views[row.id]) for row in rows}

    def _text(self, row: ListedJob, view: JobView, of: tuple[Any, ...] | None) -> str:
        mine = self._may_read(row.owner)
        shown = view if mine else access.public_view(view)
        head, _, tail = shown.model_dump_json().partition(_START)
        text = _Text(of or (), head, tail)
        if of is not None:
            self.texts_kept[row.id, mine] = text
        return self._with_start(text, row.id, mine)

    def _with_start(self, text: _Text, job_id: str, mine: bool) -> str:
        start = self.starts.get(job_id)
        if start is None:
            return f"{text.head}{_START}{text.tail}"
        at, why = start_fields(start, self.supervisor.clock.now())
        said = f'"starts_at":{json.dumps(at)},"starts_why":{json.dumps(why if mine else None)}'
        return f"{text.head}{said}{text.tail}"


def _state_of(run: JobRun) -> tuple[Any, ...]:
    """All that determines the row of a job without a process and may change: if it is equal, so is the row."""
    account = run.account
    return (
        run.state,
        reason_of(run),
        run.budget_g,
        account.spent_mj,
        account.charged_g,
        account.unknown_s,
        run.progress.step,
        len(run.progress.done),
    )
