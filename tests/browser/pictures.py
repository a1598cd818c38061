"""``python -m tests.browser.pictures``: photographs the workbench in each of its states, always of a real run.

The files lie in ``notebooks/pictures``. Names given as arguments make those alone, for example ``dark narrow``.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import expect, sync_playwright

from .lab import REPOSITORY, Lab, Notebook, chromium, serve

__all__ = ["PICTURES", "main"]

FOLDER = REPOSITORY / "notebooks" / "pictures"
CELL = "import mint_lab as ml\n\nlab = ml.Workbench(seed=0)\nlab"
RL = 'import mint_lab as ml\n\nlab = ml.Workbench(recipe="rl", loss="ppo", updates_per_rollout=4, seed=0)\nlab'
COMPARE = 'import mint_lab as ml\n\nboth = ml.compare(["dpo", "simpo"], steps=120, seed=0)\nboth'
DATA = """\
import mint_lab as ml

rows = [{"prompt": pair.prompt, "completion": pair.chosen} for pair in ml.data.arithmetic_pairs(200)]
rows[7] = {"prompt": rows[7]["prompt"], "completion": " Let me think: " + "10 + 10 + " * 20}
rows[11] = {"prompt": "What is 2 + 2?", "completion": ""}
rows[40] = rows[12]
lab = ml.Workbench("sft", data=rows, max_length=64, on_bad_row="skip", seed=0)
lab"""
IMPORTS = "import torch\nimport torch.nn.functional as F\nimport mint_lab as ml\n\n%load_ext mint_lab"
FAILS = """\
%%loss my_margin
def my_margin(data, logprobs_list):
    scores = [(lp * d.loss_fn_inputs["weights"].to_torch()).sum() for d, lp in zip(data, logprobs_list)]
    margin = torch.stack(scores[0::2]) - torch.stack(scores[1::2])
    if margin.mean() > 3:
        margin = margin - weights
    return -F.logsigmoid(margin).mean(), {"mean_margin": margin.mean().item()}
"""


def first_open(notebook: Notebook) -> None:
    """As it stands before Start."""


def workbench(notebook: Notebook) -> None:
    """The README's: a person starts, and changes the loss in the middle."""
    notebook.button("Start").click()
    notebook.await_points("grad_norm", 120, timeout=300)
    notebook.widget.get_by_label("Loss", exact=True).select_option("hinge")
    notebook.await_points("grad_norm", 150, timeout=300)


def preference(notebook: Notebook) -> None:
    """A run of preference pairs, with the margins of all steps."""
    notebook.button("Start").click()
    notebook.chart("margin").get_by_role("button", name="over time").click()
    notebook.await_points("grad_norm", 150, timeout=300)


def reinforcement(notebook: Notebook) -> None:
    """A run of PPO: ratios against their limits, and what the model answered."""
    notebook.button("Start").click()
    notebook.await_points("clip_frac", 2 * 78, timeout=400)
    # The first update of a rollout clips nothing; the later ones are what the chart is for.
    notebook.page.wait_for_function(
        "() => document.querySelector('.mint-lab [data-clipped]').dataset.clipped.split(' ').every((x) => x > 0)"
    )


def failed(notebook: Notebook) -> None:
    """A loss of one's own that fails in the middle of a run."""
    notebook.button("Start").click()
    notebook.await_status("failed", timeout=300)


def comparing(notebook: Notebook) -> None:
    """Two losses at the same time, and the cosine between their gradients."""
    notebook.button("Start").click()
    notebook.await_points("grad_norm", 2 * 80, timeout=400)
    notebook.widget.locator(".ml-cosines td[data-pair='0 1']").wait_for(timeout=120_000)


def dark(notebook: Notebook) -> None:
    """In JupyterLab's dark theme."""
    notebook.theme("JupyterLab Dark")
    half_way(notebook)


def half_way(notebook: Notebook) -> None:
    """In the middle of a run."""
    notebook.button("Start").click()
    notebook.await_points("grad_norm", 120, timeout=300)


