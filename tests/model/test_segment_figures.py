"""The figures of a finished segment are the same for `show`, a report and a model card."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from carbonsched.model.protocol import SegmentDone
from carbonsched.model.segment_figures import SegmentFigures
from carbonsched.model.views import SegmentView
from carbonsched.report.parts import SegmentLine

T0 = datetime(2026, 11, 22, 10, tzinfo=UTC)
DONE = SegmentDone(
    at=T0, k=2, first_step=20, steps=10, rho_directed=0.6, rho_planned=0.59, rho_realised=0.58, flops=58.0, flops_full=100.0,
    loss=None, seconds=30.0, importance_seconds=2.0, selection_seconds=0.5, selected=("lm_head",), directive_seq=3,
)  # fmt: skip


@dataclass(frozen=True)
class Segment:
    start: datetime = T0
    end: datetime = T0 + timedelta(minutes=1)
    done: SegmentDone = DONE
    price: float | None = 0.25
    reason: str = "rho 0.600"


@dataclass(frozen=True)
class Charged:
    energy_j: float = 3600.0
    grams: float = 0.12
    g_per_kwh: float | None = 100.0
    power_w: float | None = 60.0


def test_show_and_report_have_the_same_figures() -> None:
    view = SegmentView.of(Segment(), Charged())
    line = SegmentLine.of(
        Segment(),
        Charged(),
        attempts=1,
        first_step=20,
        seconds=30.0,
        estimated=False,
        unknown_s=0.0,
        location_g=0.12,
        settled_g=0.12,
    )
    assert view.dump() == {name: line.dump()[name] for name in SegmentFigures.model_fields}
    assert (view.k, view.rho_realised, view.loss, view.spent_g, view.price) == (2, 0.58, None, 0.12, 0.25)


def test_what_the_ledger_keeps_fits_without_a_copy() -> None:
    from carbonsched.ledger import SegmentRecord
    from carbonsched.ledger.totals import total

    record = SegmentRecord("job", 2, 0, T0, T0 + timedelta(minutes=1), DONE, None)
    nothing = SegmentView.of(record, total(()))
    assert (nothing.energy_j, nothing.spent_g, nothing.g_per_kwh, nothing.power_w) == (0.0, 0.0, None, None)
    assert (nothing.price, nothing.reason) == (None, "")
