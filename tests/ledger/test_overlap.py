"""A clock that was set back: which rows charge time once more, and which charge it twice."""

from typing import Any

from carbonsched.ledger.overlap import Overlaps

S = 1_000_000


def row(number: int, start_s: float, end_s: float, energy_mj: int | None = 5, **more: Any) -> dict[str, Any]:
    return {
        "id": number,
        "board": "GPU-0",
        "job_id": None,
        "start_us": int(start_s * S),
        "end_us": int(end_s * S),
        "energy_mj": energy_mj,
        "reason": None,
    } | more


def test_the_row_that_says_the_clock_was_set_back_may_be_of_unknown_energy() -> None:
    found = Overlaps()
    assert found.add(row(1, 100, 160)) is None
    set_back = (
        "the daemon was away for 0 s; the counter rose by 9 W; the wall clock was set back by at least 50 s"
    )
    assert found.add(row(2, 110, 111, None, reason=set_back)) is None
    assert found.add(row(3, 111, 160)) is None
    assert found.add(row(4, 120, 150)) == "row 4 charges time of board GPU-0 that row 3 charged already"


def test_a_row_of_unknown_energy_charges_nothing() -> None:
    found = Overlaps()
    assert found.add(row(1, 100, 160, None)) is None
    assert found.add(row(2, 100, 160)) is None
    assert found.add(row(3, 100, 160)) is not None
