"""Of the time asked for: what is covered, what is not, and that the parts come to the whole."""

import pytest

from carbonsched.report.coverage import Watched, asked_by_job, asked_by_period, completeness

S = 1_000_000


def row(
    board: str, start: int, end: int, energy: int | None = 5, grams: float | None = 1.0
) -> dict[str, object]:
    return {"board": board, "start_us": start * S, "end_us": end * S, "energy_mj": energy, "grams": grams}


def test_the_parts_come_to_what_was_asked_and_each_stretch_without_a_row_is_named() -> None:
    watched = Watched()
    for each in (row("a", 10, 40), row("a", 40, 50, None, None), row("a", 50, 60, 5, None), row("b", 0, 100)):
        watched.add(each)
    whole, missing = completeness(asked_by_period(watched, 0, 100 * S), watched)
    a, b = whole.boards
    assert (a.asked_s, a.covered_s, a.energy_unknown_s, a.intensity_unknown_s, a.no_row_s) == (
        100,
        30,
        10,
        10,
        50,
    )
    assert (b.covered_s, whole.share) == (100, 0.65)
    assert [(g.board, g.kind, (g.end - g.start).total_seconds()) for g in missing] == [
        ("a", "missing", 10),
        ("a", "missing", 40),
    ]
    assert all("no row" in (gap.reason or "") for gap in missing)
    assert (
        whole.covered_s + whole.energy_unknown_s + whole.intensity_unknown_s + whole.no_row_s == whole.asked_s
    )


def test_a_job_asks_for_the_time_of_its_processes_on_the_boards_of_each() -> None:
    watched = Watched()
    for each in (row("a", 0, 10), row("b", 20, 30)):
        watched.add(each)
    whole, missing = completeness(
        asked_by_job(watched, [(0, 10 * S), (20 * S, 32 * S), (40 * S, 50 * S)]), watched
    )
    assert {b.board: (b.asked_s, b.covered_s) for b in whole.boards} == {
        "a": (10, 10),
        "b": (12, 10),
        "none": (10, 0),
    }
    assert len(missing) == 2, "a life of which there is no row at all is missing, too"


@pytest.mark.parametrize(("late_first", "covered"), [(False, 10.0), (True, 10.0)])
def test_what_was_told_late_stands_in_its_place_and_counts_once(late_first: bool, covered: float) -> None:
    watched = Watched()
    rows = [row("a", 5, 10), row("a", 0, 5), row("a", 3, 5)]
    for each in reversed(rows) if late_first else rows:
        watched.add(each)
    assert completeness({"a": [(0, 10 * S)]}, watched)[0].covered_s == covered


def test_what_is_not_whole_is_never_said_to_be() -> None:
    watched = Watched()
    watched.add(row("a", 0, 99_999))
    words = completeness({"a": [(0, 100_000 * S)]}, watched)[0].words
    assert words.startswith("99.99% ")
    assert completeness({}, watched)[0].words == "no time was asked for"
