"""Charts of a picture: where they stand, and what is written about them."""

from __future__ import annotations

import pytest

from mint_lab.charts.canvas import WIDTH, Box, Sheet
from mint_lab.charts.chart_spec import ChartSpec
from mint_lab.charts.palette import ROLES
from mint_lab.charts.static_panel import ROW, LegendEntry, Panel, Stroke, placed, range_of, tiles

from .runs import colours, count, image_of

BLUE = ROLES["light"]["train"]


def test_charts_stand_in_rows_of_three_and_wide_ones_take_two_places() -> None:
    frames, bottom = placed([1, 2, 1, 1, 2], 30)
    third = WIDTH / 3
    assert [(f.left, f.top, f.width) for f in frames] == [
        (0, 30, third),
        (third, 30, 2 * third),
        (0, 30 + ROW, third),
        (third, 30 + ROW, third),
        (0, 30 + 2 * ROW, 2 * third),  # no room for it beside the two
    ]
    assert bottom == 30 + 3 * ROW
    assert placed([], 30) == ([], 30)
    assert tiles(0, 30) == ([], 30)
    assert len({left for left, _ in tiles(7, 0)[0]}) == 6


def test_a_fixed_axis_has_room_for_a_line_at_its_ends() -> None:
    (low, high), ticks = range_of([[5.0]], (0.0, 1.0))
    assert (low, high) == pytest.approx((-0.03, 1.03))
    assert ticks == [0, 0.25, 0.5, 0.75, 1]
    assert range_of([[2.0, 8.0]], None)[0] == (0.0, 10.0)


def test_a_curve_lies_where_its_numbers_are() -> None:
    """Two thirds up the axis: the plot is from 52 to 204 units below the top of its frame."""
    sheet = Sheet(ROW)
    panel = Panel(sheet, Box(0, 0, 360, ROW), (0, 10), (0, 3))
    panel.stroke(Stroke([0, 10], [2, 2], BLUE, 3))
    image = image_of(sheet.png())
    blue = [y for y in range(image.height) if image.getpixel((300, y)) == (0, 114, 178)]
    assert sum(blue) / len(blue) / 1.5 == pytest.approx(52 + 152 / 3, abs=1)


def test_a_curve_far_beyond_its_axis_stays_in_its_panel() -> None:
    sheet = Sheet(ROW)
    Panel(sheet, Box(0, 0, 360, ROW), (0, 10), (0, 1)).stroke(Stroke([0, 5, 10], [0.5, 1e6, -1e6], BLUE, 3))
    seen = colours(image_of(sheet.png()).crop((0, 0, 540, round(1.5 * 46))))
    assert count(seen, BLUE) == 0


def test_a_single_value_is_a_point() -> None:
    sheet = Sheet(ROW)
    Panel(sheet, Box(0, 0, 360, ROW), (0, 10), (0, 1)).stroke(Stroke([5], [0.5], BLUE))
    assert count(colours(image_of(sheet.png())), BLUE) > 15


def test_a_long_caption_stays_in_its_frame() -> None:
    sheet = Sheet(ROW)
    panel = Panel(sheet, Box(0, 0, 360, ROW), (0, 10), (0, 1))
    chart = ChartSpec("x", title="a very long title " * 9, unit="and a very long unit " * 9)
    panel.caption(chart, [LegendEntry("label " * 30, "1.000", BLUE)] * 9, note="a note of some length")
    image = image_of(sheet.png())
    beyond = image.crop((540, 0, image.width, image.height))
    assert beyond.getcolors() == [(beyond.width * beyond.height, (255, 255, 255))]
    assert count(colours(image), BLUE) >= 9 * 9
