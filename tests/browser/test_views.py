"""Views: several of one run, opened and closed; long runs; the parts of the page alone; text from anywhere."""

from __future__ import annotations

import json
from typing import Any

from playwright.sync_api import Locator, expect

from .conftest import Open
from .lab import Notebook
from .test_page import check_room

LONG = """
from dataclasses import replace
from mint_lab.ui import LiveCharts

def long_run(steps):
    run = ScriptedRun(steps, rate=20)
    made = [record(100 * i + 10, steps) for i in range(steps // 100)]
    made += [record(100 * i + 11, steps) for i in range(steps // 100)]  # without an evaluation
    run.records.extend(replace(made[i // 100 + (steps // 100) * (i % 10 > 0)], step=i + 1) for i in range(steps))
    return run

def size(run):
    charts = LiveCharts(run)
    snapshot = charts._publisher.snapshot()
    charts.close()
    return sum(len(part[key]) for part in snapshot["series"] + snapshot["heats"] for key in ("steps", "values"))
"""
MAIN = ["loss", "pair_accuracy", "mean_margin", "logps", "margin", "grad_norm"]


def drawn(view: Locator) -> dict[str, list[str]]:
    """Every curve and bar of one view."""
    return view.evaluate(
        """(root) => Object.fromEntries([...root.querySelectorAll(".ml-chart")].map((chart) =>
             [chart.dataset.name, [...chart.querySelectorAll(".scatterlayer path, .barlayer path")]
               .map((path) => path.getAttribute("d"))]))"""
    )


def legends(view: Locator) -> list[str]:
    return view.locator(".ml-key").all_inner_texts()


def select(notebook: Notebook, cell: int) -> None:
    notebook.evaluate("(i) => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = i; }", 5, cell)


def test_views_of_one_run_stay_in_step_and_a_new_one_catches_up(scripted: Open) -> None:
    notebook = scripted("ScriptedRun(20_000, rate=60)", "bench")
    views = notebook.page.locator(".mint-lab")
    expect(views).to_have_count(2)
    views.nth(1).get_by_role("button", name="Start").click()
    notebook.await_points("loss", 60)
    # A third one, in a tab of its own beside the notebook.
    panel = notebook.evaluate("() => window.jupyterapp.shell.currentWidget.id")
    select(notebook, 1)
    notebook.command("notebook:create-output-view")
    expect(views).to_have_count(3)
    notebook.await_points("loss", notebook.points("loss") + 20)
    notebook.button("Pause").click()
    notebook.await_status("paused")
    notebook.await_still()
    counts = [json.loads(views.nth(i).evaluate(COUNTS)) for i in range(3)]
    assert counts[0] == counts[1] == counts[2]
    assert legends(views.nth(0)) == legends(views.nth(1)) == legends(views.nth(2))
    first, second = drawn(views.nth(0)), drawn(views.nth(1))
    assert all(first[name] for name in MAIN)
    assert first == second

    # What one view is set to, the other shows.
    views.nth(0).get_by_label("Smoothing of the curves").fill("0")
    expect(views.nth(1).get_by_label("Smoothing of the curves")).to_have_value("0")
    views.nth(1).locator("[data-name='loss'] button.ml-key", has_text="held-out").click()
    expect(views.nth(0).locator("[data-name='loss'] button.ml-key", has_text="held-out")).to_have_attribute(
        "aria-pressed", "false"
    )

    # The tab is closed, the output is cleared and shown again: the same picture, from what the page holds.
    notebook.evaluate(
        """(notebook) => { const { shell } = window.jupyterapp;
             for (const widget of shell.widgets("main")) if (widget.id !== notebook) widget.dispose(); }""",
        5,
        panel,
    )
    expect(views).to_have_count(2)
    notebook.await_still()
    before = drawn(views.nth(0))
    select(notebook, 2)
    notebook.command("notebook:clear-cell-output")
    expect(views).to_have_count(1)
    notebook.command("notebook:run-cell")
    expect(views).to_have_count(2)
    expect(views.nth(1).locator(".scatterlayer path").first).to_be_attached()
    notebook.await_still()
    notebook.await_that(lambda: drawn(views.nth(1)) == before, "the same picture")
    assert drawn(views.nth(0)) == before


