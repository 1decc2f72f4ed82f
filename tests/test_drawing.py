"""Diagrams: boxes where they were put, lines that reach them and pass nothing, clear errors."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from book.figures.drawing import Box, diagram, route


@pytest.fixture
def column() -> dict[str, Box]:
    return {name: Box(1.0, y, name) for name, y in (("top", 0.0), ("middle", 1.0), ("bottom", 2.0))}


def test_each_box_and_each_arrow_is_drawn_with_its_text(column) -> None:
    fig = diagram(column, [("top", "middle"), ("middle", "bottom")], notes=[(0.3, 0.5, "a note")])
    (ax,) = fig.axes
    assert len([p for p in ax.patches if isinstance(p, FancyBboxPatch)]) == 3
    assert len([p for p in ax.patches if isinstance(p, FancyArrowPatch)]) == 2
    assert {"top", "middle", "bottom", "a note"} <= {t.get_text() for t in ax.texts}
    plt.close(fig)


def test_one_unit_is_one_inch_so_that_text_keeps_its_size(column) -> None:
    fig = diagram(column | {"far": Box(6.0, 1.0, "far")}, [])
    (ax,) = fig.axes
    width, height = fig.get_size_inches()
    assert width == pytest.approx(ax.get_xlim()[1] - ax.get_xlim()[0])
    assert height == pytest.approx(ax.get_ylim()[0] - ax.get_ylim()[1])
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # y grows downwards
    plt.close(fig)


def test_straight_down_and_straight_up(column) -> None:
    assert route(column, "top", "middle") == [(1.0, column["top"].bottom), (1.0, column["middle"].top)]
    assert route(column, "middle", "top") == [(1.0, column["middle"].top), (1.0, column["top"].bottom)]


def test_straight_across_in_both_directions() -> None:
    boxes = {"a": Box(1.0, 0.0, "a"), "b": Box(4.0, 0.1, "b")}
    (start, end) = route(boxes, "a", "b")
    assert start[0] == boxes["a"].right and end[0] == boxes["b"].left and start[1] == end[1]
    (start, end) = route(boxes, "b", "a")
    assert start[0] == boxes["b"].left and end[0] == boxes["a"].right


def test_a_line_goes_around_what_stands_in_its_way(column) -> None:
    column["middle"] = Box(1.0, 1.0, "wide", width=3.0)
    points = route(column, "top", "bottom")
    assert len(points) == 4
    assert points[1][0] == points[2][0] > column["middle"].right
    assert points[0] == (column["top"].right, 0.0) and points[3] == (column["bottom"].right, 2.0)
    points = route(column, "top", "bottom", "left")
    assert points[1][0] == points[2][0] < column["middle"].left
    assert points[0] == (column["top"].left, 0.0)


def test_slanted_where_nothing_overlaps() -> None:
    boxes = {"a": Box(0.0, 0.0, "a"), "b": Box(4.0, 2.0, "b")}
    assert route(boxes, "a", "b") == [(0.0, boxes["a"].bottom), (4.0, boxes["b"].top)]


def test_dashed_boxes_have_dashed_outlines() -> None:
    fig = diagram({"ours": Box(0, 0, "ours", dashed=True), "theirs": Box(3, 0, "theirs")}, [])
    styles = [p.get_linestyle() for p in fig.axes[0].patches]
    assert styles == ["--", "-"]
    plt.close(fig)


def test_errors_name_what_is_wrong(column) -> None:
    with pytest.raises(ValueError, match="nowhere; known: top, middle, bottom"):
        diagram(column, [("top", "nowhere")])
    with pytest.raises(ValueError, match="at least one box"):
        diagram({}, [])
    with pytest.raises(ValueError, match="'under'"):
        diagram(column, [("top", "bottom", "under")])
