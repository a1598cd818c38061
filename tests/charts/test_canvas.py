"""Pictures leave matplotlib as they found it, and look the same whatever a person set there."""

from __future__ import annotations

import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import pytest

from mint_lab.charts import canvas
from mint_lab.charts.canvas import WIDTH, Box, Sheet, drawable, drawing
from tests.waiting import Attempt, Gate, join

from .runs import colours, image_of

BLUE, GREEN = "#0072b2", "#009e73"


def draw() -> bytes:
    sheet = Sheet(100)
    sheet.text(10, 10, "name $x_1$ <b> \\frac{1}{2}", limit=400)
    sheet.path([10, 500, 1000], [90, 40, 60], BLUE, 2, marker=4)
    sheet.path([10, 1000], [95, 95], BLUE, 1, dashes=(4, 2))
    sheet.box(Box(600, 20, 100, 40), GREEN, hatch=BLUE)
    sheet.boxes([(Box(800, 20, 50, 40), GREEN), (Box(851, 20, 50, 40), BLUE)])
    return sheet.png()


@pytest.fixture
def someones_style() -> Iterator[None]:
    before = mpl.rcParams.copy()
    mpl.rcParams.update(
        {
            "text.usetex": True,
            "font.size": 40,
            "font.weight": "bold",
            "axes.facecolor": "black",
            "figure.facecolor": "black",
            "savefig.facecolor": "black",
            "figure.dpi": 30,
            "figure.autolayout": True,
            "lines.linewidth": 12,
            "lines.linestyle": ":",
            "lines.marker": "*",
            "lines.color": "red",
            "patch.edgecolor": "red",
            "patch.force_edgecolor": True,
            "patch.linewidth": 9,
            "text.color": "red",
            "path.sketch": (3.0, 100.0, 2.0),
        }
    )
    yield
    mpl.rcParams.update(before)


def test_a_style_of_somebody_elses_changes_no_picture(request: pytest.FixtureRequest) -> None:
    plain = draw()
    request.getfixturevalue("someones_style")
    assert draw() == plain


def test_drawing_changes_nothing_of_matplotlib() -> None:
    """In another process: neither rcParams nor the backend, and pyplot is not even imported."""
    code = """
import sys
import matplotlib
before = dict(dict.items(matplotlib.rcParams))  # rcParams["backend"] would choose one
from tests.charts.test_canvas import draw
draw()
assert dict(dict.items(matplotlib.rcParams)) == before
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_matplotlib_is_imported_when_a_picture_is_drawn() -> None:
    code = "import sys, mint_lab.ui.pictures; print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_pictures_can_be_drawn_on_several_threads_at_once() -> None:
    expected, made = draw(), []
    threads = [threading.Thread(target=lambda: made.extend(drawing(draw)() for _ in range(3))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [expected] * 12


def test_a_picture_has_its_colours_exactly_and_is_white_elsewhere() -> None:
    sheet = Sheet(50)
    sheet.box(Box(100, 10, 300, 30), BLUE)
    seen = colours(image_of(sheet.png()))
    assert seen[255, 255, 255] > 50_000
    assert seen[0, 114, 178] >= 300 * 30 * 1.5**2 * 0.97
    assert image_of(draw()).size == (1.5 * WIDTH, 150)


def test_what_lies_outside_of_a_box_is_not_drawn() -> None:
    sheet = Sheet(50)
    sheet.path([0, 1000], [25, 25], BLUE, 4, within=Box(0, 0, 100, 50))
    image = image_of(sheet.png())
    assert image.getpixel((100, 37)) == (0, 114, 178)
    assert image.crop((155, 0, 1620, 75)).getcolors() == [(1465 * 75, (255, 255, 255))]


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("loss $\\sigma$", "loss $\\sigma$"),
        ("two\nlines\t", "two lines "),
        ("你好 👍🏽", "□□ □□"),
        ("Привет ∑ عربي", "Привет ∑ عربي"),
        ("a\u202eb\x00\ud83d", "a□b□□"),
        ("", ""),
    ],
)
def test_any_text_can_be_drawn(text: str, drawn: str) -> None:
    assert drawable(text) == drawn
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns about a letter that its font does not have
        sheet = Sheet(30)
        assert sheet.text(10, 5, text) == drawn
        sheet.text(500, 5, text, mono=True, anchor="mm")
        assert sheet.png()


def test_a_long_text_is_truncated_to_its_room() -> None:
    sheet = Sheet(30)
    short = sheet.text(0, 0, "a long name " * 50, limit=200)
    assert short.endswith("…")
    assert 150 < sheet.width_of(short) <= 200
    assert sheet.text(0, 0, "fits", limit=200) == "fits"
    assert sheet.text(0, 0, "nothing fits", limit=1) == "…"


def test_letters_of_the_fixed_font_have_one_width() -> None:
    sheet = Sheet(30)
    one = sheet.width_of("0" * 100, 12, mono=True) / 100
    for text in ("iIl1.,' ", "WMmw@%", "ßé¿ñ", "↵⇥␣⟨⟩…□"):
        assert sheet.width_of(text * 10, 12, mono=True) == pytest.approx(len(text) * 10 * one, abs=1)


def test_one_thread_at_a_time_draws() -> None:
    gate = Gate(holds=1)
    first = threading.Thread(target=drawing(gate))
    first.start()
    gate.wait()
    attempt = Attempt(drawing(draw), canvas, "_LOCK")
    assert attempt.waits
    gate.open()
    join(first)
    assert attempt.result() == draw()
    assert drawing(drawing(lambda: 7))() == 7  # a picture may be part of another one
