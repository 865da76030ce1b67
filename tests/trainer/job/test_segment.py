"""Schedules and the account of a segment, pure."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbonsched.errors import InputError
from trainer.job.segment import Schedule, SegmentRecord, rows_in

small = st.integers(1, 40)


@given(
    rows=small,
    batch=st.integers(1, 6),
    accumulation=st.integers(1, 3),
    epochs=st.integers(1, 4),
    length=small,
)
def test_segments_cover_every_step_and_every_row(
    rows: int, batch: int, accumulation: int, epochs: int, length: int
) -> None:
    schedule = Schedule.of(rows, batch, accumulation, epochs, None, length)
    bounds = {schedule.bounds(step) for step in range(schedule.steps)}
    assert len(bounds) == schedule.segments
    ordered = sorted(bounds)
    assert [k for k, _, _ in ordered] == list(range(schedule.segments))
    assert ordered[0][1] == 0
    assert ordered[-1][2] == schedule.steps
    assert (
        sum(rows_in(schedule, first, end, rows, batch, accumulation) for _, first, end in ordered)
        == rows * epochs
    )


@given(steps=st.integers(1, 300), length=small)
def test_no_segment_is_shorter_than_half_the_others(steps: int, length: int) -> None:
    """A step or two behind the last whole segment are part of it: they would pay for a selection of their own."""
    schedule = Schedule(steps, length, length)
    bounds = sorted({schedule.bounds(step) for step in range(steps)})
    assert [k for k, _, _ in bounds] == list(range(schedule.segments))
    sizes = [end - first for _, first, end in bounds]
    assert sum(sizes) == steps
    assert set(sizes[:-1]) <= {length}
    assert sizes[-1] == steps or length <= 2 * sizes[-1] < 3 * length
    assert schedule.is_remainder(schedule.segments - 1) == (len(sizes) > 1 and sizes[-1] < length)


def test_max_steps_and_epoch_segments() -> None:
    schedule = Schedule.of(32, 4, 2, 3, 6, "epoch")
    assert (schedule.steps, schedule.length, schedule.segments) == (6, 4, 2)
    assert schedule.bounds(5) == (1, 4, 6)


def test_more_segments_than_can_be_planned_are_refused_with_the_mend() -> None:
    assert Schedule(200_000, 1000, 2).segments == 100_000
    with pytest.raises(InputError, match=r"^train.segment: 1 steps make 200001 segments.*make it 3 or more"):
        Schedule(200_001, 1000, 1)
    assert Schedule(200_001, 1000, 3).segments <= 100_000


def test_the_account_of_two_spans() -> None:
    segment = SegmentRecord(0, 0, 4, 400.0, importance_flops=100.0, importance_share=0.25)
    segment.select(("a", "b"), 0.9)
    segment.select(("a",), 0.8)  # before any step: it replaces the first
    segment.add_step(100.0, 1.0, counted=80.0, recomputed=5.0)
    segment.add_step(100.0, 1.0, counted=None, recomputed=0.0)
    segment.select((), 0.5)
    segment.add_step(50.0, 1.0, counted=25.0, recomputed=0.0)
    segment.add_step(150.0, 1.0, counted=None, recomputed=0.0)
    assert segment.rho_planned == pytest.approx((0.8 * 2 + 0.5 * 2) / 4 + 0.25)
    assert segment.flops == pytest.approx(100 + 160 + 100)
    assert segment.flops_full == 400
    assert segment.rho_realised == pytest.approx(0.9)
    assert segment.flops_recomputed == pytest.approx(10)
    assert segment.step_seconds == 4
    again = SegmentRecord.load(json.loads(json.dumps(segment.dump())))
    assert again == segment
    assert {"stretches", "directed"} <= segment.dump().keys(), "as checkpoints of before have it"