COUNTS = """(root) => JSON.stringify([...root.querySelectorAll(".ml-chart")]
  .map((chart) => [chart.dataset.name, chart.dataset.points, chart.dataset.last]))"""


def test_fifty_thousand_steps_are_drawn_from_a_picture_of_fixed_size(scripted: Open) -> None:
    notebook = scripted("ScriptedRun(10)", LONG + "run = long_run(50_000)\nLiveCharts(run)", "size(run)")
    view = notebook.page.locator(".mint-lab").nth(1)
    expect(view.locator("[data-name='grad_norm']")).to_have_attribute("data-points", "50000", timeout=120_000)
    expect(view.locator("[data-name='grad_norm'] .scatterlayer path").first).to_be_attached()
    notebook.await_still()
    paths = drawn(view)
    for name in MAIN:
        assert paths[name], name
        # No path has more corners than a chart has room for.
        assert max(path.count("L") + path.count(",") for path in paths[name]) < 4000, name
    large = int(notebook.run_cell(3))
    short = int(notebook.edit_cell(3, "size(long_run(2_000))"))
    # A curve holds 256 to 512 buckets of 20 bytes, whatever the run; here are 8 in training and 4 in evaluations.
    assert large <= 12 * 512 * 20 + 128 * (8 + 40 * 4)
    assert large < 2 * short


PARTS = """
from dataclasses import replace
import mint_lab.ui as ui
run = ScriptedRun(40_000, rate=60, recipe="rl")
run.set_loss("ppo")
run.warnings.append("chosen became less likely: displacement_frac is 0.14; a lower beta may help")
sample = {"source": "held-out", "prompt": "2+2=", "response": "4", "reward": 1.0}
run.records.append(replace(record(1), samples=[sample]))
ui.RunControls(run)
"""


def test_the_parts_stand_alone_in_cells_of_their_own(open_notebook: Open) -> None:
    parts = ("LossPicker", "Warnings", "SamplesTable", "LiveCharts")
    notebook = open_notebook(
        ["from tests.ui.scripted import ScriptedRun, record" + PARTS, *(f"ui.{part}(run)" for part in parts)]
    ).show()
    notebook.command("application:toggle-left-area")

    def part(label: str) -> Locator:
        return notebook.page.get_by_role("region", name=label, exact=True)

    controls, loss, warnings, samples, charts = map(
        part, ("Run controls", "Loss", "Warnings", "Responses", "Live charts")
    )
    expect(notebook.page.locator(".mint-lab")).to_have_count(5)
    expect(samples.locator("tbody tr")).to_contain_text("2+2=")
    controls.get_by_role("button", name="Start").click()
    expect(charts.locator("[data-name='grad_norm'] .scatterlayer path").first).to_be_attached()
    expect(warnings).to_contain_text("displacement_frac is 0.14")
    loss.get_by_label("Loss", exact=True).select_option("dro")
    marks = charts.locator(".ml-marks li")
    expect(marks.last).to_contain_text("dro")
    loss.locator("[data-setting='beta']").focus()
    notebook.page.keyboard.press("ArrowRight")
    expect(marks.last).to_contain_text("beta")
    # A refusal is told where it was asked for.
    entry = loss.locator("[data-entry='learning_rate']")
    entry.fill("-1")
    entry.press("Enter")
    expect(loss.locator(".ml-note").first).to_contain_text("expected a number from 0 up")
    controls.get_by_role("button", name="Stop").click()
    expect(controls.locator(".ml-status")).to_have_text("stopped")
    expect(controls.get_by_role("button", name="New run")).to_have_count(0)
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        notebook.theme(theme)
        notebook.run_cell(2)  # a new one reads the theme that is set
        for label in (controls, loss, warnings, samples, charts):
            expect(label).to_have_attribute("data-theme", theme.split()[-1].lower())


