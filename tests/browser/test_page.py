"""The page on a scripted run: every control and every state, without a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nbformat
from playwright.sync_api import expect

from .lab import Lab, Notebook

Open = Callable[..., Notebook]
MAIN = ["loss", "pair_accuracy", "mean_margin", "logps", "margin", "grad_norm"]


def test_start_moves_every_chart_to_the_end(scripted: Open, lab: Lab) -> None:
    # Slow until a cell has seen it run, however long that takes.
    notebook = scripted("ScriptedRun(150, rate=5)", "if run.records:\n    run._rate = 60\nrun.status")
    expect(notebook.widget.locator(".ml-empty")).to_have_text("Press Start and watch the model learn")
    assert [notebook.points(name) for name in MAIN] == [0] * 6
    notebook.button("Start").click()
    notebook.await_points("loss", 20)
    notebook.button("All losses").click()
    expect(notebook.widget.get_by_role("region", name="All losses")).to_be_visible()
    assert notebook.run_cell(2) == "'running'"  # another cell runs meanwhile
    notebook.await_end()
    # What was open stays open when the output is displayed again.
    expect(notebook.widget.get_by_role("region", name="All losses")).to_be_visible()
    notebook.button("All losses").click()
    notebook.await_points("loss", 165)  # 150 training, 15 held-out
    notebook.await_still()
    drawn = notebook.drawn()
    for name in MAIN:
        assert notebook.points(name) > 0, name
        assert drawn[name], name
    assert float(notebook.chart("pair_accuracy").get_attribute("data-last") or 0) > 0.85
    expect(notebook.widget.locator(".ml-line")).to_contain_text("Held-out pair_accuracy 0.710 → 0.969")
    progress = notebook.widget.get_by_role("progressbar")
    assert (progress.get_attribute("aria-valuenow"), progress.get_attribute("aria-valuemax")) == ("150", "150")
    # The notebook that is saved now carries a picture for readers without a kernel.
    notebook.command("docmanager:save")
    saved = nbformat.read(lab.root / notebook.name, as_version=4)
    assert len(saved.cells[1].outputs) == 1
    assert {"image/png", "text/plain"} <= set(saved.cells[1].outputs[0].data)


def test_pause_step_resume_and_stop(scripted: Open) -> None:
    notebook = scripted("ScriptedRun(20_000, rate=40)")
    for name, enabled in (("Start", True), ("Step", True), ("Stop", True)):
        expect(notebook.button(name)).to_be_enabled(enabled=enabled)
    notebook.button("Step").click()
    notebook.await_status("paused")
    notebook.await_points("grad_norm", 1)
    expect(notebook.widget.locator(".ml-line")).to_contain_text("Paused after 1 step.")
    # A line of one point is drawn as a point, in the middle of its axis.
    expect(notebook.chart("grad_norm").locator(".scatterlayer .point")).to_have_count(1)
    low, high = notebook.chart("grad_norm").locator(".ml-plot").evaluate("(plot) => plot._fullLayout.yaxis.range")
    assert high - low > 0.8 * float(notebook.chart("grad_norm").get_attribute("data-last") or 0)
    notebook.button("Resume").click()
    notebook.await_points("grad_norm", 10)
    expect(notebook.button("Step")).to_be_disabled()
    notebook.button("Pause").click()
    notebook.await_status("paused")
    notebook.await_still()
    held = notebook.points("grad_norm")
    notebook.button("Step").click()
    notebook.await_points("grad_norm", held + 1)
    notebook.await_still()
    assert notebook.points("grad_norm") == held + 1
    notebook.button("Resume").click()
    notebook.await_points("grad_norm", held + 10)
    notebook.button("Stop").click()
    notebook.await_status("stopped")
    expect(notebook.button("Stop")).to_be_disabled()
    expect(notebook.button("New run")).to_be_visible()


def test_a_slider_an_entry_and_another_loss_take_effect_and_leave_marks(scripted: Open) -> None:
    notebook = scripted(
        "ScriptedRun(20_000, rate=40)", "run.settings['beta'], run.settings['learning_rate'], run.loss.name"
    )
    notebook.button("Start").click()
    notebook.await_points("loss", 10)
    notebook.widget.locator("[data-setting='beta']").focus()
    notebook.press("ArrowRight", 6)
    marks = notebook.widget.locator(".ml-marks li")
    expect(marks).to_have_count(1)
    expect(marks).to_contain_text("beta 1.2")
    entry = notebook.widget.locator("[data-entry='learning_rate']")
    entry.fill("0.003")
    entry.press("Enter")
    expect(marks).to_have_count(2)
    entry.fill("-1")
    entry.press("Enter")
    expect(notebook.widget.locator(".ml-note").first).to_contain_text("expected a number from 0 up")
    expect(entry).to_have_value("0.003")
    notebook.widget.get_by_label("Loss", exact=True).select_option("simpo")
    expect(marks).to_have_count(3)
    expect(notebook.widget.locator("[data-setting='gamma']")).to_be_visible()
    expect(notebook.widget.locator(".ml-formula math")).to_be_visible()
    expect(notebook.chart("loss")).to_have_attribute("data-marks", "3")
    assert notebook.run_cell(2) == "(2.0, 0.003, 'simpo')"
    unusable = notebook.widget.locator("option[value='ppo']")
    assert unusable.is_disabled()
    assert "needs logprobs and advantages" in (unusable.text_content() or "")


LONG = ["dpo", "kto", "orpo", "nca_pair", "robust_dpo", "cpo", "apo_down", "simpo"]
# Of each formula that is shown: what cannot be seen of it, in pixels, and its size, em.
FORMULAS = """(root) => [...root.querySelectorAll(".ml-formula")].filter((place) => place.clientWidth).map((place) => {
  const box = place.getBoundingClientRect();
  const beyond = [...place.querySelectorAll("math, math *")].map((part) => part.getBoundingClientRect())
    .filter(({ width }) => width > 0).map((part) => Math.max(part.right - box.right, part.bottom - box.bottom,
      box.left - part.left, box.top - part.top));
  const size = (element) => parseFloat(getComputedStyle(element).fontSize);
  return [Math.max(...beyond), size(place.querySelector(".ml-math")) / size(place)]; })"""


def test_no_formula_is_cut_off(scripted: Open) -> None:
    notebook = scripted("ScriptedRun(20)")
    loss = notebook.widget.get_by_label("Loss", exact=True)
    for width in (1400, 1000):
        notebook.page.set_viewport_size({"width": width, "height": 1100})
        for name in LONG:
            loss.select_option(name)
            notebook.await_still(24)
            [(beyond, size)] = notebook.widget.evaluate(FORMULAS)
            assert beyond <= 1, (width, name)
            assert size >= 0.74, (width, name)
        notebook.button("All losses").click()
        notebook.await_still(24)
        found = notebook.widget.evaluate(FORMULAS)
        assert len(found) > 20
        assert all(beyond <= 1 and size >= 0.74 for beyond, size in found), (width, found)
        notebook.button("All losses").click()
    # Where there is no room at all it can be scrolled, from its beginning.
    notebook.widget.locator(".ml-picker").evaluate("(card) => { card.style.width = '120px'; }")
    loss.select_option("dpo")
    notebook.await_still(24)
    start, scrolls = notebook.widget.locator(".ml-picker .ml-formula").evaluate(
        """(place) => [place.querySelector("math").getBoundingClientRect().left - place.getBoundingClientRect().left,
             place.scrollWidth > place.clientWidth && getComputedStyle(place).overflowX === "auto"]"""
    )
    assert scrolls
    assert start >= -0.5


def test_a_reload_in_mid_run_brings_the_same_picture_back(scripted: Open) -> None:
    notebook = scripted("ScriptedRun(50_000, rate=150)", "run.steps_done")
    notebook.button("Start").click()
    notebook.await_points("grad_norm", 700)  # beyond the buckets a series holds: decimated on both sides
    notebook.reload()
    before = notebook.await_points("grad_norm", 720)
    notebook.await_points("grad_norm", before + 30)  # it continues
    notebook.button("Pause").click()
    notebook.await_status("paused")
    notebook.await_still()
    points, drawn = {name: notebook.points(name) for name in MAIN}, notebook.drawn()
    assert notebook.run_cell(2) == str(points["grad_norm"])
    notebook.reload()
    notebook.await_points("grad_norm", points["grad_norm"])
    notebook.await_still()
    assert {name: notebook.points(name) for name in MAIN} == points
    again = notebook.drawn()
    for name in MAIN:
        assert again[name] == drawn[name], name
    notebook.button("Resume").click()
    notebook.await_points("grad_norm", points["grad_norm"] + 5)


def test_a_failed_step_says_where_and_resume_goes_on(scripted: Open) -> None:
    notebook = scripted("ScriptedRun(60, rate=60, fail_at=20)")
    notebook.button("Start").click()
    notebook.await_status("failed")
    panel = notebook.widget.get_by_role("alert").filter(has_text="Step 20 failed")
    expect(panel).to_contain_text("my_loss v2, line 5: RuntimeError")
    expect(panel.locator("pre")).to_contain_text("-->   5 margin = chosen - rejected[1:]")
    notebook.button("Resume").click()
    notebook.await_status("finished")
    expect(panel).to_be_hidden()


TEXTS = [".ml-title", ".ml-key", ".ml-value", ".ml-summary", ".ml-count", ".ml-line", ".xtitle", ".ytick text"]
HOSTILE = "<img src=x onerror=window.hacked=1>"


def test_hostile_names_are_text(scripted: Open) -> None:
    names = {HOSTILE: 1.0, "</script><b>x": 2.0, "\u202egnp.exe": 3.0, "m" * 5000: 1.0}
    run = f"ScriptedRun(30, rate=60, **{names!r})"
    notebook = scripted(f"{run}; run.warnings.append({HOSTILE!r})")
    notebook.button("Start").click()
    notebook.await_end()
    notebook.widget.get_by_text("More metrics").click()
    expect(notebook.chart(HOSTILE).locator(".ml-title")).to_have_text(HOSTILE)
    expect(notebook.widget.locator(".ml-warnings")).to_contain_text(HOSTILE)
    notebook.chart(HOSTILE).locator(".ml-plot").hover()
    notebook.await_frames()
    assert notebook.page.evaluate("() => window.hacked") is None
    assert notebook.widget.locator("img").count() == 0
    check_room(notebook)


def test_two_views_share_one_run_and_closing_one_leaves_the_other(scripted: Open) -> None:
    notebook = scripted("ScriptedRun(20_000, rate=60)", "bench")
    views = notebook.page.locator(".mint-lab")
    expect(views).to_have_count(2)
    views.nth(1).get_by_role("button", name="Start").click()
    notebook.await_points("loss", 20)
    expect(views.nth(0).get_by_role("button", name="Pause")).to_be_visible()
    notebook.evaluate("() => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = 1; }")
    notebook.command("notebook:clear-cell-output")
    expect(views).to_have_count(1)
    notebook.await_points("loss", notebook.points("loss") + 20)
    notebook.evaluate("() => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = 2; }")
    notebook.command("notebook:clear-cell-output")
    expect(views).to_have_count(0)
    expect(notebook.page.locator(".js-plotly-plot")).to_have_count(0)


def test_both_themes_are_legible_and_every_width_shows_everything(scripted: Open) -> None:
    notebook = scripted("ScriptedRun(40, rate=200)")
    notebook.command("application:toggle-left-area")
    notebook.button("Start").click()
    notebook.await_end()
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        notebook.theme(theme)
        expect(notebook.widget).to_have_attribute("data-theme", theme.split()[-1].lower())
        for selector in TEXTS:
            assert contrast(notebook, selector) >= 4.5, (theme, selector)
    for width in (700, 1000, 2000):
        notebook.page.set_viewport_size({"width": width, "height": 1100})
        check_room(notebook, *MAIN)


def test_what_a_page_receives_does_not_grow_with_the_run(scripted: Open) -> None:
    notebook = scripted(
        "ScriptedRun(100_000, rate=20)\nrun.records.extend(record(i, 100_000) for i in range(1, 2001))",
        "run.records.extend(record(i, 100_000) for i in range(len(run.records) + 1, 12_001))",
    )
    early = bytes_per_step(notebook, 2000)
    notebook.button("Pause").click()
    notebook.await_status("paused")
    notebook.run_cell(2)
    late = bytes_per_step(notebook, 12_000)
    assert late < 1.5 * early
    assert late < 1000


def bytes_per_step(notebook: Notebook, made: int) -> float:
    """During the run, after a resync. Counted in steps and not in seconds, of which a busy machine needs more."""
    notebook.page.get_by_role("button", name="Start", exact=True).or_(notebook.button("Resume")).click()
    notebook.await_points("grad_norm", made + 1)  # the resync is over
    (begun, before), (step, now) = came(notebook, 0), (0, 0)
    while step < begun + 100:
        step, now = came(notebook, step)
    return (now - before) / (step - begun)


def came(notebook: Notebook, after: int) -> tuple[int, int]:
    """The step of the latest message, as soon as it is beyond ``after``, and the bytes of all messages up to it."""
    told = notebook.page.wait_for_function(
        """(after) => { const step = document.querySelector(".mint-lab [role=progressbar]").ariaValueNow;
             return Number(step) > after && [Number(step), window.__received.bytes]; }""",
        arg=after,
    )
    step, total = told.json_value()
    return step, total


def check_room(notebook: Notebook, *charts: str) -> None:
    """Once all is laid out, nothing sticks out of the widget, and these charts are wide enough to be read."""
    notebook.await_still(24)
    notebook.await_that(lambda: overflow(notebook) == 0, "the widget fits into its room")
    plots = {name: notebook.chart(name).locator(".ml-plot svg").first for name in charts}

    def narrow() -> list[str]:
        boxes = {name: plot.bounding_box() for name, plot in plots.items()}
        return [name for name, box in boxes.items() if box is None or box["width"] <= 180]

    notebook.await_that(lambda: narrow() == [], f"each of {charts} is wider than 180 pixels")


def overflow(notebook: Notebook) -> int:
    """Pixels by which the widget is wider than its room."""
    return int(
        notebook.widget.evaluate(
            "(root) => Math.max(0, root.scrollWidth - root.clientWidth, "
            "root.offsetWidth - root.parentElement.clientWidth)"
        )
    )


def contrast(notebook: Notebook, selector: str) -> float:
    """WCAG contrast of the first element's text against what lies behind it; 4.5 is the norm for small text."""
    return float(notebook.widget.locator(selector).first.evaluate(CONTRAST))


CONTRAST: Any = """(element) => {
  const parse = (text) => { const p = text.match(/[\\d.]+/g).map(Number); return [p[0], p[1], p[2], p[3] ?? 1]; };
  const over = (top, below) => top.slice(0, 3).map((c, i) => c * top[3] + below[i] * (1 - top[3]));
  const layers = [];
  for (let node = element; node; node = node.parentElement) {
    const colour = parse(getComputedStyle(node).backgroundColor);
    if (colour[3] > 0) layers.push(colour);
    if (colour[3] === 1) break;
  }
  let ground = [255, 255, 255];
  for (const layer of layers.reverse()) ground = over(layer, ground);
  const style = getComputedStyle(element);
  const ink = over(parse(element instanceof SVGElement ? style.fill : style.color), ground);
  const luminance = (rgb) => { const [r, g, b] = rgb.map((c) => { c /= 255;
    return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const [light, dark] = [luminance(ink), luminance(ground)].sort((a, b) => b - a);
  return (light + 0.05) / (dark + 0.05); }"""
