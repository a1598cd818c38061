"""The figure of a live run and of its folder."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from mint_lab.recipes.record import Edit, Rewind, StepRecord
from mint_lab.runs.figure import draw_run


def record(step: int, **fields: object) -> StepRecord:
    loss = str(fields.pop("loss", "pairwise_preference"))
    return StepRecord(step, 0.0, 0.0, 1, loss, 1, **fields)  # type: ignore[arg-type]


def run(records: list[StepRecord], edits: list[Edit] | None = None, **fields: Any) -> Any:
    empty = {"edits": edits or [], "rewinds": [], "parent": {}, "baseline": {}}
    return SimpleNamespace(records=records, **(empty | fields))


def test_the_recipes_charts_come_first_and_then_the_others() -> None:
    records = [record(1, metrics={"loss": 1.0, "margin_std": 0.5, "pair_accuracy": 1.0}, held_out={"loss": 2.0})]
    figure = draw_run(
        "preference", run(records, [Edit(1, "loss", "mine v1")], baseline={"displacement_frac": 0.0}), None
    )
    texts = [annotation.text for annotation in figure.layout.annotations]
    assert texts == ["loss", "pair_accuracy", "displacement_frac", "margin_std", "mine v1"]


def test_a_recipe_that_is_not_installed_has_every_metric() -> None:
    figure = draw_run("gone", run([record(1, metrics={"loss": 1.0, "zeta": 2.0})]), None)
    assert [annotation.text for annotation in figure.layout.annotations] == ["loss", "zeta"]


def test_ratios_are_clipped_as_at_the_last_step() -> None:
    counts = [0] * 41
    counts[20] = 5
    histograms = {"log_ratio/positive": counts, "log_ratio/negative": counts}
    for loss, bounds in (("ppo", 2), ("cispo", 4), ("forgotten", 2)):
        figure = draw_run("rl", run([record(1, loss=loss, histograms=histograms, clip=(0.8, 1.2))]), None)
        assert sum(annotation.text in ("0.8", "1.2") for annotation in figure.layout.annotations) == bounds, loss
    free = draw_run("rl", run([record(1, loss="importance_sampling", histograms=histograms)]), None)
    assert not any(annotation.text in ("0.8", "1.2") for annotation in free.layout.annotations)


def test_steps_before_a_rewind_are_drawn_too() -> None:
    left = Rewind(1, [record(2, metrics={"loss": 3.0})], [Edit(2, "loss", "gone v1")])
    figure = draw_run("preference", run([record(1, metrics={"loss": 1.0})], rewinds=[left]), None)
    assert [(trace.name, list(trace.x), list(trace.y)) for trace in figure.data] == [
        ("before rewind to 1", [1, 2], [1.0, 3.0]),
        ("training", [1], [1.0]),
    ]
    assert [annotation.text for annotation in figure.layout.annotations] == ["loss"]
