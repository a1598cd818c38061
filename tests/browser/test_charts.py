"""Every control of the charts, on a still run whose numbers are known: one notebook for all tests."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pandas as pd
import plotly.io
import pytest
from PIL import Image
from playwright.sync_api import Locator, expect

from mint_lab.metrics.registry import METRICS

from .conftest import Open, opener
from .lab import Lab, Notebook
from .test_page import check_room, contrast

STILL = """
import dataclasses
import random
import traitlets
from mint_lab.recipes.record import Edit
from mint_lab.ui import LiveCharts
from tests.ui.scripted import ScriptedRun, record

rng = random.Random(0)
run = ScriptedRun(400)
losses = {step: "pairwise_preference" if step < 101 else "hinge" for step in range(1, 401)}
run.append(*(dataclasses.replace(record(step, 400, rng), loss_name=losses[step]) for step in losses))
run.records[-1].histograms["margin"][-1] += 3
run.edits.extend([Edit(101, "loss", "hinge v1"), Edit(250, "setting", "beta 2")])
run.status = "finished"
charts = LiveCharts(run)
charts
"""
READ = """
import json
from mint_lab.recipes.record import HISTOGRAM_EDGES
def at(step):
    made = run.records[step - 1]
    held = [r for r in run.records[:step] if r.held_out][-1]
    ends = [held.histograms["margin"][i] > 0 for i in (0, -1)]
    bins = list(zip(held.histograms["margin"], HISTOGRAM_EDGES["margin"]))
    above = 100 * sum(count for count, low in bins if low >= 0) / sum(count for count, _ in bins)
    return {**made.metrics, **{f"held_out/{k}": v for k, v in held.held_out.items()}, "above 0": above, "ends": ends}