HOSTILE = [
    "<img src=x onerror=window.hacked=1>",
    "</script><script>window.hacked=1</script>",
    "\u202egnp.exe",
    "t" * 10_000,
    "👩‍👩‍👧 \U0001f600",
]
ATTACK = """
from dataclasses import replace
from mint_lab.losses import LOSSES, LossSpec, Param
from tests.ui.scripted import Failed
texts = TEXTS
for i, text in enumerate(texts):
    LOSSES.register(LossSpec(name=text, family="custom", fn=lambda data, logprobs: None, summary=text,
                             formula=[text, r"\\\\href{javascript:window.hacked=1}{x}", r"\\\\htmlData{a=b}{y}",
                                      r"\\\\includegraphics{https://example.org/x.png}", r"\\\\frac{"][i],
                             paper="javascript:window.hacked=1",
                             params=(Param("beta", 1.0, 0.0, 2.0, doc=text),)))
run = ScriptedRun(400, **{text: 1.0 for text in texts})
run.append(*(record(step, 400, **{text: step / 9 for text in texts}) for step in range(1, 9)))
run.append(replace(record(9), warnings=texts[:4], loss_name=texts[0]))
run.loss, run._config = LOSSES[texts[0]], {"beta": 1.0}
run.edits.extend(Edit(4, "loss", text) for text in texts)
run.error = Failed("\\n".join(texts), line=2, index=3, loss=texts[0],
                   traceback="\\n".join(f"-->   {i} {text}" for i, text in enumerate(reversed(texts))))
run.status = "paused"
bench = Bench(run, base_model=texts[0], data=texts[1])
bench
"""


def test_text_from_anywhere_is_text(open_notebook: Open) -> None:
    from .conftest import SCRIPTED

    cell = "from mint_lab.recipes.record import Edit\n" + ATTACK.replace("TEXTS", repr(HOSTILE))
    notebook = open_notebook([SCRIPTED, cell]).show()
    notebook.command("application:toggle-left-area")
    widget = notebook.widget
    notebook.await_points("loss", 9)
    widget.get_by_text("More metrics").click()
    notebook.button("All losses").click()
    for details in widget.locator("details:not([open]) summary").all():
        if details.is_visible():
            details.click()
    for text in HOSTILE[:3]:
        expect(widget.locator(".ml-warnings")).to_contain_text(text)
        expect(widget.locator(".ml-failure-text")).to_contain_text(text)
        expect(widget.locator(".ml-failure pre")).to_contain_text(text)
        expect(widget.locator(".ml-marks")).to_contain_text(text)
        expect(widget.locator(".ml-cards h4", has_text=text).first).to_be_visible()
        expect(notebook.chart(text).locator(".ml-title")).to_have_text(text)
    # A chart of a hostile metric is pointed at, zoomed, switched and taken away like any other.
    chart = notebook.chart(HOSTILE[0])
    chart.locator(".ml-plot").hover()
    chart.locator("button.ml-key").first.click()
    with notebook.page.expect_download() as taken:
        widget.get_by_role("group", name="Download").get_by_role("button", name="CSV").click()
    assert taken.value.suggested_filename == "preference-_img_src_x_onerror_window_hacked_1_-step9.csv"
    # It has no source of its own: told in words.
    widget.locator(".ml-picker").get_by_role("button", name="Edit as a cell").click()
    expect(widget.locator(".ml-line")).to_have_attribute("data-kind", "warning")
    for width in (700, 1400):
        notebook.page.set_viewport_size({"width": width, "height": 1100})
        check_room(notebook)
        notebook.await_that(lambda: too_wide(widget) == [], "every part lies in the widget")
    assert widget.locator("img:not(.ml-heat), script, iframe, object, [onerror]").count() == 0
    links: list[Any] = [link.get_attribute("href") for link in widget.locator("a").all()]
    assert [link for link in links if link and not link.startswith("https://")] == []
    assert notebook.page.evaluate("() => window.hacked") is None


def too_wide(widget: Locator) -> list[str]:
    """Parts that stick out of the widget and cannot be scrolled to."""
    return widget.evaluate(
        """(root) => { const right = root.getBoundingClientRect().right + 1;
             const clipped = (node) => { for (let up = node.parentElement; up && up !== root; up = up.parentElement)
               if (getComputedStyle(up).overflowX !== "visible") return true; return false; };
             return [...root.querySelectorAll("*")].filter((node) => node.getBoundingClientRect().right > right
               && !clipped(node) && !(node instanceof SVGElement)).map((node) => node.className || node.localName); }"""
    )
