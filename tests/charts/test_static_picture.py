"""A run as a PNG: every chart is there, with its colours, and nothing that a run holds breaks it."""

from __future__ import annotations

import math

import pytest

from mint_lab.charts.canvas import MUTED
from mint_lab.charts.chart_spec import ChartSpec, LineSpec, charts_of
from mint_lab.charts.colour_scale import blend
from mint_lab.charts.palette import ROLES
from mint_lab.charts.run_data import RatioLimits, run_data
from mint_lab.charts.static_panel import ROW, Panel
from mint_lab.charts.static_picture import run_picture
from mint_lab.recipes.registry import RECIPES

from .runs import PIXELS, Edit, Record, colours, count, image_of, panels, places, run_of

CHARTS = {name: charts_of(recipe.charts) for name, recipe in RECIPES.items()}
LIMITS = RatioLimits(0.8, 1.2)


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


def test_curves_lie_where_their_numbers_are() -> None:
    """An accuracy of 0.25 in training and 0.75 held out, steps 1 to 20.

    The axis goes from -0.03 to 1.03 over 228 pixels, so 0.25 lies at 228 * (1.03 - 0.25) / 1.06 = 167.8, and 0.75 at
    60.2. Steps go from 0 to 20 over 435 pixels, so step 1 lies at 21.75.
    """
    charts = CHARTS["preference"]
    records = [Record(step, {"pair_accuracy": 0.25}, {"pair_accuracy": 0.75}) for step in range(1, 21)]
    drawn = panels(image_of(run_picture(run_data("", records, {}), charts)), charts)
    for role, expected in (("train", 167.8), ("held_out", 60.2)):
        found = places(drawn["pair_accuracy"], ROLES["light"][role])
        assert sum(y for _, y in found) / len(found) == pytest.approx(expected, abs=1)
        assert min(x for x, _ in found) == pytest.approx(21.75, abs=4)  # held-out values have a marker each
        assert max(x for x, _ in found) == 434
    for chart in charts:
        if chart.name != "pair_accuracy":
            assert all(count(colours(drawn[chart.name]), colour) == 0 for colour in ROLES["light"].values())


def test_bars_stand_at_their_bins_with_their_shares() -> None:
    """Of 40 bins from -20 to 20, bin 30 (10 to 11) has 30 pairs and bin 5 (-15 to -14) has 10: 75 % and 25 %."""
    charts = CHARTS["preference"]
    counts = [30 if i == 30 else 10 if i == 5 else 0 for i in range(40)]
    picture = run_picture(run_data("", [Record(1, histograms={"margin": counts})], {}), charts)
    panel = panels(image_of(picture), charts)["margin"]
    heights = {}
    for role, number in (("chosen", 30), ("rejected", 5)):
        found = places(panel, ROLES["light"][role])
        left, right = panel.width * number / 40, panel.width * (number + 1) / 40
        assert left <= min(x for x, _ in found) < max(x for x, _ in found) <= right
        assert max(y for _, y in found) == panel.height - 1, "bars stand on the axis"
        heights[role] = panel.height - min(y for _, y in found)
    assert heights["chosen"] == pytest.approx(3 * heights["rejected"], abs=2)
    assert heights["chosen"] > 0.8 * panel.height


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
    drawn = panels(image_of(run_picture(run_data("", records, {"loss": math.nan}), charts)), charts)
    for name in ("loss", "grad_norm"):  # the two finite values, of steps 4 and 5 of 5
        found = places(drawn[name], ROLES["light"]["train"], 20)
        assert len(found) > 100
        assert min(x for x, _ in found) == pytest.approx(0.8 * drawn[name].width, abs=3)
    only_nan = [Record(1, {"loss": math.nan})]
    assert run_picture(run_data("", only_nan, {}), charts) == run_picture(run_data("", [], {}), charts)


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
    rows = [image.crop((0, round((30 + 18 * i) * PIXELS), 1620, round((48 + 18 * i) * PIXELS))) for i in range(3)]
    for row in rows:  # three changes each, in small grey letters
        assert count(colours(row), MUTED, 60) > 200


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


def test_curves_of_a_long_run_are_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture is drawn on a thread beside training, so its cost must not grow with the run."""
    charts = CHARTS["preference"]
    drawn: list[int] = []
    stroke = Panel.stroke
    monkeypatch.setattr(Panel, "stroke", lambda panel, given: (drawn.append(len(given.x)), stroke(panel, given)))
    monkeypatch.setattr("mint_lab.charts.static_picture.CURVE_POINTS", 50)
    run_picture(run_of(charts, steps=201), charts)
    assert max(drawn) == 41  # buckets of 5 steps: of 4, there would be 51
    assert len(drawn) >= sum(len(chart.lines) for chart in charts)


def test_pictures_stay_small_enough_for_a_notebook() -> None:
    charts = CHARTS["rl"]
    assert len(run_picture(run_of(charts, steps=400, limits=LIMITS), charts)) < 200_000
