"""The edges of what a caller may say a trainer's check foresaw: the daemon plans by it before anything has run."""

import json
from pathlib import Path

import pytest
from support.rig import checked

from carbonsched.errors import InputError
from carbonsched.model.profile import CheckResult, read_frontier
from carbonsched.model.protocol import MOST_SEGMENTS


def test_a_check_is_understood() -> None:
    assert checked(steps=MOST_SEGMENTS, segments=MOST_SEGMENTS).segments == MOST_SEGMENTS


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("segments", 0),
        ("segments", MOST_SEGMENTS + 1),
        ("steps", 0),
        ("steps", 10**30),
        ("params", -1),
        ("rho_floor", -0.1),
        ("step_flops_full", 0.0),
        ("batch", 0),
        ("test_rows", -1),
    ],
)
def test_a_figure_that_cannot_be_is_refused_by_name(field: str, value: float) -> None:
    said = checked().dump() | {field: value}
    with pytest.raises(InputError, match=f"^{field}: "):
        CheckResult.parse(said)


def write_points(path: Path, *points: tuple[float, float]) -> Path:
    path.write_text(json.dumps({"frontier": [{"rho": r, "importance": i} for r, i in points]}))
    return path


def test_a_frontier_file_is_a_rising_curve(tmp_path: Path) -> None:
    path = write_points(tmp_path / "f.json", (0.4, 0.0), (0.5, 9.0), (1.0, 9.0))
    assert read_frontier(path, "--gain") == ((0.4, 0.0), (0.5, 9.0), (1.0, 9.0))


@pytest.mark.parametrize(
    "points", [(), ((0.5, 1.0), (0.4, 2.0)), ((0.4, 2.0), (0.5, 1.0)), ((0.4, 1.0), (1.1, 2.0))]
)
def test_any_other_curve_is_refused_by_the_option_that_gave_it(
    points: tuple[tuple[float, float], ...], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"^--gain: .* is not a rising curve over ρ in 0\.\.1; sort it"):
        read_frontier(write_points(tmp_path / "f.json", *points), "--gain")
    with pytest.raises(InputError, match=r"^--gain: .*none\.json cannot be read"):
        read_frontier(tmp_path / "none.json", "--gain")
