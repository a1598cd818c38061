"""A run as a PNG: every chart is there, with its colours, and nothing that a run holds breaks it."""

from __future__ import annotations

import math
import time

import pytest
from PIL import Image

from mint_lab.charts.chart_spec import ChartSpec, LineSpec, charts_of
from mint_lab.charts.colour_scale import blend
from mint_lab.charts.palette import ROLES
from mint_lab.charts.run_data import RatioLimits, run_data
from mint_lab.charts.static_panel import ROW, placed
from mint_lab.charts.static_picture import run_picture
from mint_lab.recipes.registry import RECIPES

from .runs import Edit, Record, colours, count, image_of, run_of

CHARTS = {name: charts_of(recipe.charts) for name, recipe in RECIPES.items()}
LIMITS = RatioLimits(0.8, 1.2)
PIXELS = 1.5  # of a unit


def panels(image: Image.Image, charts: tuple[ChartSpec, ...], top: float = 30) -> dict[str, Image.Image]:
    """The part of the picture with the curves of each chart."""
    frames, _ = placed([2 if chart.kind == "ratios" else 1 for chart in charts], top)
    return {
        chart.name: image.crop(
            [round(PIXELS * v) for v in (f.left + 56, f.top + 52, f.left + f.width - 14, f.top + f.height - 26)]
        )
        for chart, f in zip(charts, frames, strict=True)
    }


@pytest.mark.parametrize("recipe", CHARTS)
def test_every_chart_of_every_recipe_is_drawn(recipe: str) -> None:
    charts = CHARTS[recipe]
    image = image_of(run_picture(run_of(charts, limits=LIMITS), charts, "a loss v1, step 30 of 30"))
    assert image.width == 1620
    for (name, panel), chart in zip(panels(image, charts).items(), charts, strict=True):
        seen = colours(panel)
        for line in chart.lines:
            assert count(seen, ROLES["light"][line.role]) > 20, (name, line.label)


@pytest.mark.parametrize("recipe", CHARTS)
def test_a_run_without_numbers_has_empty_charts(recipe: str) -> None:
    charts = CHARTS[recipe]
    image = image_of(run_picture(run_data("", [], {}), charts))
    for panel in panels(image, charts).values():
        assert colours(panel).keys() - {(255, 255, 255)}  # the words "no data yet" and a grid
    for colour in ROLES["light"].values():
        assert count(colours(image), colour, 20) == 0


def test_the_curves_move_when_the_numbers_do() -> None:
    charts = CHARTS["preference"]
    one, other = (run_picture(run_of(charts, steps=30, loss=value), charts) for value in (1.0, 2.0))
    assert one != other


@pytest.mark.parametrize("steps", [1, 2, 3000])
def test_a_run_of_any_length_can_be_drawn(steps: int) -> None:
    charts = CHARTS["preference"]
    image = image_of(run_picture(run_of(charts, steps), charts))
    seen = colours(panels(image, charts)["loss"])
    assert sum(count(seen, ROLES["light"][role], 20) for role in ("train", "held_out")) > 30


def test_numbers_that_are_none_or_huge_do_not_stop_it() -> None:
    charts = CHARTS["preference"]
    values = [math.nan, math.inf, -math.inf, 1e300, -1e-300]
    records = [Record(i + 1, {"loss": v, "grad_norm": v, "pair_accuracy": v}) for i, v in enumerate(values)]
    assert image_of(run_picture(run_data("", records, {"loss": math.nan}), charts))
    only_nan = [Record(1, {"loss": math.nan})]
    assert image_of(run_picture(run_data("", only_nan, {}), charts))


def test_what_no_chart_shows_stands_in_small_below() -> None:
    charts = CHARTS["sft"]
    plain = image_of(run_picture(run_of(charts), charts))
    more = image_of(run_picture(run_of(charts, margin_std=2.0), charts))
    assert more.height > plain.height
    assert count(colours(more.crop((0, plain.height, 270, more.height))), ROLES["light"]["train"], 20) > 100


def test_changes_are_marked_and_named() -> None:
    charts = CHARTS["preference"]
    changes = [Edit(10, "setting", "learning_rate 0.001"), Edit(20, "loss", "my $loss_1$ v2 \u202e<b>" * 9)]
    plain = image_of(run_picture(run_of(charts), charts))
    marked = image_of(run_picture(run_of(charts, changes=changes), charts))
    assert marked.height == plain.height + round(18 * PIXELS)  # one line says what changed
    before, after = panels(plain, charts)["grad_norm"], panels(marked, charts, 48)["grad_norm"]
    x = round((10 - 0.5) / 30 * after.width)
    dark = [sum(after.getpixel((x + d, y))[0] < 160 for y in range(after.height)) for d in (-1, 0, 1)]  # type: ignore[index]
    assert max(dark) > 20
    assert before.size == after.size


def test_many_changes_are_not_all_listed() -> None:
    charts = CHARTS["sft"]
    changes = [Edit(step, "setting", f"beta {step}") for step in range(1, 30)]
    image = image_of(run_picture(run_of(charts, changes=changes), charts))
    assert image.height == round((30 + 3 * 18 + ROW) * PIXELS)


def test_smoothing_restarts_with_another_loss() -> None:
    """A loss of 100 gives way to one of 0: a smoothing that does not restart comes down slowly."""
    records = [Record(step, {"loss": 100.0 if step <= 50 else 0.0}) for step in range(1, 101)]
    charts = charts_of([ChartSpec("loss", lines=(LineSpec("loss"),))])
    image = image_of(run_picture(run_data("", records, {}, [Edit(51, "loss", "other v1")]), charts))
    panel = panels(image, charts, 48)["loss"]
    after = panel.crop((round(0.53 * panel.width), 0, panel.width, round(0.9 * panel.height)))
    assert count(colours(after), ROLES["light"]["train"]) == 0


def test_ratios_are_hatched_where_the_loss_clips_them() -> None:
    counts = [0] * 41
    counts[20], counts[32] = 20, 20
    mirrored = counts[::-1]
    charts = CHARTS["rl"]
    record = Record(3, histograms={"log_ratio/positive": counts, "log_ratio/negative": mirrored})

    def seen(limits: RatioLimits | None) -> dict[tuple[int, int, int], int]:
        image = image_of(run_picture(run_data("", [record], {}, (), limits), charts))
        return colours(panels(image, charts)["log_ratio"])

    ppo, cispo, free = seen(LIMITS), seen(RatioLimits(0.8, 1.2, both=True)), seen(None)
    for colour, ground in (
        (colour, blend(colour, 0.12)) for colour in (ROLES["light"]["chosen"], ROLES["light"]["rejected"])
    ):
        areas = [count(found, ground) for found in (ppo, cispo, free)]
        assert areas[0] > 5000
        assert areas[1] > 1.5 * areas[0]  # both sides of both signs
        assert areas[2] < 0.05 * areas[0]
        # Hatching leaves less of the full colour than bars that all get through.
        assert 0 < count(ppo, colour) < 0.8 * count(free, colour)


def test_drawing_takes_little_of_a_training_threads_time() -> None:
    """Processor time of the best of three: the picture is drawn on a thread beside training."""
    charts = CHARTS["rl"]
    run = run_of(charts, steps=400, limits=LIMITS)
    best = math.inf
    for _ in range(3):
        start = time.thread_time()
        run_picture(run, charts)
        best = min(best, time.thread_time() - start)
    assert best < 1.0


def test_pictures_stay_small_enough_for_a_notebook() -> None:
    charts = CHARTS["rl"]
    assert len(run_picture(run_of(charts, steps=400, limits=LIMITS), charts)) < 200_000
