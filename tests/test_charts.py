"""Charts: axes that hold their data, ticks that are round, gaps that stay gaps."""

import re
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbonsched.charts import (
    WIDTH,
    Band,
    Chart,
    Rule,
    Series,
    count_ticks,
    number_ticks,
    svg,
    svg_file,
    time_ticks,
)

VALUES = st.lists(
    st.tuples(st.floats(0, 1e9), st.one_of(st.none(), st.floats(-1e6, 1e6))), min_size=1, max_size=30
)


@settings(max_examples=150, deadline=None)
@given(VALUES, st.sampled_from(["line", "step", "area", "dots", "rings", "ticks"]))
def test_every_point_lies_inside_the_drawing(points: list[tuple[float, float | None]], kind: str) -> None:
    xs = [x for x, _ in points]
    points.sort(key=lambda point: point[0])
    chart = Chart(
        title="t",
        description="d",
        y_label="y",
        series=[Series("one", kind, points)],  # type: ignore[arg-type]
        x_range=(min(xs), max(xs)),
        x_ticks=[],
    )
    drawn = svg(chart, "c")
    for path in re.findall(r' d="([^"]*)"', drawn):
        numbers = [float(n) for n in re.findall(r"-?\d+\.\d", path)]
        assert all(-10 <= n <= WIDTH + 10 for n in numbers)
    for cy in re.findall(r'cy="([^"]*)"', drawn):
        assert 0 <= float(cy) <= chart.height


def test_an_unknown_value_breaks_the_line() -> None:
    points = [(0.0, 1.0), (1.0, 2.0), (2.0, None), (3.0, 1.0)]
    chart = Chart("t", "d", "y", [Series("one", "line", points)], (0, 3), [])
    assert svg(chart, "c").count('class="line s1"') == 2


def test_texts_are_escaped() -> None:
    chart = Chart(
        title="<b>",
        description="a & b",
        y_label="<y>",
        series=[Series("<s>", "line", [(0, 1)]), Series("two", "dots", [(0, 1)])],
        x_range=(0, 1),
        x_ticks=[(0, "<t>")],
        bands=[Band(0, 1, "<k>")],
        rules=[Rule(1, "<r>")],
    )
    drawn = str(svg(chart, "c"))
    assert not re.search("<(b|y|s|t|k|r)>", drawn)
    assert drawn.count("&lt;") == 6


@pytest.mark.parametrize("seconds", [0.5, 8, 100, 4000, 86_400, 700_000, 4e7])
def test_time_ticks_are_few_round_and_inside(seconds: float) -> None:
    start = datetime(2026, 11, 20, 22, 13, 7, tzinfo=UTC)
    end = start + timedelta(seconds=seconds)
    ticks = time_ticks(start, end)
    assert len(ticks) <= 9
    assert all(start.timestamp() <= at <= end.timestamp() for at, _ in ticks)
    if seconds > 60:
        assert ticks
        assert "20 Nov" in ticks[0][1] or "21 Nov" in ticks[0][1] or seconds >= 86_400
    assert [label for _, label in count_ticks(-0.5, 7.5)] == list("01234567")


@settings(max_examples=100, deadline=None)
@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_number_ticks_are_few_ascending_and_inside(low: float, span: float) -> None:
    ticks = [at for at, _ in number_ticks(low, low + span)]
    assert len(ticks) <= 10
    assert ticks == sorted(ticks)
    slack = 1e-6 * (abs(low) + span)
    assert all(low - slack <= at <= low + span + slack for at in ticks)


def test_dots_have_labels_and_error_bars_inside_the_drawing() -> None:
    points = [(0.0, 1.0), (5.0, 2.0), (10.0, None)]
    series = Series("", "dots", points, labels=("full <1>", "greentrainer", "gone"), spread=(0.5, None, 9.0))
    drawn = str(svg(Chart("t", "d", "y", [series], (0, 10), [], from_zero=False), "c"))
    assert ("full &lt;1&gt;" in drawn, "greentrainer" in drawn, "gone" in drawn) == (True, True, False)
    (bar,) = re.findall(r'class="spread s1" d="M[\d.]+ ([\d.]+)V([\d.]+)', drawn)
    assert 0 < float(bar[1]) < float(bar[0]) <= 240
    far = Series("", "dots", [(10.0, 1.0)], labels=("a name that is long",))
    assert 'text-anchor="end">a name' in str(svg(Chart("t", "d", "y", [far], (0, 10), []), "c"))


def test_a_file_stands_alone_and_holds_its_charts_below_each_other() -> None:
    chart = Chart("t", "d", "y", [Series("one", "line", [(0, 1), (1, 2)])], (0, 1), [])
    root = ET.fromstring(svg_file([chart, chart]))  # noqa: S314  our own text
    inner = [each for each in root if each.tag.endswith("svg")]
    assert [float(each.attrib["y"]) for each in inner] == [16.0, 16.0 + chart.height + 16.0]
    assert float(root.attrib["height"]) == 3 * 16 + 2 * chart.height
    assert len(set(re.findall(r'id="([^"]*)"', svg_file([chart, chart])))) == 4
