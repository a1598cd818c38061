"""A loss written in a cell and edited during a run: swapped, refused, broken, fixed, and one that never returns."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, expect

from .lab import Notebook
from .test_page import contrast

Open = Callable[..., Notebook]

LOAD = "import mint_lab as ml\n%load_ext mint_lab"
LOSS = """\
%%loss bent
import torch.nn.functional as F

calls = []

def bent(data, logprobs_list):
    if logprobs_list[0].requires_grad:  # in training, not on held-out data
        calls.append(len(data))
    weights = [d.loss_fn_inputs["weights"].to_torch() for d in data]
    scores = [(w * lp).sum() for w, lp in zip(weights, logprobs_list)]
    margins = [chosen - rejected for chosen, rejected in zip(scores[0::2], scores[1::2])]
    loss = sum(-F.logsigmoid(margin) for margin in margins) / len(margins)
    return loss, {"mean_margin": float(sum(margins)) / len(margins)}
"""
BUG = "raise ValueError('a planted bug')"
LIFT = 10
LIFTED = LOSS.replace("return loss,", f"return loss + {LIFT},")
MENDED = LOSS.replace("return loss,", f"return loss + {2 * LIFT},")
RAISES = LOSS.replace("    weights =", f"    {BUG}\n    weights =")
# A batch to train on is larger than what preflight tries; so this passes it.
HIDDEN = LOSS.replace("    weights =", f"    if len(data) > 16:\n        {BUG}\n    weights =")
LATE = LOSS.replace("%%loss bent", "%%loss bent --no-preflight").replace(
    "    weights =", f"    if len(calls) > 5:\n        {BUG}\n    weights ="
)
ENDLESS = LOSS.replace("%%loss bent", "%%loss bent --no-preflight").replace(
    "    weights =", "    while len(calls) > 5:\n        pass\n    weights ="
)
WORKBENCH = "lab = ml.Workbench(loss='bent', steps=20_000, eval_every=20)\nlab"
# What a step changes, in one number; and whether a thread is still in a loss.
PROBE = """
import hashlib, threading
digest = hashlib.sha256()
for tensor in [*lab.run.client._adapter.copy().values(), *lab.run.client._optimizer.state().values()]:
    digest.update(tensor.numpy().tobytes())