print(json.dumps({str(step): at(step) for step in (100, 200, 300, 400)}))
"""
CSV = "from mint_lab.runs.store import history_frame\nprint(history_frame(run.records).to_csv())"
STEPS = ["loss", "pair_accuracy", "mean_margin", "logps", "grad_norm"]


@pytest.fixture(scope="module")
def notebook(lab: Lab, numbers: Iterator[int], request: pytest.FixtureRequest) -> Iterator[Notebook]:
    with opener(lab, numbers, request.session) as open_notebook:
        yield _shown(open_notebook)


def _shown(open_notebook: Open) -> Notebook:
    notebook = open_notebook([STILL, READ, CSV]).show()
    notebook.command("application:toggle-left-area")
    notebook.await_points("loss", 440)
    return notebook


@pytest.fixture(scope="module")
def numbers_at(notebook: Notebook) -> dict[str, dict[str, Any]]:
    """What the run recorded, by step."""
    return json.loads(notebook.run_cell(1))


@pytest.fixture(autouse=True)
def rest(notebook: Notebook) -> Iterator[None]:
    yield
    notebook.page.mouse.move(5, 5)
    notebook.page.keyboard.press("Escape")
    expect(notebook.widget.locator(".ml-cursor:visible")).to_have_count(0)


def plot(notebook: Notebook, name: str) -> Locator:
    return notebook.chart(name).locator(".ml-plot")


def values(notebook: Notebook, name: str) -> dict[str, float]:
    """The legend of a chart as it stands."""
    keys = notebook.chart(name).locator(".ml-key")
    labels = keys.locator(".ml-key-label").all_inner_texts()
    texts = keys.locator(".ml-value").all_inner_texts()
    return {label: float(text.rstrip(" %")) for label, text in zip(labels, texts, strict=True) if text != "off"}


def pointed_at(notebook: Notebook, name: str) -> int | None:
    text = notebook.chart(name).locator(".ml-unit").inner_text()
    return int(text.removeprefix("step ").replace(",", "")) if text.startswith("step ") else None


def axes(notebook: Notebook) -> dict[str, list[float]]:
    """The steps that each chart over steps shows."""
    return notebook.page.evaluate(
        """(names) => Object.fromEntries(names.map((name) =>
             [name, document.querySelector(`.mint-lab [data-name="${name}"] .ml-plot`)._fullLayout.xaxis.range]))""",
        STEPS,
    )


def x_of(notebook: Notebook, name: str, step: float) -> tuple[float, float]:
    """Where ``step`` lies on the screen, at half the height of the plot."""
    place: Any = plot(notebook, name).evaluate(
        """(plot, step) => { const box = plot.getBoundingClientRect(), axis = plot._fullLayout.xaxis;
             return [box.left + axis._offset + axis.d2p(step), box.top + box.height / 2]; }""",
        step,
    )
    return place[0], place[1]


def test_pointing_at_one_chart_shows_the_numbers_of_all(
    notebook: Notebook, numbers_at: dict[str, dict[str, Any]]
) -> None:
    latest = values(notebook, "loss")
    for step in (100, 300):
        notebook.page.mouse.move(*x_of(notebook, "grad_norm", step))
        expect(notebook.chart("loss").locator(".ml-unit")).to_have_text(f"step {step}")
        wanted = numbers_at[str(step)]
        assert {pointed_at(notebook, name) for name in STEPS} == {step}
        for chart, label, metric in (
            ("loss", "training", "loss"),
            ("loss", "held-out", "held_out/loss"),
            ("pair_accuracy", "held-out", "held_out/pair_accuracy"),
            ("mean_margin", "training", "mean_margin"),
            ("logps", "chosen", "logps/chosen"),
            ("logps", "rejected", "logps/rejected"),
            ("grad_norm", "training", "grad_norm"),
        ):
            assert values(notebook, chart)[label] == pytest.approx(wanted[metric], rel=2e-3), (step, chart, label)
        expect(notebook.widget.locator(".ml-cursor:visible")).to_have_count(5)
    notebook.page.mouse.move(5, 5)
    expect(notebook.chart("loss").locator(".ml-unit")).to_have_text("nats")
    assert values(notebook, "loss") == latest
    expect(notebook.widget.locator(".ml-cursor:visible")).to_have_count(0)


def test_the_latest_numbers_are_those_at_the_last_step(
    notebook: Notebook, numbers_at: dict[str, dict[str, Any]]
) -> None:
    latest = {name: values(notebook, name) for name in STEPS}
    for name, metric in (("loss", "loss"), ("grad_norm", "grad_norm"), ("mean_margin", "mean_margin")):
        assert latest[name]["training"] == pytest.approx(numbers_at["400"][metric], rel=2e-3), name
    # The mouse is on no step: a key is, and goes to the end.
    plot(notebook, "loss").focus()
    notebook.page.keyboard.press("ArrowLeft")
    notebook.page.keyboard.press("PageDown")
    expect(notebook.chart("loss").locator(".ml-unit")).to_have_text("step 400")
    assert {name: values(notebook, name) for name in STEPS} == latest


def test_the_title_of_a_chart_defines_its_metric(notebook: Notebook) -> None:
    title = notebook.chart("pair_accuracy").locator(".ml-title")
    expect(title).to_have_attribute("title", METRICS["pair_accuracy"].definition)
    notebook.widget.get_by_text("More metrics").click()
    title = notebook.chart("displacement_frac").locator(".ml-title")
    expect(title).to_have_attribute("title", METRICS["displacement_frac"].definition)
    notebook.widget.get_by_text("More metrics").click()
    expect(title).to_be_hidden()


def test_the_ends_of_the_margins_say_that_they_are_open(
    notebook: Notebook, numbers_at: dict[str, dict[str, Any]]
) -> None:
    ticks = notebook.chart("margin").locator(".xtick text")
    below, above = numbers_at["400"]["ends"]
    assert above
    low = "\N{MINUS SIGN}20"
    expect(ticks).to_have_text([f"≤ {low}" if below else low, "\N{MINUS SIGN}10", "0", "10", "≥ 20"])
    toggle = notebook.chart("margin").get_by_role("button", name="over time")
    toggle.click()
    expect(notebook.chart("margin").locator(".ytick text").last).to_have_text("≥ 20")
    toggle.click()
    expect(ticks.last).to_have_text("≥ 20")


def test_arrow_keys_walk_through_the_steps(notebook: Notebook, numbers_at: dict[str, dict[str, Any]]) -> None:
    unit = notebook.chart("mean_margin").locator(".ml-unit")
    plot(notebook, "loss").focus()
    notebook.page.keyboard.press("ArrowLeft")
    expect(unit).to_have_text("step 396")  # a hundredth of the axis at a time, from its right end
    for _ in range(4):
        notebook.page.keyboard.press("ArrowLeft")
    expect(unit).to_have_text("step 380")
    for _ in range(2):
        notebook.page.keyboard.press("PageUp")
    expect(notebook.chart("grad_norm").locator(".ml-unit")).to_have_text("step 300")
    found = values(notebook, "grad_norm")["training"]
    assert found == pytest.approx(numbers_at["300"]["grad_norm"], rel=2e-3)
    label = plot(notebook, "loss").get_attribute("aria-label") or ""
    assert label.startswith("loss, step 300: training ")
    notebook.page.keyboard.press("ArrowRight")
    expect(unit).to_have_text("step 304")
    notebook.page.keyboard.press("Escape")
    expect(unit).to_have_text("nats")
    # The keys moved nothing else.
    expect(plot(notebook, "loss")).to_be_focused()


def test_a_zoom_is_that_of_every_chart_and_a_double_click_ends_it(notebook: Notebook) -> None:
    whole = axes(notebook)
    assert set(map(tuple, whole.values())) == {(0, 400)}
    (left, y), (right, _) = x_of(notebook, "mean_margin", 100), x_of(notebook, "mean_margin", 200)
    notebook.page.mouse.move(left, y)
    notebook.page.mouse.down()
    notebook.page.mouse.move((left + right) / 2, y, steps=3)
    notebook.page.mouse.move(right, y, steps=3)
    notebook.page.mouse.up()
    notebook.page.wait_for_function(
        """(names) => names.every((name) => document.querySelector(`.mint-lab [data-name="${name}"] .ml-plot`)
             ._fullLayout.xaxis.range[1] < 250)""",
        arg=STEPS,
    )
    for name, (low, high) in axes(notebook).items():
        assert (low, high) == pytest.approx((100, 200), abs=3), name
    # The vertical axis fits what is left to see: the first margins lie outside.
    low, _ = plot(notebook, "mean_margin").evaluate("(plot) => plot._fullLayout.yaxis.range")
    assert low >= 2

    def clicked() -> bool:
        notebook.page.mouse.dblclick(*x_of(notebook, "grad_norm", 150))
        notebook.await_frames()
        return axes(notebook) == whole

    # On a busy machine the second click may come too late for plotly, as a person's may.
    notebook.await_that(clicked, "the whole axis in every chart")


def test_a_logarithmic_axis_is_offered_where_all_is_positive(notebook: Notebook) -> None:
    def axis() -> str:
        return plot(notebook, "loss").evaluate("(plot) => plot._fullLayout.yaxis.type")

    offered = {name: notebook.chart(name).get_by_role("button", name="log").is_visible() for name in STEPS}
    # Accuracy has an axis of its own, log-probabilities are negative.
    assert offered == {**dict.fromkeys(STEPS, True), "pair_accuracy": False, "logps": False}
    toggle = notebook.chart("loss").get_by_role("button", name="log")
    toggle.click()
    expect(toggle).to_have_attribute("aria-pressed", "true")
    notebook.await_still(24)
    assert axis() == "log"
    low, high = plot(notebook, "loss").evaluate("(plot) => plot._fullLayout.yaxis.range")
    assert -2.5 < low < high < 0.3  # powers of ten around 0.01 to 1
    toggle.click()
    expect(toggle).to_have_attribute("aria-pressed", "false")
    notebook.await_still(24)
    assert axis() == "linear"


def test_a_key_of_the_legend_switches_its_curve(notebook: Notebook) -> None:
    before = notebook.drawn()["loss"]
    key = notebook.chart("loss").locator("button.ml-key", has_text="training")
    key.focus()
    notebook.page.keyboard.press("Enter")
    expect(key).to_have_attribute("aria-pressed", "false")
    expect(key.locator(".ml-value")).to_have_text("off")
    notebook.await_still(24)
    assert len(notebook.drawn()["loss"]) < len(before)
    key.click()
    expect(key).to_have_attribute("aria-pressed", "true")
    notebook.await_still(24)
    assert notebook.drawn()["loss"] == before


def test_smoothing_changes_the_strong_line_and_can_be_switched_off(notebook: Notebook) -> None:
    before = notebook.drawn()["grad_norm"]
    slider = notebook.widget.get_by_label("Smoothing of the curves")
    slider.fill("3")
    strong = redrawn(notebook, before)
    assert [a == b for a, b in zip(before, strong, strict=True)].count(False) == 1
    slider.fill("0")
    raw = redrawn(notebook, strong)
    assert len(raw) == len(before) - 1
    slider.fill("1")
    assert redrawn(notebook, raw) == before


def redrawn(notebook: Notebook, old: list[str]) -> list[str]:
    """The curves of the last chart, once they are others than ``old`` and stay."""
    notebook.await_that(lambda: notebook.drawn()["grad_norm"] != old, "curves that were redrawn")
    notebook.await_still(24)
    return notebook.drawn()["grad_norm"]


def test_a_chart_is_shown_large_and_small_again(notebook: Notebook) -> None:
    chart = notebook.chart("logps")
    small = chart.bounding_box()
    assert small is not None
    button = chart.locator(".ml-enlarge")
    button.focus()  # the keyboard reaches it without a mouse over the chart
    notebook.page.keyboard.press("Enter")
    expect(button).to_have_attribute("aria-pressed", "true")
    notebook.page.wait_for_function(
        "([name, width]) => document.querySelector(`.mint-lab [data-name='${name}'] .main-svg`)?.clientWidth > width",
        arg=["logps", 2 * small["width"]],
    )
    large = chart.bounding_box()
    assert large is not None
    assert large["width"] > 2.5 * small["width"]
    assert large["height"] > 1.4 * small["height"]
    notebook.page.keyboard.press("Enter")
    expect(button).to_have_attribute("aria-pressed", "false")
    check_room(notebook)


def test_margins_over_time_are_a_map_with_the_shares_of_each_step(
    notebook: Notebook, numbers_at: dict[str, dict[str, Any]]
) -> None:
    margins = notebook.chart("margin")
    latest = values(notebook, "margin")
    toggle = margins.get_by_role("button", name="over time")
    toggle.click()
    expect(toggle).to_have_attribute("aria-pressed", "true")
    expect(margins.locator(".heatmaplayer image")).to_have_count(1)
    assert int(margins.get_attribute("data-points") or 0) == 40  # evaluations, in as many columns
    notebook.page.mouse.move(*x_of(notebook, "loss", 100))
    expect(margins.locator(".ml-unit")).to_have_text("step 100")
    early = values(notebook, "margin")
    assert early["above 0"] == pytest.approx(numbers_at["100"]["above 0"], abs=0.51)
    assert early["below 0"] == 100 - early["above 0"]
    assert early != latest
    notebook.page.mouse.move(*x_of(notebook, "margin", 399))
    expect(notebook.chart("loss").locator(".ml-unit")).to_have_text("step 399")
    assert values(notebook, "margin") == latest
    toggle.click()
    expect(margins.locator(".heatmaplayer image")).to_have_count(0)
    assert margins.locator(".barlayer path").count() > 5


def download(notebook: Notebook, name: str) -> tuple[str, bytes]:
    with notebook.page.expect_download() as taken:
        notebook.widget.get_by_role("group", name="Download").get_by_role("button", name=name).click()
    return taken.value.suggested_filename, taken.value.path().read_bytes()


def test_the_charts_can_be_taken_away(notebook: Notebook) -> None:
    name, data = download(notebook, "PNG")
    assert name == "preference-hinge-step400.png"  # the loss that made the last step, not the one that is chosen
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    box = notebook.widget.locator(".ml-grid").first.bounding_box()
    assert box is not None
    assert picture.width == pytest.approx(2 * box["width"], abs=4)
    colours = {colour for _, colour in picture.getcolors(1 << 24) or []}
    # Curves in the page's colours, not an empty frame.
    for wanted in ((0x00, 0x72, 0xB2), (0xE6, 0x9F, 0x00), (0x00, 0x9E, 0x73), (0xD5, 0x5E, 0x00)):
        assert wanted in colours
    assert (255, 255, 255) in colours

    name, data = download(notebook, "CSV")
    assert name.endswith("step400.csv")
    shown = pd.read_csv(io.BytesIO(data), index_col=0)
    wanted_frame = pd.read_csv(io.StringIO(notebook.run_cell(2)), index_col=0)
    pd.testing.assert_frame_equal(shown, wanted_frame)
    assert len(shown) == 400

    name, data = download(notebook, "plotly")
    assert name.endswith("step400.plotly.json")
    figure: Any = plotly.io.from_json(data.decode())
    held_out = next(trace for trace in figure.data if trace.name == "held-out")
    assert list(held_out.x) == list(range(10, 401, 10))


def test_the_controls_are_legible_in_both_themes(notebook: Notebook) -> None:
    selectors = (".ml-toggle:not([hidden])", ".ml-downloads .ml-toggle", ".ml-smoothing", "button.ml-key", ".ml-unit")
    notebook.chart("loss").get_by_role("button", name="log").click()
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        notebook.theme(theme)
        for selector in selectors:
            assert contrast(notebook, selector) >= 4.5, (theme, selector)
    notebook.chart("loss").get_by_role("button", name="log").click()
    check_room(notebook)