def run_again(notebook: Notebook) -> None:
    """The cell is run again in the middle of a run: the new page offers to continue the earlier one."""
    half_way(notebook)
    notebook.run_cell(0)
    notebook.page.locator(".ml-earlier:visible").wait_for()


def several_runs(notebook: Notebook) -> None:
    """The menu of the status bar, which lists all runs that are running."""
    notebook.button("Start").click()
    notebook.await_points("grad_norm", 2 * 80, timeout=400)
    notebook.page.locator(".mint-lab-status-count").click()
    notebook.page.get_by_role("dialog", name="Training runs").wait_for()


def rewind(notebook: Notebook) -> None:
    """A run that was rewound and has gone on with another loss; the menu of a step, where it can be forked."""
    notebook.button("Start").click()
    notebook.await_points("grad_norm", 130, timeout=300)
    notebook.button("Pause").click()
    notebook.await_status("paused")
    notebook.click_step("grad_norm", 60)
    notebook.button("Rewind here").click()
    expect(notebook.widget.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "60", timeout=300_000)
    notebook.await_status("paused")
    notebook.widget.get_by_label("Loss", exact=True).select_option("hinge")
    notebook.button("Resume").click()
    notebook.await_points("grad_norm", 100, timeout=300)
    notebook.button("Pause").click()
    notebook.await_status("paused")
    notebook.scroll_to_output()
    notebook.await_still()
    notebook.click_step("pair_accuracy", 60)
    notebook.button("Fork from here").click()


def data(notebook: Notebook) -> None:
    """What will be trained, before Start."""
    panel = notebook.widget.locator(".ml-data-panel")
    panel.locator("summary").click()
    panel.locator(".ml-token").first.wait_for()
    notebook.evaluate("() => { document.querySelector('.jp-WindowedPanel-outer').scrollTop = 1e6; }")


PICTURES: dict[str, tuple[list[str], Callable[[Notebook], None], tuple[int, int]]] = {
    "workbench": ([CELL], workbench, (1360, 900)),
    "first_open": ([CELL], first_open, (1360, 900)),
    "preference": ([CELL], preference, (1360, 900)),
    "rl": ([RL], reinforcement, (1360, 1300)),
    "comparing": ([COMPARE], comparing, (1360, 1240)),
    "data": ([DATA], data, (1360, 1760)),
    "rewind": ([CELL], rewind, (1360, 900)),
    "run_again": ([CELL], run_again, (1360, 900)),
    "several_runs": ([COMPARE], several_runs, (1360, 900)),
    "failed": ([IMPORTS, FAILS, "lab = ml.Workbench(loss='my_margin', seed=0)\nlab"], failed, (1360, 1000)),
    "dark": ([CELL], dark, (1360, 900)),
    "narrow": ([CELL], half_way, (760, 1500)),
}
"""By name: the cells, what a person does, and the size of the window."""


def main(names: list[str]) -> None:
    """Open a notebook for each picture, do what a person would do, and photograph the page."""
    FOLDER.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        serve(Path(folder)) as server,
        sync_playwright() as playwright,
        chromium(playwright) as context,
    ):
        lab = Lab(server, context, Path(folder))
        for name in names or PICTURES:
            cells, act, (width, height) = PICTURES[name]
            notebook = lab.notebook(f"{name}/first_run.ipynb", cells)
            notebook.page.set_viewport_size({"width": width, "height": height})
            notebook.command("application:toggle-left-area")
            notebook.theme("JupyterLab Light")
            notebook.show()
            act(notebook)
            notebook.scroll_to_output()
            notebook.page.wait_for_timeout(700)
            data = notebook.page.screenshot()
            notebook.page.close()
            lab.stop_kernels()
            save(data, FOLDER / f"{name}.png")


def save(data: bytes, path: Path) -> None:
    """A screenshot with 256 colours, which is what a page of text and lines needs."""
    Image.open(io.BytesIO(data)).convert("RGB").quantize(256).save(path, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1:])
