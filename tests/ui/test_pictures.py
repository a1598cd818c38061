"""What readers without a kernel see: pictures of runs, of comparisons and of tokens, from the widgets' own data."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mint_lab.charts.canvas import INK, MUTED, Sheet
from mint_lab.charts.chart_spec import charts_of
from mint_lab.charts.colour_scale import blend, hexadecimal
from mint_lab.charts.palette import ROLES, RUNS, TOKENS
from mint_lab.charts.token_strips import strips_html, strips_picture
from mint_lab.losses import LOSSES
from mint_lab.recipes.record import Edit, StepRecord, histogram
from mint_lab.recipes.registry import recipe_of
from mint_lab.ui.pictures import picture_of_run, picture_of_runs, strips_of
from mint_lab.ui.samples import samples_of
from mint_lab.ui.tokens import tokens_message
from tests.charts.runs import colours, count, image_of, panels, places
from tests.engine.batches import datum
from tests.ui.scripted import Growing, ScriptedRun, record

HOSTILE = ["<img src=x onerror=alert(1)>", "</div></script>", '"><b>', "\u202egnp.exe", "w" * 10_000, "\x00", "&amp;"]


def test_the_picture_of_a_run_has_every_curve_in_its_colour() -> None:
    run = ScriptedRun(60)
    run.baseline = dict(record(10).held_out)
    run.records.extend(record(step, 60) for step in range(1, 61))
    run.edits.append(Edit(20, "setting", "beta 0.5"))
    seen = colours(image_of(picture_of_run(run)))
    for role, colour in ROLES["light"].items():
        assert count(seen, colour) > 200, role


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text of the pictures that the test draws, in order."""
    texts: list[str] = []
    real = Sheet.text

    def text(sheet: Sheet, x: float, y: float, words: str, **options: Any) -> str:
        texts.append(words)
        return real(sheet, x, y, words, **options)

    monkeypatch.setattr(Sheet, "text", text)
    return texts


def test_an_edit_made_while_a_picture_is_drawn_is_left_to_the_next(written: list[str]) -> None:
    """Otherwise a chart would have the number of an edit that the lines at the top do not name."""
    run = ScriptedRun(40)
    run.records.extend(record(step, 40) for step in range(1, 31))
    first, second = Edit(11, "setting", "beta 0.5"), Edit(21, "setting", "beta 0.25")
    run.edits = [first]
    picture, texts = picture_of_run(run), list(written)
    written.clear()
    run.edits = Growing([first], second)
    assert picture_of_run(run) == picture
    assert written == texts


