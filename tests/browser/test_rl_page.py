"""The page of reinforcement learning: where the loss clips, what is clipped, and what the model answered."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, expect

from .lab import Notebook
from .test_page import check_room, contrast, overflow

Open = Callable[..., Notebook]

TRAINED = """
import mint_lab as ml
lab = ml.Workbench(recipe="rl", loss="ppo", steps=12_800, updates_per_rollout=4, batch_size=8, eval_every=4,
                   learning_rate=2e-3, folder="run")
lab
"""

HOSTILE = """
import random
from dataclasses import replace
from mint_lab.losses import LOSSES
from mint_lab.recipes.record import histogram
from tests.ui.scripted import ScriptedRun, record

TEXT = "<img src=x onerror=window.hacked=1>\\u202egnp.exe\\n</script><b>bold"
def sampled(step):
    rng = random.Random(step)
    rise, fall = ([rng.gauss(shift, 0.15) for _ in range(200)] for shift in (0.05, -0.05))
    samples = [{"source": "training", "prompt": TEXT, "response": TEXT, "reward": 1.0, "advantage": 0.5,
                "tokens": [TEXT, "\\u202e", "", "w" * 10_000, "x"], "ratio": [1.0, 1.5, 0.5, 1e6, 0.0],
                "clipped": [False, True, False, True, False]},
               {"source": "held-out", "prompt": TEXT, "response": TEXT, "reward": 0.0}]
    made = record(step, 400)
    return replace(made, loss_name="ppo", samples=samples, held_out={}, clip=(0.8, 1.2),
                   histograms={"log_ratio/positive": histogram(rise, "log_ratio/positive"),
                               "log_ratio/negative": histogram(fall, "log_ratio/negative")},
                   settings={"learning_rate": 1e-3, **LOSSES["ppo"].config()})
"""
SHOW = """
run = ScriptedRun(400, recipe="rl")
run.loss, run._config = LOSSES["ppo"], LOSSES["ppo"].config()
run.append(*(sampled(step) for step in range(1, 9)))
bench = Bench(run)
bench
"""


def ratios(notebook: Notebook) -> Locator:
    return notebook.chart("log_ratio")


def clipped(notebook: Notebook) -> tuple[float, float]:
    """Percent of the tokens on the ratio chart that are clipped: with A > 0, with A < 0."""
    above, below = (ratios(notebook).get_attribute("data-clipped") or "nan nan").split()
    return float(above), float(below)


def drag(notebook: Notebook, name: str, to: float) -> None:
    """Press on a slider's thumb and move it to share ``to`` of its length; the button stays down."""
    slider = notebook.widget.locator(f"[data-setting='{name}']")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    assert box
    value = float(slider.input_value()) / 200
    middle = box["y"] + box["height"] / 2
    notebook.page.mouse.move(box["x"] + 7 + value * (box["width"] - 14), middle)
    notebook.page.mouse.down()
    notebook.page.mouse.move(box["x"] + 7 + to * (box["width"] - 14), middle, steps=4)


def test_the_limits_follow_a_slider_and_the_clip_follows_the_limits(open_notebook: Open) -> None:
    notebook = open_notebook([TRAINED, "lab.run.settings['clip_low_threshold'], len(lab.run.edits)"]).show()
    expect(notebook.widget.locator(".ml-samples-panel .ml-tokens-note")).to_contain_text("at each evaluation")
    notebook.button("Start").click()
    notebook.await_points("clip_frac", 2 * 9)
    expect(ratios(notebook)).to_have_attribute("data-low", "0.8")
    expect(ratios(notebook)).to_have_attribute("data-high", "1.2")

    drag(notebook, "clip_low_threshold", 0.0)
    # The button is still down: the run has heard of nothing, and the chart shows what would be clipped.
    expect(ratios(notebook)).to_have_attribute("data-low", "0")
    expect(ratios(notebook)).to_have_attribute("data-pending", "true")
    assert notebook.run_cell(1).startswith("(0.8, 0")
    notebook.page.mouse.up()
    marks = notebook.widget.locator(".ml-marks li")
    expect(marks).to_contain_text("clip_low_threshold 0")
    expect(ratios(notebook)).to_have_attribute("data-pending", "false")
    expect(ratios(notebook)).to_have_attribute("data-low", "0")
    expect(notebook.chart("clip_frac")).to_have_attribute("data-marks", "1")

    # No ratio is below 0: tokens that were clipped there are not any more, and the other bound is unchanged.
    shares = "\n".join(
        [
            "records, changed = lab.run.records, lab.run.edits[0].step",
            "low = [r.metrics['clip_frac/low'] for r in records if 'clip_frac/low' in r.metrics]",
            "before = [r.metrics['clip_frac/low'] for r in records[: changed - 1] if 'clip_frac/low' in r.metrics]",
            "after = low[len(before) :]",
            "max(before) > 0.01, len(after) > 6, max(after), records[-1].settings['clip_low_threshold']",
        ]
    )
    changed = int(marks.inner_text().split("from step ")[1].replace(",", ""))
    notebook.await_points("grad_norm", changed + 12)
    assert notebook.replace_cell(1, shares) == "(True, True, 0.0, 0.0)"
    assert clipped(notebook)[1] == 0
    notebook.button("Pause").click()
    notebook.await_status("paused")
    rows = notebook.widget.locator(".ml-samples tbody tr")
    expect(rows.first).to_contain_text("Question: What is")
    sources = notebook.widget.locator("td[data-column='from']")
    notebook.await_that(lambda: set(sources.all_inner_texts()) == {"training", "held-out"}, "responses of both kinds")
    # The responses of the last evaluation may still be on their way, and put others under the mouse.
    made = int(notebook.replace_cell(1, "len(lab.run.records)"))
    evaluated = made - made % 4
    expect(notebook.widget.locator(".ml-samples-step")).to_contain_text(f"of step {evaluated:,}:")
    rows.first.locator(".ml-token").first.hover()
    expect(notebook.widget.get_by_role("tooltip")).to_contain_text("ratio")


