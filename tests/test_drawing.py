"""Diagrams: boxes where they were put, lines that reach them and pass nothing, clear errors."""

import matplotlib.pyplot as plt
import pytest
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from book.figures.drawing import Box, diagram, route


@pytest.fixture
def column() -> dict[str, Box]:
    return {name: Box(1.0, y, name) for name, y in (("top", 0.0), ("middle", 1.0), ("bottom", 2.0))}


def test_each_box_and_each_arrow_is_drawn_with_its_text(column) -> None:
    column["bottom"] = Box(1.0, 2.0, "bottom", dashed=True)
    fig = diagram(column, [("top", "middle"), ("middle", "bottom")], notes=[(0.3, 0.5, "a note")])
    (ax,) = fig.axes
    boxes = [p for p in ax.patches if isinstance(p, FancyBboxPatch)]
    assert [box.get_linestyle() for box in boxes] == ["-", "-", "--"]
    assert fig.get_size_inches()[0] == pytest.approx(ax.get_xlim()[1] - ax.get_xlim()[0])  # a unit is an inch
    assert len([p for p in ax.patches if isinstance(p, FancyArrowPatch)]) == 2
    assert {"top", "middle", "bottom", "a note"} <= {t.get_text() for t in ax.texts}
    plt.close(fig)


def test_lines_run_straight_where_they_can(column) -> None:
    top, middle = column["top"], column["middle"]
    assert route(column, "top", "middle") == [(1.0, top.bottom), (1.0, middle.top)]
    assert route(column, "middle", "top") == [(1.0, middle.top), (1.0, top.bottom)]
    boxes = {"a": Box(1.0, 0.0, "a"), "b": Box(4.0, 0.1, "b"), "c": Box(8.0, 2.0, "c")}
    for first, second, sides in (("a", "b", ("right", "left")), ("b", "a", ("left", "right"))):
        start, end = route(boxes, first, second)
        assert start[0] == getattr(boxes[first], sides[0]) and end[0] == getattr(boxes[second], sides[1])
        assert start[1] == end[1]
    assert route(boxes, "a", "c") == [(1.0, boxes["a"].bottom), (8.0, boxes["c"].top)]  # slanted


def test_a_line_goes_around_what_stands_in_its_way(column) -> None:
    column["middle"] = Box(1.0, 1.0, "wide", width=3.0)
    points = route(column, "top", "bottom")
    assert len(points) == 4
    assert points[1][0] == points[2][0] > column["middle"].right
    assert points[0] == (column["top"].right, 0.0) and points[3] == (column["bottom"].right, 2.0)
    points = route(column, "top", "bottom", "left")
    assert points[1][0] == points[2][0] < column["middle"].left
    assert points[0] == (column["top"].left, 0.0)


def test_errors_name_what_is_wrong(column) -> None:
    with pytest.raises(ValueError, match="nowhere; known: top, middle, bottom"):
        diagram(column, [("top", "nowhere")])
    with pytest.raises(ValueError, match="at least one box"):
        diagram({}, [])
    with pytest.raises(ValueError, match="'under'"):
        diagram(column, [("top", "bottom", "under")])
