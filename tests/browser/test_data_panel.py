"""The data of a run on its page: the numbers of ``ml.audit``, rows with their tokens, bad data, both themes, keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from .conftest import Open
from .lab import Notebook
from .test_page import check_room, contrast

ROWS = """
import gzip, json
import mint_lab as ml
with gzip.open({path!r}, "rt", encoding="utf-8") as lines:
    rows = [json.loads(line) for line in lines][:60]
rows[3] = {{"prompt": "w" * 20_000, "chosen": " a" * 10_000, "rejected": "<img src=x onerror=window.hacked=1>"}}
rows[5] = {{"prompt": "Question", "chosen": "", "rejected": "b"}}
rows[7] = rows[6]
given = dict(data=rows, max_length=400, on_bad_row="skip")
"""
SHOW = "lab = ml.Workbench(**given)\nlab"
AUDIT = """
a = ml.audit(**given)
print(json.dumps({"heading": a.summary, "numbers": a.numbers, "findings": [f.message for f in a.findings],
                  "rows": sorted(a.rows["row"].unique().tolist())}))
"""

MISSING = "import mint_lab as ml\nlab = ml.Workbench(recipe='sft', data='rows.jsonl')\nlab"
REPAIR = 'open("rows.jsonl", "w").write(\'{"prompt": "1 + 1 =", "completion": " 2"}\\n\' * 4)'
SLOW = """
import threading
import mint_lab as ml
gate = threading.Event()

def slow():
    gate.wait()
    yield from ({"prompt": f"{n} + 1 =", "answer": str(n + 1)} for n in range(20))

