"""Several runs as a PNG."""

from __future__ import annotations

from mint_lab.charts.chart_spec import charts_of
from mint_lab.charts.colour_scale import blend
from mint_lab.charts.palette import ROLES, RUNS
from mint_lab.charts.run_data import run_data
from mint_lab.charts.static_comparison import CosineTable, comparison_picture
from mint_lab.recipes.registry import RECIPES

from .runs import Record, colours, count, image_of, run_of

CHARTS = charts_of(RECIPES["preference"].charts)
TABLE = CosineTable(["a", "b"], [[1.0, -1.0], [-1.0, None]])


def test_every_run_is_drawn_in_its_colour() -> None:
    runs = [run_of(CHARTS, 30 + n, label=f"run {n} $x$ <b> \u202e你好") for n in range(6)]
    for number, run in enumerate(runs):  # apart from each other, so that no curve hides another
        for curves in (run.training, run.held_out):
            for steps, values in curves.values():
                values[:] = [0.1 * number + 0.01 * step for step in steps]
    seen = colours(image_of(comparison_picture(runs, CHARTS)))
    for colour in RUNS["light"]:
        assert count(seen, colour) > 300, colour


def test_more_runs_than_colours_can_be_drawn() -> None:
    assert image_of(comparison_picture([run_of(CHARTS, 3, label=f"run {n}") for n in range(14)], CHARTS)).width == 1620


def test_a_metric_that_only_one_run_has_is_drawn() -> None:
    runs = [run_of(CHARTS, label="a"), run_of(CHARTS, label="b", margin_std=1.0)]
    plain, more = (image_of(comparison_picture(some, CHARTS)) for some in (runs[:1], runs))
    assert more.height > plain.height
    below = colours(more.crop((0, plain.height, 400, more.height)))
    assert count(below, RUNS["light"][1], 40) > 50


def test_runs_without_steps_are_a_legend() -> None:
    image = image_of(comparison_picture([run_data("a", [], {}), run_data("b", [], {})], CHARTS))
    assert image.height < 120
    assert len(colours(image)) > 2
    assert image_of(comparison_picture([], CHARTS)).width == 1620


def test_cosines_stand_below_in_the_colour_of_their_sign() -> None:
    runs = [run_of(CHARTS, label="a")]
    bare, full = (image_of(comparison_picture(runs, CHARTS, table)) for table in (None, TABLE))
    assert full.height > bare.height + 100
    below = colours(full.crop((0, bare.height, full.width, full.height)))
    for role in ("train", "rejected"):
        assert count(below, blend(ROLES["light"][role], 0.55)) > 2000


def test_a_comparison_without_evaluations_is_drawn_from_the_batches() -> None:
    records = [Record(step, {"loss": 1.0 / step}) for step in range(1, 20)]
    image = image_of(comparison_picture([run_data("a", records, {})], CHARTS))
    assert count(colours(image), RUNS["light"][0]) > 100