@pytest.fixture
def still(open_notebook: Open) -> Notebook:
    """Eight made-up steps of PPO, with hostile samples."""
    from .conftest import SCRIPTED

    notebook = open_notebook([SCRIPTED, HOSTILE, SHOW]).show()
    notebook.command("application:toggle-left-area")
    notebook.await_points("log_ratio", 400)
    return notebook


def test_hostile_samples_are_text(still: Notebook) -> None:
    rows = still.widget.locator(".ml-samples tbody tr")
    expect(rows).to_have_count(2)
    shown = "<img src=x onerror=window.hacked=1>⟨U+202E⟩gnp.exe↵\n</script><b>bold"
    for row in (0, 1):
        assert rows.nth(row).locator("td[data-column='prompt']").inner_text() == shown
    assert rows.nth(1).locator("td[data-column='response']").inner_text() == shown
    expect(rows.nth(0).locator(".ml-token").nth(1)).to_have_text("⟨U+202E⟩")
    assert still.widget.locator("img, script").count() == 0
    assert rows.locator("b").count() == 0
    assert still.page.evaluate("() => window.hacked") is None
    assert rows.nth(0).locator(".ml-token-clipped").count() == 2
    label = rows.nth(0).locator(".ml-token").nth(1).get_attribute("aria-label")
    assert label == "⟨U+202E⟩, ratio 1.5, clipped"
    assert rows.nth(0).locator("td[data-column='advantage']").inner_text() == "+0.5"
    assert overflow(still) == 0


def test_limits_move_by_key_and_entry_and_leave_with_the_loss(still: Notebook) -> None:
    before = clipped(still)
    assert min(before) > 1
    slider = still.widget.locator("[data-setting='clip_high_threshold']")
    slider.focus()
    bars = ratios(still).locator(".barlayer path").count()
    still.page.keyboard.press("ArrowRight")
    expect(ratios(still)).to_have_attribute("data-pending", "true")
    assert float(ratios(still).get_attribute("data-high") or 0) > 1.2
    assert clipped(still)[0] < before[0]
    assert clipped(still)[1] == before[1]
    assert abs(ratios(still).locator(".barlayer path").count() - bars) <= 2
    assert "next update" in "".join(ratios(still).locator(".annotation-text").all_text_contents())
    entry = still.widget.locator("[data-entry='clip_low_threshold']")
    entry.fill("0.5")
    entry.press("Enter")
    expect(ratios(still)).to_have_attribute("data-low", "0.5")
    assert clipped(still)[1] < before[1]
    # Refused: the limit goes back to what acts.
    entry.fill("-1")
    entry.press("Enter")
    expect(still.widget.locator(".ml-setting .ml-note").nth(1)).not_to_be_empty()
    expect(ratios(still)).to_have_attribute("data-low", "0.5")
    still.widget.get_by_label("Loss", exact=True).select_option("importance_sampling")
    expect(ratios(still)).not_to_have_attribute("data-low", "0.5")
    expect(ratios(still)).not_to_have_attribute("data-clipped", re.compile(""))
    expect(ratios(still).locator(".ml-legend")).not_to_contain_text("clipped")


def test_both_themes_and_every_width(still: Notebook) -> None:
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        still.theme(theme)
        for selector in (
            ".ml-samples th",
            ".ml-samples td",
            ".ml-samples-text",
            ".ml-token",
            "[data-name='log_ratio'] b",
        ):
            assert contrast(still, selector) >= 4.5, (theme, selector)
    for width in (560, 900, 2000):
        still.page.set_viewport_size({"width": width, "height": 1000})
        check_room(still, "log_ratio")