@pytest.mark.parametrize("recipe", ["rl", "preference", "sft", "unknown"])
def test_a_run_without_records_says_so_in_every_chart(recipe: str, written: list[str]) -> None:
    run = ScriptedRun(10, recipe=recipe)
    image = image_of(picture_of_run(run))
    charts = charts_of(recipe_of(recipe).charts)
    assert written[0] == "pairwise_preference v1, step 0 of 10"
    assert written.count("no data yet") == len(charts)
    for name, panel in panels(image, charts).items():
        grey = places(panel.crop((panel.width // 3, 90, 2 * panel.width // 3, 140)), MUTED, 60)
        assert len(grey) > 50, name
    assert all(count(colours(image), colour, 20) == 0 for colour in ROLES["light"].values())


def test_the_numbers_of_a_run_are_drawn_where_they_belong(written: list[str]) -> None:
    """A loss of 1 in training, 3 held out and 2 before training, at steps 1 to 20 of 40; an edit before step 11."""
    run = ScriptedRun(40)
    run.baseline = {"loss": 2.0}
    run.records.extend(
        replace(record(step), metrics={"loss": 1.0}, held_out={"loss": 3.0}, histograms={}) for step in range(1, 21)
    )
    run.edits.append(Edit(11, "setting", "beta 0.5"))
    charts = charts_of(recipe_of("preference").charts)
    panel = panels(image_of(picture_of_run(run)), charts, 48)["loss"]
    low, high = 1.0, 3.0
    train, held_out = (places(panel, ROLES["light"][role]) for role in ("train", "held_out"))
    assert written[:2] == ["pairwise_preference v1, step 20 of 40", "1  beta 0.5, from step 11"]
    middle = {name: sum(y for _, y in found) / len(found) for name, found in (("train", train), ("held", held_out))}
    assert (middle["train"] - middle["held"]) / panel.height > 0.5, "1 lies far below 3"
    first = [y for x, y in held_out if x < 3]
    between = middle["train"] + (2.0 - low) / (high - low) * (middle["held"] - middle["train"])
    assert sum(first) / len(first) == pytest.approx(between, abs=8), (
        "the curve of held-out data begins at step 0 with the baseline"
    )
    assert max(x for x, _ in train) == panel.width - 1, "the axis ends at the last step"


def rollout(step: int) -> StepRecord:
    """Forty tokens of each sign, half of them far beyond PPO's bounds."""
    rise, fall = [0.0] * 20 + [0.6] * 20, [0.0] * 20 + [-0.6] * 20
    sample = {"source": "training", "prompt": "2 + 2", "response": " 4", "reward": 1.0, "advantage": 0.5}
    return StepRecord(
        step,
        0.0,
        0.1,
        80,
        "ppo",
        1,
        metrics={"reward": 0.5},
        histograms={
            name: histogram(values, name)
            for name, values in zip(("log_ratio/positive", "log_ratio/negative"), (rise, fall), strict=True)
        },
        samples=[{**sample, "tokens": [" 4", "<end>"], "ratio": [2.0, 1.0], "clipped": [True, False]}],
    )


def rollouts(loss: str) -> ScriptedRun:
    run = ScriptedRun(10, recipe="rl")
    run.loss, run._config = LOSSES[loss], LOSSES[loss].config()
    run.records.append(rollout(1))
    return run


def test_the_ratios_are_drawn_with_what_the_loss_clips() -> None:
    """The grounds beyond the bounds: none of a loss without a clip, and of gspo, which clips no single token."""
    ground = blend(ROLES["light"]["chosen"], 0.12)
    grounds = {}
    for loss in ("ppo", "cispo", "importance_sampling", "gspo"):
        grounds[loss] = count(colours(image_of(picture_of_run(rollouts(loss)))), ground)
    assert grounds["ppo"] > 5000
    assert grounds["cispo"] > 1.5 * grounds["ppo"]
    assert grounds["importance_sampling"] == grounds["gspo"] < 0.05 * grounds["ppo"]


def test_responses_stand_below_the_charts(written: list[str]) -> None:
    """The token with ratio 2 is twice as likely as when it was sampled, which is beyond the scale: its full colour."""
    run = rollouts("ppo")
    alone, both = image_of(picture_of_run(run)), image_of(picture_of_run(run, samples_of(run.records[0])))
    assert both.width == alone.width
    assert both.height > alone.height + 60
    below = both.crop((0, alone.height, both.width, both.height))
    assert count(colours(below), hexadecimal(TOKENS["light"]["above"]), 12) > 100
    assert "coloured by ratio · above 1: likelier than when it was sampled · ppo v1" in written
    assert any(text.startswith(" 4<end>") for text in written)
    assert "reward 1, advantage +0.5: 2 + 2" in written


def test_a_comparison_is_drawn_with_its_cosines(written: list[str]) -> None:
    runs = {"a": ScriptedRun(5), "b <i>": ScriptedRun(5)}
    for number, run in enumerate(runs.values(), 1):
        run.records.extend(replace(record(step, 5), held_out={"loss": float(number)}) for step in range(1, 6))
    comparison: Any = SimpleNamespace(recipe="preference", runs=runs)
    matrix: Any = {"labels": ["a", "b"], "values": [[1.0, None], [-0.5, 1.0]], "at": "a", "step": 7}
    bare, full = (image_of(picture_of_runs(comparison, cosines)) for cosines in (None, matrix))
    for colour in RUNS["light"][:2]:
        assert count(colours(bare), colour) > 500, colour
    assert written[:2] == ["a", "b <i>"]
    below = colours(full.crop((0, bare.height, full.width, full.height)))
    assert count(below, blend(ROLES["light"]["train"], 0.55)) > 4000  # two cells of cosine 1
    assert count(below, blend(ROLES["light"]["rejected"], 0.275)) > 2000  # one of -0.5
    table = written[written.index("cosines between gradients, at the weights of a, step 7") :]
    assert [text for text in table if text in ("1.000", "n/a", "-0.500")] == ["1.000", "n/a", "-0.500", "1.000"]
    assert image_of(picture_of_runs(comparison, {**matrix, "labels": [], "values": []})).height == bare.height


def test_hostile_tokens_are_visible_text_and_do_not_grow_the_output() -> None:
    tokens = list(range(len(HOSTILE)))
    tokenizer = SimpleNamespace(decode=lambda ids: HOSTILE[ids[0]])
    data = [datum(tokens, [0.0, *[1.0] * (len(tokens) - 2)])]
    strips = strips_of(tokens_message(data, tokenizer, {}, titles=["<script>x</script>\u202e"]))
    text = strips_html(strips)
    assert "⟨U+202E⟩gnp.exe" in text
    assert "<img" not in text
    assert "<script" not in text
    assert "w" * 33 not in text
    assert not {"\u202e", "\x00"} & set(text)
    assert len(text) < 6000
    image = image_of(strips_picture(strips))
    assert image.height < 400
    assert len(places(image, INK, 60)) > 500, "the letters of the tokens"


def test_numbers_are_in_the_titles_and_long_data_are_truncated_with_a_word() -> None:
    data = [datum([1] * 601, [1.0] * 600) for _ in range(9)]
    text = strips_html(strips_of(tokens_message(data, None, {"gradient": [np.full(600, -0.125)] * 9}, pairs=False)))
    assert "gradient -0.125" in text
    assert text.count("… 500 more …") == 6
    assert "3 more in a running notebook" in text


def test_a_shared_prompt_stands_once_and_ends_where_the_completions_begin() -> None:
    prompt = list(range(100, 250))
    data = [datum([*prompt, answer], [0.0] * 149 + [1.0]) for answer in (7, 8)]
    tokenizer = SimpleNamespace(decode=lambda ids: f"<{ids[0]}>")
    strips = strips_of(tokens_message(data, tokenizer, {}, pairs=True))
    (group,) = strips.groups
    assert [strip.label for strip in group.strips] == ["prompt", "chosen", "rejected"]
    first, *rest = group.strips[0].chips
    assert first.text == "… 50 more …"
    assert [chip.text for chip in (rest[0], rest[-1])] == ["<150>", "<249>"]
    assert [[chip.text for chip in strip.chips] for strip in group.strips[1:]] == [["<7>"], ["<8>"]]
