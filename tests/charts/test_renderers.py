"""All renderers say the same of the same run: titles, units, and every metric that a loss reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mint_lab.charts.canvas import Sheet
from mint_lab.charts.chart_spec import charts_of
from mint_lab.charts.overlay import overlay_charts
from mint_lab.charts.plotly_figure import comparison_figure, run_figure
from mint_lab.charts.run_data import RatioLimits
from mint_lab.charts.static_comparison import comparison_picture
from mint_lab.charts.static_picture import run_picture
from mint_lab.recipes.registry import RECIPES
from mint_lab.ui.wire_charts import charts_for

from .runs import run_of

CHARTS = {name: charts_of(recipe.charts) for name, recipe in RECIPES.items()}


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], list[str]]:
    """The texts of a picture, as they were meant: long ones are truncated when they are drawn."""

    def texts(draw: Callable[[], Any]) -> list[str]:
        found: list[str] = []
        original = Sheet.text

        def text(sheet: Sheet, x: float, y: float, words: str, **options: Any) -> str:
            found.append(words)
            return original(sheet, x, y, words, **options)

        with monkeypatch.context() as patch:
            patch.setattr(Sheet, "text", text)
            draw()
        return found

    return texts


@pytest.mark.parametrize("recipe", CHARTS)
def test_titles_units_and_labels_are_the_same_everywhere(
    recipe: str, written: Callable[[Callable[[], Any]], list[str]]
) -> None:
    charts = CHARTS[recipe]
    run = run_of(charts, limits=RatioLimits(0.8, 1.2))
    page = charts_for(recipe)
    picture = written(lambda: run_picture(run, charts))
    figure = run_figure(run, charts)
    titles = [chart.title for chart in charts]
    assert [chart["title"] for chart in page] == titles
    assert [a.text for a in figure.layout.annotations[: len(titles)]] == titles
    assert [text for text in picture if text in titles] == titles
    axes = [axis.title.text or "" for axis in figure.select_yaxes()]
    for chart, sent, axis in zip(charts, page, axes, strict=False):
        assert sent["unit"] == chart.unit
        assert (chart.unit or "") in axis
        assert (chart.unit or "") in picture
        labels = [line.label for line in chart.lines]
        assert [line["label"] for line in sent["lines"]] == labels
        for label in labels:
            assert any(text.startswith(label) for text in picture), label


@pytest.mark.parametrize("recipe", CHARTS)
def test_a_metric_in_no_chart_is_drawn_by_all(recipe: str, written: Callable[[Callable[[], Any]], list[str]]) -> None:
    """The page draws it from its own series: tests/ui/test_wire_charts.py; the command line: tests/test_cli.py."""
    charts = CHARTS[recipe]
    run = run_of(charts, margin_std=2.0)
    assert "margin_std" in written(lambda: run_picture(run, charts))
    assert "margin_std" in [a.text for a in run_figure(run, charts).layout.annotations]
    assert "margin_std" in written(lambda: comparison_picture([run, run_of(charts)], charts))
    assert "margin_std" in [a.text for a in comparison_figure([run], charts).layout.annotations]


@pytest.mark.parametrize("recipe", CHARTS)
def test_comparisons_have_one_order_of_charts(recipe: str, written: Callable[[Callable[[], Any]], list[str]]) -> None:
    charts = CHARTS[recipe]
    runs = [run_of(charts, label="a"), run_of(charts, label="b")]
    titles = [chart.title for chart in overlay_charts(charts)]
    assert [text for text in written(lambda: comparison_picture(runs, charts)) if text in titles] == titles
    assert [a.text for a in comparison_figure(runs, charts).layout.annotations] == titles
