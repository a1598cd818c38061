"""A recipe that only this notebook knows: its chart, its option and the losses that fit, on the page."""

from __future__ import annotations

from playwright.sync_api import expect

from .conftest import Open

RECIPE = """
from dataclasses import dataclass
import mint_lab as ml
from mint_lab.charts.chart_spec import ChartSpec
from mint_lab.data import to_datum
from mint_lab.metrics import MetricSpec, register_metric
from mint_lab.recipes import BatchJob, Measured, Recipe, option

register_metric(MetricSpec("digit_nll", "Mean of -log p over the digits of the answer.", unit="nats a token"))

@dataclass(frozen=True)
class CountOptions:
    start: int = option(3, "first number to count from")

class CountJob(BatchJob):
    def measure(self, data, logprobs):
        masks = [datum.loss_fn_inputs["weights"].to_torch() for datum in data]
        sums = [float(-(row * mask).sum()) for row, mask in zip(logprobs, masks)]
        return Measured({"digit_nll": sum(sums) / max(1.0, sum(float(mask.sum()) for mask in masks))})

@ml.recipe
class Count(Recipe):
    name = "count"
    default_loss = "cross_entropy"
    default_steps = 4
    default_data = "numbers in order"
    charts = ("loss", ChartSpec("digit_nll", title="digits"))
    headlines = ("digit_nll", "loss")
    Options = CountOptions

    def prepare(self, tokenizer, data, held_out, *, seed, max_length=None):
        first = self.options.start
        texts = [f"Question: What is {n} + 1? Answer: {n + 1}" for n in range(first, first + 60)]
        datums = [to_datum(tokens, len(tokens) - 2) for tokens in map(tokenizer.encode, texts)]
        return CountJob(datums[:50], datums[50:])
"""


def test_workbench_of_a_new_recipe(open_notebook: Open) -> None:
    notebook = open_notebook(
        [RECIPE, "lab = ml.Workbench('count', start=7, batch_size=8, eval_every=2, folder='run')\nlab"]
    ).show()
    page = notebook.page
    option = page.locator("[data-option='start']")
    expect(option).to_have_text("start7")
    expect(option).to_have_attribute("title", "first number to count from")
    expect(page.locator(".mint-lab")).to_contain_text("numbers in order")
    notebook.button("Start").click()
    notebook.await_status("finished")
    notebook.await_points("digit_nll", 4)
    names = (
        page.locator(".ml-grid").first.locator("[data-name]").evaluate_all("(all) => all.map((x) => x.dataset.name)")
    )
    assert names == ["loss", "digit_nll"]
    title = page.locator("[data-name='digit_nll'] .ml-title")
    expect(title).to_have_text("digits")
    expect(title).to_have_attribute("title", "Mean of -log p over the digits of the answer.")
    expect(page.locator(".mint-lab")).to_contain_text("Held-out digit_nll")
    page.get_by_role("button", name="All losses").click()
    use = page.locator("[data-loss='dpo'][data-action='use']")
    expect(use).to_be_disabled()
    expect(page.locator("article", has=use)).to_contain_text("needs pairs of chosen and rejected")
