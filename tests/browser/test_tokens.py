"""Coloured tokens: hover, keyboard, the select, hostile text, both themes, and the panel of the workbench."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, expect

from .lab import Notebook
from .test_page import check_room, contrast, overflow

Open = Callable[..., Notebook]

CELL = """
import numpy as np
import mint_lab as ml
from types import SimpleNamespace
from mint_lab.data import to_datum

texts = ["Hi", " there", "<img src=x onerror=window.hacked=1>", "</script><b>bold", "\\u202egnp.exe", "w" * 10_000,
         "🙂", "\\x00", "\\n", "  ", "", "שלום", "Z\\u0351\\u036b\\u0343", "&amp;", "a", "b"]
tokenizer = SimpleNamespace(decode=lambda ids: texts[ids[0]])
def side(ids, gradient):
    datum = to_datum(ids, 2)
    n = datum.model_input.length
    return datum, gradient * datum.loss_fn_inputs["weights"].to_numpy(), -np.linspace(0, 4, n)
chosen, rejected = side(list(range(14)), -0.25), side([0, 1, 14, 15], 0.25)
values = {"gradient": [chosen[1], rejected[1]], "logprob": [chosen[2], rejected[2]]}
"""
SHOW = "ml.show_tokens([chosen[0], rejected[0]], tokenizer, values=values, titles=['<b>pair</b>\\u202e'])"


@pytest.fixture
def tokens(open_notebook: Open) -> Notebook:
    notebook = open_notebook([CELL + SHOW])
    notebook.command("application:toggle-left-area")
    notebook.run_all()
    notebook.widget.locator(".ml-token").first.wait_for()
    return notebook


def cells(notebook: Notebook) -> Locator:
    return notebook.widget.locator(".ml-token")


def tip(notebook: Notebook) -> Locator:
    return notebook.widget.get_by_role("tooltip")


def ground(cell: Locator) -> str:
    return cell.evaluate("(cell) => getComputedStyle(cell).backgroundColor")


def test_hostile_tokens_are_text_and_leave_the_layout_alone(tokens: Notebook) -> None:
    expect(cells(tokens).nth(2)).to_have_text("<img src=x onerror=window.hacked…")
    expect(cells(tokens).nth(3)).to_have_text("</script><b>bold")
    expect(cells(tokens).nth(4)).to_have_text("⟨U+202E⟩gnp.exe")
    expect(tokens.widget.locator(".ml-tokens-title")).to_have_text("<b>pair</b>⟨U+202E⟩")
    assert tokens.widget.locator("img, script, b").count() == 0
    assert tokens.page.evaluate("() => window.hacked") is None
    # The prompt once, then both sides; a token of ten thousand letters is no wider or higher than the page allows.
    assert tokens.widget.get_by_role("row").count() == 3
    assert cells(tokens).count() == 2 + 12 + 2
    boxes = [cells(tokens).nth(i).bounding_box() for i in range(16)]
    assert {round(box["height"]) for box in boxes if box} == {22}
    cells(tokens).nth(5).hover()
    expect(tip(tokens)).to_contain_text("w" * 10_000)
    box = tip(tokens).bounding_box()
    assert box
    assert box["height"] < 800
    assert box["width"] < 460
    assert overflow(tokens) == 0


def test_hovering_tells_every_number_and_the_select_colours_by_another(tokens: Notebook) -> None:
    chosen, rejected, prompt = cells(tokens).nth(2), cells(tokens).nth(15), cells(tokens).nth(1)
    blue, orange = ground(chosen), ground(rejected)
    assert (blue, orange) == ("rgb(90, 162, 216)", "rgb(232, 138, 48)")
    assert ground(prompt) == "rgba(0, 0, 0, 0)"
    rejected.hover()
    expect(tip(tokens)).to_be_visible()
    for text in ("token 15", "gradient", "0.25", "dLoss / dlogprob", "logprob", "\N{MINUS SIGN}4", "nats", "weight"):
        expect(tip(tokens)).to_contain_text(text)
    cells(tokens).nth(0).hover()
    expect(tip(tokens)).to_contain_text("nothing predicts it")
    expect(tokens.widget.locator(".ml-scale")).to_contain_text("\N{MINUS SIGN}0.2500.25")
    tokens.widget.get_by_label("coloured by").select_option("logprob")
    expect(tokens.widget.locator(".ml-scale")).to_contain_text("nats")
    assert ground(rejected) not in (orange, "rgba(0, 0, 0, 0)")
    tokens.page.mouse.move(2, 2)
    expect(tip(tokens)).to_be_hidden()


def test_keys_lead_from_token_to_token(tokens: Notebook) -> None:
    select = tokens.widget.get_by_label("coloured by")
    select.focus()
    tokens.page.keyboard.press("Tab")
    expect(cells(tokens).nth(0)).to_be_focused()
    assert tokens.widget.locator(".ml-token[tabindex='0']").count() == 1
    tokens.page.keyboard.press("ArrowRight")
    expect(cells(tokens).nth(1)).to_be_focused()
    expect(tip(tokens)).to_be_visible()
    expect(tip(tokens)).to_contain_text("token 1")
    assert cells(tokens).nth(1).get_attribute("aria-describedby") == tip(tokens).get_attribute("id")
    assert cells(tokens).nth(2).get_attribute("aria-label") == (
        "<img src=x onerror=window.hacked…, gradient \N{MINUS SIGN}0.25"
    )
    tokens.page.keyboard.press("Escape")
    expect(tip(tokens)).to_be_hidden()
    expect(cells(tokens).nth(1)).to_be_focused()
    tokens.page.keyboard.press("ArrowDown")
    expect(tokens.widget.locator("[data-role='chosen'] .ml-token:focus")).to_have_count(1)
    tokens.page.keyboard.press("End")
    expect(cells(tokens).nth(13)).to_be_focused()
    tokens.page.keyboard.press("ArrowRight")
    expect(cells(tokens).nth(14)).to_be_focused()
    tokens.page.keyboard.press("ArrowRight")
    tokens.page.keyboard.press("ArrowRight")
    expect(cells(tokens).nth(15)).to_be_focused()  # the last one
    tokens.page.keyboard.press("Home")
    expect(cells(tokens).nth(14)).to_be_focused()
    tokens.page.keyboard.press("Tab")
    expect(tip(tokens)).to_be_hidden()


def test_every_token_can_be_read_in_both_themes_and_at_every_width(tokens: Notebook) -> None:
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        tokens.theme(theme)
        for by in ("gradient", "logprob", "weight"):
            tokens.widget.get_by_label("coloured by").select_option(by)
            for place in (0, 1, 2, 9, 15):
                selector = f".ml-token[data-place='{place if place < 14 else place + 2}']"
                assert contrast(tokens, selector) >= 4.5, (theme, by, place)
        for selector in (".ml-scale-note", ".ml-tokens-label", ".ml-tokens-title"):
            assert contrast(tokens, selector) >= 4.5, (theme, selector)
    for width in (500, 700, 2000):
        tokens.page.set_viewport_size({"width": width, "height": 1000})
        check_room(tokens)


def test_many_long_sequences_are_drawn_in_parts(open_notebook: Open) -> None:
    many = (
        "data = [to_datum(list(range(10)) * 70, 20) for _ in range(20)]\n"
        "ml.show_tokens(data, None, titles=[str(i) for i in range(20)], pairs=False)"
    )
    notebook = open_notebook([CELL + many])
    notebook.run_all()
    more = notebook.widget.get_by_role("button", name="Show 8 more of 20")
    more.wait_for()
    assert cells(notebook).count() == 8 * (20 + 600)
    notebook.widget.get_by_role("button", name="… 80 more").first.click()
    assert cells(notebook).count() == 8 * 620 + 80
    expect(cells(notebook).nth(620)).to_be_focused()
    more.click()
    notebook.widget.get_by_role("button", name="Show 4 more of 20").click()
    assert cells(notebook).count() == 20 * 620 + 80
    expect(notebook.widget.locator(".ml-tokens-more")).to_be_hidden()


def test_the_workbench_asks_for_tokens_while_somebody_looks(scripted: Open) -> None:
    notebook = scripted("ScriptedRun(20_000, rate=40)", "run.calls.count('tokens')")
    panel = notebook.widget.locator(".ml-tokens-panel")
    notebook.button("Start").click()
    notebook.await_points("loss", 20)
    assert notebook.run_cell(2) == "0"  # folded, nobody asks
    panel.locator("summary").click()
    expect(panel.locator(".ml-token").first).to_be_visible()
    expect(panel.locator(".ml-tokens-title")).to_have_text(["pair 1", "pair 2"])
    about = panel.locator(".ml-tokens-about")
    first = about.inner_text()
    panel.get_by_label("coloured by").select_option("logprob")
    panel.locator(".ml-token").nth(4).focus()
    expect(about).not_to_have_text(first)
    # New numbers move nothing: neither the choice nor the place.
    expect(panel.get_by_label("coloured by")).to_have_value("logprob")
    expect(panel.locator(".ml-token").nth(4)).to_be_focused()
    # Folded again, the page is silent, whatever there is to see: what it asked for before came before the cell.
    panel.locator("summary").click()
    asked = notebook.run_cell(2)
    notebook.await_points("loss", notebook.points("loss") + 80)
    assert notebook.run_cell(2) == asked
    notebook.button("Pause").click()
    notebook.await_status("paused")
    panel.locator("summary").click()
    done = notebook.widget.locator(".ml-count").inner_text()
    expect(about).to_contain_text(f"step {done.split()[1].replace(',', '')}")
