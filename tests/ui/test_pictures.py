"""What readers without a kernel see: pictures of runs, of comparisons and of tokens, from the widgets' own data."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mint_lab.charts.colour_scale import blend
from mint_lab.charts.palette import ROLES
from mint_lab.charts.token_strips import strips_html, strips_picture
from mint_lab.losses import LOSSES
from mint_lab.recipes.record import Edit, StepRecord, histogram
from mint_lab.ui.pictures import picture_of_run, picture_of_runs, strips_of
from mint_lab.ui.samples import samples_of
from mint_lab.ui.tokens import tokens_message
from tests.charts.runs import colours, count, image_of
from tests.engine.batches import datum
from tests.ui.scripted import ScriptedRun, record

HOSTILE = ["<img src=x onerror=alert(1)>", "</div></script>", '"><b>', "\u202egnp.exe", "w" * 10_000, "\x00", "&amp;"]


def test_the_picture_of_a_run_has_every_curve_in_its_colour() -> None:
    run = ScriptedRun(60)
    run.baseline = dict(record(10).held_out)
    run.records.extend(record(step, 60) for step in range(1, 61))
    run.edits.append(Edit(20, "setting", "beta 0.5"))
    seen = colours(image_of(picture_of_run(run)))
    for role, colour in ROLES["light"].items():
        assert count(seen, colour) > 200, role


@pytest.mark.parametrize("recipe", ["rl", "preference", "sft", "unknown"])
def test_a_run_without_records_can_be_drawn(recipe: str) -> None:
    assert image_of(picture_of_run(ScriptedRun(10, recipe=recipe))).width == 1620


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


def test_responses_stand_below_the_charts() -> None:
    run = rollouts("ppo")
    alone, both = image_of(picture_of_run(run)), image_of(picture_of_run(run, samples_of(run.records[0])))
    assert both.width == alone.width
    assert both.height > alone.height + 60
    assert len(colours(both.crop((0, alone.height, both.width, both.height)))) > 5


def test_a_comparison_is_drawn_with_its_cosines() -> None:
    runs = {"a": ScriptedRun(5), "b <i>": ScriptedRun(5)}
    for run in runs.values():
        run.records.extend(record(step, 5) for step in range(1, 6))
    comparison: Any = SimpleNamespace(recipe="preference", runs=runs)
    matrix: Any = {"labels": ["a", "b"], "values": [[1.0, None], [None, 1.0]], "at": None, "step": 0}
    bare, full = (image_of(picture_of_runs(comparison, cosines)) for cosines in (None, matrix))
    assert full.height > bare.height
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
    assert image_of(strips_picture(strips)).height < 400


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