busy = any(getattr(thread, "call", None) is not None for thread in threading.enumerate())
f"{lab.run.status} after {lab.run.steps_done}, {lab.run.loss.label}, {digest.hexdigest()[:16]}, busy {busy}"
"""
CELL, PAGE, ANSWER, STATE = 1, 2, 3, 4


@pytest.fixture
def bench(open_notebook: Open) -> Notebook:
    """A workbench whose loss is a cell above it; Start was pressed, and steps were made."""
    notebook = open_notebook([LOAD, LOSS, WORKBENCH, "6 * 7", PROBE]).show()
    notebook.button("Start").click()
    notebook.await_points("grad_norm", 20)
    return notebook


def marks(notebook: Notebook) -> Locator:
    return notebook.widget.locator(".ml-marks li")


def failure(notebook: Notebook) -> Locator:
    return notebook.widget.locator(".ml-failure")


def last(notebook: Notebook, chart: str) -> float:
    return float(notebook.chart(chart).get_attribute("data-last") or "nan")


def curve(notebook: Notebook, chart: str) -> tuple[list[tuple[float, float]], list[float]]:
    """The first curve of a chart as drawn, and its markers: points (x, y) and places x on the screen, px."""
    found = notebook.chart(chart).evaluate(
        """(figure) => {
          const line = figure.querySelector(".scatterlayer .js-line"), at = line.getScreenCTM();
          const pairs = [...line.getAttribute("d").matchAll(/(-?[\\d.]+),(-?[\\d.]+)/g)];
          const points = pairs.map(([, x, y]) => [at.e + at.a * Number(x), at.f + at.d * Number(y)]);
          const boxes = [...figure.querySelectorAll(".shapelayer path")].map((path) => path.getBoundingClientRect());
          return [points, boxes.map((box) => (box.left + box.right) / 2)]; }"""
    )
    return [(x, y) for x, y in found[0]], found[1]


def number(line: str, source: str) -> int:
    """Where ``line`` stands in a cell, as the editor numbers it."""
    return [text.strip() for text in source.splitlines()].index(line) + 1


def await_value(notebook: Notebook, chart: str, at_least: float) -> None:
    notebook.page.wait_for_function(
        """([name, wanted]) =>
             Number(document.querySelector(`.mint-lab [data-name="${name}"]`).dataset.last) >= wanted""",
        arg=[chart, at_least],
        timeout=600_000,
    )


@pytest.mark.parametrize(
    "show",
    [
        "ml.Workbench(loss='bent', steps=19_200, eval_every=20)",
        "run = ml.Run(loss='bent', steps=19_200, eval_every=20).start()\nml.LiveCharts(run)",
    ],
    ids=["Start on the page", "Run.start"],
)
def test_an_edited_cell_takes_effect_in_the_run_and_the_curve_bends(open_notebook: Open, show: str) -> None:
    notebook = open_notebook([LOAD, LOSS, show]).show()
    if "Workbench" in show:
        notebook.button("Start").click()
    notebook.await_points("grad_norm", 40)
    notebook.await_that(lambda: last(notebook, "loss") < LIFT / 2, "a loss as it is")
    assert notebook.chart("loss").locator(".shapelayer path").count() == 0
    shown = notebook.edit_cell(CELL, LIFTED)
    assert "bent v2 registered" in shown
    assert "preflight: ok" in shown

    expect(marks(notebook)).to_have_count(1)
    expect(marks(notebook)).to_contain_text("bent v2")
    await_value(notebook, "loss", LIFT)
    before = int((marks(notebook).inner_text()).split("from step ")[1]) - 1
    notebook.await_points("grad_norm", before + 40)
    notebook.await_points("loss", before + 40)
    # Every chart has the marker; this one has the step of height LIFT, at that place and at no other.
    for name in ("loss", "mean_margin", "grad_norm"):
        expect(notebook.chart(name).locator(".shapelayer path")).to_have_count(1)
        expect(notebook.chart(name).locator(".annotation")).to_have_text("1")
    points, (mark,) = curve(notebook, "loss")
    jumps = [left[1] - right[1] for left, right in itertools.pairwise(points)]
    at = jumps.index(max(jumps))
    heights = [y for _, y in points]
    assert min(heights[: at + 1]) - max(heights[at + 1 :]) > 0.7 * (max(heights) - min(heights))
    assert points[at][0] - 3 < mark < points[at + 1][0] + 3
    # The margin is what it was about: the model went on from where it stood.
    notebook.await_that(lambda: last(notebook, "mean_margin") > 0, "a margin above 0")


def test_a_cell_that_preflight_refuses_leaves_the_run_alone(bench: Notebook) -> None:
    shown = bench.edit_cell(CELL, RAISES)
    assert "preflight: 1 failed" in shown
    assert f"look at line {number(BUG, RAISES)}: raise ValueError" in shown
    assert "LossError: bent is not registered; bent v1 stays in use" in shown
    bench.await_points("grad_norm", bench.points("grad_norm") + 20)
    expect(failure(bench)).to_be_hidden()
    expect(marks(bench)).to_have_count(0)
    assert bench.run_cell(STATE).startswith("'running after")


@pytest.mark.parametrize("broken", [HIDDEN, LATE], ids=["passes preflight", "not checked"])
def test_a_loss_that_raises_in_training_pauses_the_run_until_its_cell_is_mended(bench: Notebook, broken: str) -> None:
    bench.page.evaluate("() => { window.untouched = true; }")
    shown = bench.edit_cell(CELL, broken)
    assert ("preflight: ok" in shown) == (broken is HIDDEN)
    assert ("it was NOT checked" in shown) == (broken is LATE)

    bench.await_status("failed")
    line = number(BUG, broken)
    expect(failure(bench)).to_contain_text(f"bent v2, line {line}: ValueError: a planted bug")
    marked = failure(bench).locator(".ml-marked")
    expect(marked).to_have_count(1)
    assert re.fullmatch(rf"-->\s+{line}\s+raise ValueError\('a planted bug'\)", (marked.text_content() or "").strip())
    for text in (
        "Weights and optimizer are as they were",
        "Fix bent and run its cell: the run then resumes with this step",
    ):
        expect(failure(bench).locator(".ml-hint")).to_contain_text(text)
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        bench.theme(theme)
        for selector in (".ml-failure strong", ".ml-marked", ".ml-hint", ".ml-failure-text"):
            assert contrast(bench, selector) >= 4.5, (theme, selector)

    # The same step fails again with the cell as it is, and changes nothing; nor does a look at it.
    state = bench.run_cell(STATE)
    done = int(state.split()[2].rstrip(","))
    expect(failure(bench).locator("strong")).to_have_text(f"Step {done + 1} failed")
    bench.button("Resume").click()
    expect(bench.widget.locator(".ml-status")).to_have_attribute("data-status", "failed")
    # Resume is taken, tried and over: then the buttons are there again, and the state is as before.
    bench.await_that(lambda: bench.run_cell(STATE) == state, state)
    expect(bench.button("Resume")).to_be_enabled()
    bench.await_still()
    assert bench.run_cell(STATE) == state
    assert bench.points("grad_norm") == done

    assert "bent v3 registered" in bench.edit_cell(CELL, MENDED)
    bench.await_status("running")
    expect(failure(bench)).to_be_hidden()
    await_value(bench, "loss", 2 * LIFT)
    bench.await_points("grad_norm", done + 20)
    # The version that made no step, or only a few, and then the fixed one.
    expect(marks(bench).last).to_contain_text("bent v3")
    expect(marks(bench).last).to_contain_text(f"from step {done + 1}")
    expect(marks(bench)).to_have_count(1 if broken is HIDDEN else 2)
    assert bench.page.evaluate("() => window.untouched") is True


def test_a_loss_without_an_end_is_stopped_by_stop_or_by_mending_its_cell(bench: Notebook) -> None:
    bench.edit_cell(CELL, ENDLESS)
    expect(marks(bench)).to_have_text(re.compile("bent v2"))
    held = hung(bench)
    # Registered again, the old version is cancelled, and the step is made with the new one.
    bench.edit_cell(CELL, MENDED)
    bench.await_points("grad_norm", held + 10)
    expect(marks(bench).last).to_contain_text("bent v3")
    expect(failure(bench)).to_be_hidden()

    bench.edit_cell(CELL, ENDLESS)
    expect(marks(bench)).to_have_count(3)
    held = hung(bench)
    bench.button("Stop").click()
    bench.await_status("stopped")
    assert bench.await_points("grad_norm", held) == held
    line = number("while len(calls) > 5:", ENDLESS)
    expect(failure(bench)).to_contain_text(re.compile(f"bent v4, line ({line}|{line + 1}): the loss had not returned"))
    expect(failure(bench).locator(".ml-hint")).to_contain_text("New run starts over")
    assert bench.run_cell(ANSWER) == "42"
    # The thread that was in the loss ends by itself, after the run.
    stopped = rf"'stopped after {held}, bent v4, \w+, busy False'"
    bench.await_that(lambda: re.fullmatch(stopped, bench.run_cell(STATE)), stopped)
    # And what follows is a run like any other.
    bench.edit_cell(CELL, LOSS)
    bench.button("New run").click()
    expect(bench.chart("grad_norm")).to_have_attribute("data-points", "0")
    bench.button("Start").click()
    bench.await_points("grad_norm", 10)


def hung(notebook: Notebook) -> int:
    """Wait until the endless version, which is the last in the list, is in its loop; how many steps were made."""
    first = int(marks(notebook).last.inner_text().split("from step ")[1])
    inside = "(True, "  # the kernel knows, and answers while the loss does not

    def seen() -> str:
        return notebook.replace_cell(ANSWER, "len(calls) > 5, lab.run.steps_done")

    notebook.await_that(lambda: seen().startswith(inside), "in its loop")
    made = int(seen().removeprefix(inside).rstrip(")"))
    assert made >= first + 3  # it makes four or five
    assert notebook.await_points("grad_norm", made) == made
    expect(notebook.widget.locator(".ml-status")).to_have_attribute("data-status", "running")
    assert notebook.replace_cell(ANSWER, "6 * 7") == "42"
    return made