lab = ml.Workbench(recipe="rl", data=slow())
lab
"""


@pytest.fixture
def page(open_notebook: Open, hh_rlhf: Path) -> Notebook:
    return open_notebook([ROWS.format(path=str(hh_rlhf)) + SHOW, AUDIT]).show()


def panel(notebook: Notebook) -> Locator:
    return notebook.widget.locator(".ml-data-panel")


def open_panel(notebook: Notebook) -> Locator:
    panel(notebook).locator("summary").click()
    return panel(notebook)


def audited(notebook: Notebook) -> Any:
    return json.loads(notebook.run_cell(1))


def test_numbers_are_those_of_the_audit_before_and_while_the_run_trains(page: Notebook) -> None:
    expect(panel(page)).to_contain_text("what is trained, token by token")
    shown = open_panel(page)
    expect(shown.locator(".ml-finding").first).to_be_visible()
    wanted = audited(page)
    expect(shown.locator("summary")).to_contain_text(wanted["heading"])
    assert shown.locator("dt").all_inner_texts() == [name for name, _ in wanted["numbers"]]
    assert shown.locator("dd").all_inner_texts() == [value for _, value in wanted["numbers"]]
    findings = shown.locator(".ml-finding").all_inner_texts()
    assert len(findings) == len(wanted["findings"]) >= 3
    assert all(message in text for message, text in zip(wanted["findings"], findings, strict=True))
    signs = shown.locator(".ml-finding-sign").all_inner_texts()
    assert signs == sorted(signs) == ["!"] * signs.count("!") + ["i"] * signs.count("i"), "warnings first"
    expect(shown.locator(".ml-lengths")).to_have_count(3)
    expect(page.widget.locator(".ml-status")).to_have_attribute("data-status", "ready")
    page.button("Start").click()
    page.await_points("loss", 1)
    shown.get_by_role("button", name="Next").click()
    expect(shown.locator(".ml-tokens-title")).to_have_text(["row 0"])
    assert audited(page) == wanted


def test_rows_are_reached_by_buttons_and_by_number(page: Notebook) -> None:
    shown = open_panel(page)
    titles = shown.locator(".ml-tokens-title")
    expect(titles.first).to_contain_text("first")
    numbers = audited(page)["rows"]
    assert 5 not in numbers
    previous, following = (shown.get_by_role("button", name=name) for name in ("Previous", "Next"))
    expect(previous).to_be_disabled()
    for row in numbers[:7]:
        following.click()
        expect(titles).to_have_count(1)
        expect(titles).to_contain_text(f"row {row}")
    expect(shown.get_by_label("row", exact=True)).to_have_value("7")
    expect(shown.locator(".ml-rows-position")).to_have_text(f"7 of {len(numbers)}")
    previous.click()
    expect(titles).to_contain_text("row 6")
    row = shown.get_by_label("row", exact=True)
    row.fill("5")
    row.press("Enter")
    expect(shown.locator(".ml-rows-refusal")).to_have_text(
        "datum 5: the row was left out: chosen: empty, expected at least one character"
    )
    expect(row).to_be_focused()
    row.fill("3")
    row.press("Enter")
    expect(titles).to_contain_text("row 3")
    expect(shown.locator(".ml-rows-refusal")).to_have_text("")
    # The limit of 400 tokens leaves one of the prompt; the completion without its end is trained, the prompt is not.
    expect(shown.get_by_role("row")).to_have_count(3)
    colours = shown.locator(".ml-token").evaluate_all(
        "(l) => l.slice(0, 2).map((x) => getComputedStyle(x).backgroundColor)"
    )
    assert colours == ["rgba(0, 0, 0, 0)", "rgb(169, 143, 208)"]
    assert page.page.evaluate("() => window.hacked") is None
    shown.get_by_role("button", name="Noteworthy rows").click()
    expect(titles.first).to_contain_text("first")


def test_keys_lead_through_the_panel(page: Notebook) -> None:
    panel(page).locator("summary").focus()
    page.page.keyboard.press("Enter")
    shown = panel(page)
    expect(shown.locator(".ml-token").first).to_be_visible()
    shown.get_by_role("button", name="Next").focus()
    page.page.keyboard.press("Enter")
    expect(shown.locator(".ml-rows-position")).to_contain_text("1 of")
    expect(shown.get_by_role("button", name="Next")).to_be_focused()
    page.page.keyboard.press("Tab")
    expect(shown.get_by_label("row", exact=True)).to_be_focused()
    page.page.keyboard.press("Tab")
    expect(shown.locator(".ml-tokens-rest")).to_be_focused()
    page.page.keyboard.press("Tab")
    expect(shown.locator(".ml-token").first).to_be_focused()
    page.page.keyboard.press("ArrowRight")
    expect(shown.get_by_role("tooltip")).to_contain_text("weight")


def test_every_text_can_be_read_in_both_themes_and_at_every_width(page: Notebook) -> None:
    shown = open_panel(page)
    expect(shown.locator(".ml-finding").first).to_be_visible()
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        page.theme(theme)
        for selector in (
            *(".ml-finding[data-severity='warning'] > div", ".ml-finding-advice", ".ml-finding-sign"),
            *(".ml-data-numbers dt", ".ml-data-numbers dd", ".ml-lengths figcaption", ".ml-data-about"),
            *(".ml-data-panel .ml-token", ".ml-rows-number"),
        ):
            assert contrast(page, selector) >= 4.5, (theme, selector)
    page.command("application:toggle-left-area")
    for width in (500, 700, 2000):
        page.page.set_viewport_size({"width": width, "height": 1000})
        check_room(page)


def test_bad_data_are_reported_and_can_be_repaired(open_notebook: Open) -> None:
    notebook = open_notebook([MISSING, "0"]).show()
    shown = open_panel(notebook)
    expect(shown.get_by_role("alert")).to_contain_text("rows.jsonl is missing, expected a file")
    notebook.replace_cell(1, REPAIR)
    shown.get_by_role("button", name="Try again").click()
    expect(shown.locator("summary")).to_contain_text("3 examples to train on, 1 held out")
    expect(shown.locator(".ml-finding").first).to_contain_text("1 of 1 held-out items are also training items")


def test_prompts_and_the_kernel_that_stays_free(open_notebook: Open) -> None:
    """Data that take their time are loaded beside the kernel's main thread, which answers meanwhile."""
    notebook = open_notebook([SLOW, "0"]).show()
    shown = open_panel(notebook)
    expect(shown.get_by_role("status").first).to_have_text("Loading the tokenizer and the data …")
    assert notebook.replace_cell(1, "1 + 1") == "2"
    notebook.replace_cell(1, "gate.set()")
    expect(shown.locator("summary")).to_contain_text("18 prompts to train on, 2 held out")
    expect(shown.locator(".ml-lengths")).to_have_count(1)
    expect(shown.locator(".ml-tokens-label").first).to_have_text("prompt")
