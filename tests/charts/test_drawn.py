"""What a picture writes and draws, call by call: each word, each place and each colour.

The sheet is not rendered. It is 1080 units wide, a chart 360 by 230. The plot of the first chart is from 56 to 346 and,
below a heading of 30, from 82 to 234.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from mint_lab.charts import static_picture
from mint_lab.charts.axes import round_range, round_up, short, step_ticks, tick_labels, ticks_between
from mint_lab.charts.canvas import GRID, INK, MUTED, Box, Sheet, _corners
from mint_lab.charts.chart_spec import CHARTS, ChartSpec, LineSpec
from mint_lab.charts.colour_scale import ColourScale, blend
from mint_lab.charts.palette import ROLES, RUNS
from mint_lab.charts.ratio_bins import halves_of, pieces, root_ticks
from mint_lab.charts.run_data import DrawnBranch, RatioLimits, run_data
from mint_lab.charts.static_comparison import CosineTable, comparison_picture
from mint_lab.charts.static_picture import run_picture
from mint_lab.charts.token_strips import Chip, Strip, StripGroup, TokenStrips, strips_picture

from .runs import Edit, Record

TRAIN, HELD_OUT, CHOSEN, REJECTED = (ROLES["light"][role] for role in ("train", "held_out", "chosen", "rejected"))
EN_DASH = "\N{EN DASH}"
ACCURACY = replace(CHARTS["pair_accuracy"], bounds=(0.0, 1.0))


@dataclass
class Drawn:
    """The calls of a sheet, in order.

    Attributes:
        texts: Text, x, y, colour and anchor.
        paths: Corners, colour, width, dashes and diameter of points.
        areas: Corners, colour and hatch.
    """

    texts: list[tuple[str, float, float, str, str]] = field(default_factory=list)
    paths: list[tuple[list[tuple[float, float]], str, float, tuple[float, ...], float]] = field(default_factory=list)
    areas: list[tuple[list[tuple[float, float]], str, str]] = field(default_factory=list)

    @property
    def words(self) -> list[str]:
        return [text for text, *_ in self.texts]

    def curves(self, colour: str) -> list[list[tuple[float, float]]]:
        return [points for points, one, *_ in self.paths if one == colour]

    def place(self, word: str) -> tuple[float, float, str, str]:
        ((_, x, y, colour, anchor),) = [found for found in self.texts if found[0] == word]
        return x, y, colour, anchor


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """The calls of every sheet that the test draws; a picture has no pixels."""
    calls = Drawn()
    write = Sheet.text

    def text(sheet: Sheet, x: float, y: float, text: str, **look: Any) -> str:
        written = write(sheet, x, y, text, **look)
        if written:
            calls.texts.append((written, x, y, look.get("colour", INK), look.get("anchor", "lt")))
        return written

    def path(sheet: Sheet, x: Any, y: Any, colour: str, width: float, **look: Any) -> None:
        points = list(zip(x, y, strict=True))
        calls.paths.append((points, colour, width, tuple(look.get("dashes", ())), look.get("marker", 0)))

    def area(sheet: Sheet, corners: Any, colour: str, *, hatch: str = "", within: Any = None) -> None:
        calls.areas.append((list(corners), colour, hatch))

    def boxes(sheet: Sheet, boxes: Any) -> None:
        for box, colour in boxes:
            sheet.box(box, colour)

    for name, replacement in (("text", text), ("path", path), ("area", area), ("boxes", boxes)):
        monkeypatch.setattr(Sheet, name, replacement)
    monkeypatch.setattr(Sheet, "png", lambda sheet: b"")
    return calls


# -- a run -------------------------------------------------------------------------------------------------------------


def test_words_of_a_chart_of_curves(drawn: Drawn) -> None:
    records = [Record(step, {"loss": 4.0 - step}, {"loss": 2.5} if step == 4 else {}) for step in range(1, 5)]
    run_picture(run_data("", records, {"loss": 3.0}), [CHARTS["loss"]], "a heading")
    assert drawn.words == [
        *["a heading", "loss", "training", "0", "held-out", "2.500"],
        *["0", "1", "2", "3", "4"],  # the loss, from 0 to 3
        *["0", "1", "2", "3", "4"],  # the steps
    ]
    assert drawn.place("a heading") == (12, 8, MUTED, "lt")
    assert drawn.place("loss") == (12, 35, INK, "lt")
    boxes = [(corners[0], corners[2], colour) for corners, colour, _ in drawn.areas]
    assert boxes[0] == ((12, 57), (21, 66), TRAIN)
    assert [colour for *_, colour in boxes] == [TRAIN, HELD_OUT]


def test_places_of_the_numbers_along_the_axes(drawn: Drawn) -> None:
    """Steps 0 to 4 over 290 units from 56; the accuracy from -0.03 to 1.03 over 152 units from 234 up."""
    records = [Record(4, {"pair_accuracy": 0.5})]
    run_picture(run_data("", records, {}), [ACCURACY])
    across = {text: x for text, x, _, _, anchor in drawn.texts if anchor == "mt"}
    assert across == pytest.approx({str(k): 56 + 290 * k / 4 for k in range(5)})
    up = {text: y for text, _, y, _, anchor in drawn.texts if anchor == "rm"}
    height = {text: 234 - 152 * (float(text) + 0.03) / 1.06 for text in ("0.00", "0.25", "0.50", "0.75", "1.00")}
    assert up == pytest.approx(height)
    assert {y for _, _, y, _, anchor in drawn.texts if anchor == "mt"} == {240}
    lines = [points for points, colour, *_ in drawn.paths if colour == GRID]
    assert [points[0][1] for points in lines] == pytest.approx(list(height.values()))
    assert {(points[0][0], points[1][0]) for points in lines} == {(56, 346)}


def test_curve_of_training_is_faint_and_its_mean_strong(drawn: Drawn) -> None:
    """Up to 100 values the weight halves at each step: means of 0, 1 and 0 are 0, 2/3 and 2/7."""
    records = [Record(step, {"pair_accuracy": value}) for step, value in ((1, 0.0), (2, 1.0), (3, 0.0))]
    run_picture(run_data("", records, {}), [ACCURACY])

    def at(values: list[float]) -> list[tuple[float, float]]:
        return [(56 + 290 * k / 3, 82 + 152 * (1.03 - value) / 1.06) for k, value in enumerate(values, 1)]

    (faint,) = drawn.curves(blend(TRAIN, 0.35))
    (strong,) = drawn.curves(TRAIN)
    assert faint == [pytest.approx(point) for point in at([0.0, 1.0, 0.0])]
    assert strong == [pytest.approx(point) for point in at([0.0, 2 / 3, 2 / 7])]
    widths = {colour: width for _, colour, width, *_ in drawn.paths}
    assert widths[blend(TRAIN, 0.35)] < widths[TRAIN]


def test_smoothing_of_long_curves_and_its_restart() -> None:
    """With 200 values the weight halves in two steps, so its factor is the root of a half."""
    decay = 0.5**0.5
    first = static_picture._smoothed(range(200), [0.0, 1.0] + [1.0] * 198, [])
    assert first[1] == pytest.approx(1 / (1 + decay))
    restarted = static_picture._smoothed([1, 2, 3, 4], [8.0, 8.0, 1.0, 1.0], [3])
    assert restarted == [8.0, 8.0, 1.0, 1.0]
    assert static_picture._smoothed([1, 2, 4, 5], [8.0, 8.0, 1.0, 1.0], [3]) == [8.0, 8.0, 1.0, 1.0]
    assert static_picture._smoothed([3, 4], [8.0, 0.0], [2, 4, 9]) == [8.0, 0.0]


@pytest.mark.parametrize(("evaluations", "marker"), [(40, 4.5), (41, 0)])
def test_held_out_values_have_points_while_there_are_few(drawn: Drawn, evaluations: int, marker: float) -> None:
    records = [Record(step, {}, {"loss": 1.0}) for step in range(1, evaluations + 1)]
    run_picture(run_data("", records, {}), [CHARTS["loss"]])
    ((points, *_, found),) = [path for path in drawn.paths if path[1] == HELD_OUT]
    assert (len(points), found) == (evaluations, marker)


def test_band_lies_one_standard_deviation_around_the_mean(drawn: Drawn) -> None:
    chart = ChartSpec("m", lines=(LineSpec("m", "mine", "train", spread="m_std"),), bounds=(0.0, 1.0))
    records = [Record(step, {"m": 0.5, "m_std": 0.25}) for step in (1, 2)]
    run_picture(run_data("", records, {}), [chart])
    ((corners, _, _),) = [area for area in drawn.areas if area[1] == blend(TRAIN, 0.13)]
    heights = [82 + 152 * (1.03 - value) / 1.06 for value in (0.75, 0.75, 0.25, 0.25)]
    assert [x for x, _ in corners] == pytest.approx([201, 346, 346, 201])
    assert [y for _, y in corners] == pytest.approx(heights)


def test_charts_without_numbers_say_so(drawn: Drawn) -> None:
    charts = [CHARTS["loss"], CHARTS["margin"], CHARTS["log_ratio"]]
    run_picture(run_data("", [], {}), charts)
    assert drawn.words.count("no data yet") == 3
    assert not {"training", "above 0", "A > 0"} & set(drawn.words), "an empty chart has no legend"


def test_latest_number_of_the_legend_is_finite(drawn: Drawn) -> None:
    values = [0.5, 0.25, math.nan]
    run_picture(run_data("", [Record(k, {"pair_accuracy": v}) for k, v in enumerate(values)], {}), [CHARTS["loss"]])
    run_picture(
        run_data("", [Record(k, {"pair_accuracy": v}) for k, v in enumerate(values)], {}), [CHARTS["pair_accuracy"]]
    )
    assert drawn.words[drawn.words.index("training") + 1] == "0.250"


def test_changes_are_listed_three_a_line_and_numbered(drawn: Drawn) -> None:
    changes = [Edit(step, "setting", f"beta  {step}") for step in range(1, 12)]
    run_picture(run_data("", [Record(100, {"loss": 1.0})], {}, changes), [CHARTS["loss"]])
    assert drawn.words[:3] == [
        "      ".join(f"{k}  beta {k}, from step {k}" for k in numbers)
        for numbers in ((3, 4, 5), (6, 7, 8), (9, 10, 11))
    ]
    assert [(x, y) for _, x, y, _, _ in drawn.texts[:3]] == [(12, 30), (12, 48), (12, 66)]


def test_label_of_a_change_has_48_characters(drawn: Drawn) -> None:
    run_picture(run_data("", [Record(2, {"loss": 1.0})], {}, [Edit(1, "loss", "x" * 60)]), [CHARTS["loss"]])
    assert drawn.words[0] == f"1  {'x' * 48}, from step 1"


def test_changes_nearer_than_a_fifteenth_share_their_number(drawn: Drawn) -> None:
    """Of 30 steps a fifteenth is 2: 10 and 12 share a number, and 13 begins the next group."""
    changes = [Edit(step, "setting", "x") for step in (10, 12, 13, 20)]
    run_picture(run_data("", [Record(30, {"loss": 1.0})], {}, changes), [CHARTS["loss"]])
    marks = {text: x for text, x, _, _, anchor in drawn.texts if anchor == "mb"}
    assert marks == pytest.approx(
        {f"1{EN_DASH}2": 56 + 290 * 9.5 / 30, "3": 56 + 290 * 12.5 / 30, "4": 56 + 290 * 0.65}
    )
    lines = sorted(points[0][0] for points, _, _, dashes, _ in drawn.paths if dashes == (1, 3))
    assert lines == pytest.approx([56 + 290 * (step - 0.5) / 30 for step in (10, 12, 13, 20)])


def test_words_and_bars_of_a_histogram(drawn: Drawn) -> None:
    """Bins of 1 nat from -20: bin 20 begins at 0. Of four pairs three are above 0."""
    counts = [0] * 40
    counts[19], counts[20] = 1, 3
    run_picture(run_data("", [Record(7, {}, {}, {"margin": counts})], {}), [CHARTS["margin"]])
    assert drawn.words == [
        *["nats", "margins", "step 7", "above 0", "75 %", "below 0", "25 %"],
        *["0 %", "20 %", "40 %", "60 %", "80 %"],
        *["-20", "-10", "0", "10", "20"],
    ]
    bars = {colour: corners for corners, colour, _ in drawn.areas[2:]}
    for colour, centre, share in ((REJECTED, -0.5, 25), (CHOSEN, 0.5, 75)):
        left, right = (56 + 290 * (centre + side + 20) / 40 for side in (-0.44, 0.44))
        top = 234 - 152 * share / 80
        assert bars[colour] == [
            pytest.approx(point) for point in ((left, 234), (right, 234), (right, top), (left, top))
        ]


def test_words_bars_and_bounds_of_ratios(drawn: Drawn) -> None:
    """Bin 20 of 41 holds ratio 1, bin 30 the ratio e**0.5 = 1.65. The root axis ends at 1.04 times the root of 50."""
    up, down = [0] * 41, [0] * 41
    up[20], up[30], down[20] = 1, 1, 2
    record = Record(5, histograms={"log_ratio/positive": up, "log_ratio/negative": down})
    run_picture(run_data("", [record], {}, (), RatioLimits(0.8, 1.25)), [CHARTS["log_ratio"]])
    assert drawn.words == [
        *["share of tokens, root scale", "ratio by sign of the advantage", "ratio r, step 5"],
        *["A > 0, clipped", "≈ 25 %", "A < 0, clipped", "≈ 0 %"],
        *["0 %", "5 %", "5 %", "20 %", "20 %", "50 %", "50 %"],
        *["0.4", "0.5", "0.7", "1", "1.4", "2", "2.5"],
        *["1.25", "A > 0", "0.8", "A < 0"],
    ]
    middle, half, height = 158.0, 76.0, 1.04 * 50**0.5
    x = {ratio: 56 + 650 * (math.log(ratio) + 1.025) / 2.05 for ratio in (0.8, 1.0, 1.25)}
    assert drawn.place("1.25") == (pytest.approx(x[1.25] + 4), pytest.approx(82), INK, "lt")
    assert drawn.place("0.8") == (pytest.approx(x[0.8] - 4), pytest.approx(234), INK, "rb")
    assert drawn.place("A > 0") == (60, pytest.approx(82), CHOSEN, "lt")
    assert drawn.place("A < 0") == (702, pytest.approx(234), REJECTED, "rb")
    hatched = [(corners, colour, hatch) for corners, colour, hatch in drawn.areas if hatch]
    ((corners, ground, hatch),) = hatched
    assert (ground, hatch) == (blend(CHOSEN, 0.35), CHOSEN)
    assert min(px for px, _ in corners) == pytest.approx(56 + 650 * (10 * 0.05 + 1.0 + 0.002) / 2.05)
    tops = {colour: min(py for _, py in area) for area, colour, _ in drawn.areas[2:] if colour == CHOSEN}
    assert tops[CHOSEN] == pytest.approx(middle - half * 25**0.5 / height)
    bottoms = {colour: max(py for _, py in area) for area, colour, _ in drawn.areas[2:] if colour == REJECTED}
    assert bottoms[REJECTED] == pytest.approx(middle + half * 50**0.5 / height)


def test_metric_without_a_chart_gets_a_small_one_with_its_number(drawn: Drawn) -> None:
    records = [Record(step, {"loss": 1.0, "mine": step / 4}) for step in (1, 2)]
    run_picture(run_data("", records, {}), [CHARTS["loss"]])
    top = 30 + 230 + 8
    assert drawn.place("mine") == (12, top, INK, "lt")
    assert [(text, x, y) for text, x, y, colour, _ in drawn.texts if colour == TRAIN] == [("0.500", 12, top + 16)]
    curve = drawn.curves(TRAIN)[-1]
    width, frame = 1068 / 6 - 14, top + 34
    assert [x for x, _ in curve] == pytest.approx([12 + width / 2, 12 + width])
    assert all(frame <= y <= frame + 46 for _, y in curve)


# -- several runs ------------------------------------------------------------------------------------------------------


def test_words_colours_and_dashes_of_a_comparison(drawn: Drawn) -> None:
    runs = [
        run_data("first", [Record(1, {"loss": 2.0}, {"loss": 1.0})], {}),
        run_data("second", [Record(4, {"loss": 3.0})], {}),
    ]
    table = CosineTable(["first", "second"], [[1.0, -0.5], [-0.5, None]], at="first", step=4)
    comparison_picture(runs, [CHARTS["loss"]], table)
    assert drawn.words[:8] == [
        *["first", "second", "strong: held-out data; faint: training batches"],
        *["each in its own unit", "loss", "1.000", "3.000", "1"],
    ]
    assert drawn.words[-9:] == [
        "cosines between gradients, at the weights of first, step 4",
        *["first", "first", "1.000", "-0.500"],
        *["second", "second", "-0.500", "n/a"],
    ]
    one, other = RUNS["light"][:2]
    look = [(colour, width, dashes) for _, colour, width, dashes, _ in drawn.paths if colour not in (GRID, MUTED)]
    assert look == [
        (one, 2.2, ()),  # the legend
        (other, 2.2, (8, 5)),
        (blend(one, 0.3), 1, ()),  # training, under held-out data of the same run
        (other, 1, (8, 5)),  # training of a run without held-out data
        (one, 2, ()),
    ]
    cells = [(corners[0], colour) for corners, colour, _ in drawn.areas[-3:]]
    top = 52 + 230 + 34 + 26 + 1
    assert cells == [
        ((171, top), blend(TRAIN, 0.55)),
        ((279, top), blend(REJECTED, 0.275)),
        ((171, top + 26), blend(REJECTED, 0.275)),
    ]


def test_table_before_training_says_so(drawn: Drawn) -> None:
    comparison_picture([run_data("a", [], {})], [CHARTS["loss"]], CosineTable(["a"], [[0.0]]))
    assert "cosines between gradients, at the weights before training" in drawn.words
    assert drawn.areas[-1][1] == blend(TRAIN, 0.0), "a cosine of 0 has no colour"


# -- tokens ------------------------------------------------------------------------------------------------------------


def test_words_and_grounds_of_token_strips(drawn: Drawn) -> None:
    scale = ColourScale("diverging", -2.0, 2.0)
    red, blue = scale.ground(-2.0), scale.ground(1.0)
    chips = [Chip("ab", red), Chip("c", None), Chip("de", blue)]
    strips = TokenStrips("what it means", scale, [StripGroup("pair 1", [Strip("chosen", chips)])], "and 3 more")
    strips_picture(strips)
    assert drawn.words[:3] == ["what it means", "-2", "2"]
    assert drawn.words[3:] == ["pair 1", "chosen", "ab de", "  c", "and 3 more"]
    assert drawn.place("pair 1")[:2] == (12, 40)
    assert drawn.place("chosen")[:2] == (12, 66)
    assert drawn.place("and 3 more")[:2] == (12, 96)
    grounds = [(corners, colour) for corners, colour, _ in drawn.areas[-2:]]
    cell = (grounds[0][0][1][0] - grounds[0][0][0][0] + 1) / 2
    assert [colour for _, colour in grounds] == ["#" + bytes(ground or ()).hex() for ground in (red, blue)]
    assert [corners[0] for corners, _ in grounds] == [pytest.approx((90, 64)), pytest.approx((90 + 3 * cell, 64))]


# -- axes and bins -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "up"),
    [
        (1.0, 1.0),
        (1.001, 2.0),
        (2.0, 2.0),
        (2.001, 2.5),
        (2.5, 2.5),
        (2.501, 5.0),
        (5.0, 5.0),
        (5.001, 10.0),
        (-1.0, 1.0),
    ],
)
def test_round_numbers_at_their_edges(value: float, up: float) -> None:
    assert round_up(value) == pytest.approx(up)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.001, "0.001"),
        (0.00099, "9.9e-4"),
        (9.9994, "9.999"),
        (10.0, "10.00"),
        (99.99, "99.99"),
        (100.0, "100.0"),
        (999.9, "999.9"),
        (1000.0, "1000"),
        (99_999.0, "99999"),
        (100_000.0, "1.0e5"),
        (-0.5, "-0.500"),
        (-math.inf, EN_DASH),
    ],
)
def test_short_numbers_change_their_form_at_powers_of_ten(value: float, text: str) -> None:
    assert short(value) == text


def test_more_than_six_ticks_are_thinned_to_even_multiples() -> None:
    assert ticks_between(0, 5, 1) == [0, 1, 2, 3, 4, 5]
    assert ticks_between(0, 6, 1) == [0, 2, 4, 6]
    assert ticks_between(1, 7, 1) == [2, 4, 6]
    assert ticks_between(-0.25, 0.5, 0.25) == [-0.25, 0.0, 0.25, 0.5]


@pytest.mark.parametrize(
    ("last", "ticks"),
    [(1, [0, 1]), (5, [0, 1, 2, 3, 4, 5]), (6, [0, 2, 4, 6]), (10, [0, 2, 4, 6, 8, 10]), (12, [0, 5, 10])],
)
def test_ticks_of_steps_at_their_edges(last: int, ticks: list[float]) -> None:
    assert step_ticks(last) == ticks


@pytest.mark.parametrize(
    ("ticks", "labels"),
    [
        ([0.0, 50_000.0], ["0", "50,000"]),
        ([0.0, 100_000.0], ["0", "1.0e5"]),
        ([0.0, 0.001], ["0.000", "0.001"]),
        ([0.0, 0.0005], ["0", "5.0e-4"]),
        ([100_000.0, 110_000.0], ["1.00e5", "1.10e5"]),
        ([1.0], ["1"]),
    ],
)
def test_labels_change_to_exponents_at_their_edges(ticks: list[float], labels: list[str]) -> None:
    assert tick_labels(ticks) == labels


def test_ranges_keep_room_and_do_not_go_below_zero_without_need() -> None:
    assert round_range(0.0, 4.0) == (0.0, 5.0, 1.0)  # 4 % of room above 4
    assert round_range(-1.0, 3.0) == (-2.0, 4.0, 1.0)
    assert round_range(4.0, 4.0) == (1.0, 7.0, 1.0)  # from 2 to 6, with room
    assert round_range(math.inf, 1.0) == (0.0, 1.0, 0.25)


@pytest.mark.parametrize(
    ("below", "above", "clipped"),
    [
        (None, None, 0),
        (None, 1.0, 2),  # of four tokens, those in the bins above a log-ratio of 0
        (1.0, None, 2),
        (1.0, 1.0, 4),
        (None, math.exp(0.5), 1.5),  # half of the bin from 0 to 1
        (math.exp(-0.5), None, 1.5),
        (None, math.exp(2.0), 0),  # the end of the axis
        (None, math.exp(-2.0), 4),
        (math.exp(-2.0), None, 0),
        (math.exp(2.0), None, 4),
        (0.0, None, 0),
    ],
)
def test_tokens_beyond_a_bound_are_clipped(below: float | None, above: float | None, clipped: float) -> None:
    """Four bins from -2 to 2, a token in each."""
    found = pieces([1, 1, 1, 1], (-2.0, 2.0), 4, below, above)
    assert sum(piece.part for piece in found if piece.clipped) == pytest.approx(25 * clipped)
    assert sum(piece.part for piece in found) == pytest.approx(100)


def test_halves_are_those_of_the_last_step_with_tokens() -> None:
    up = [0] * 40 + [1]
    records = [
        Record(1, histograms={"log_ratio/positive": up, "log_ratio/negative": [5, *[0] * 40]}),
        Record(2, histograms={"log_ratio/positive": up}),
    ]
    positive, negative = halves_of(CHARTS["log_ratio"], run_data("", records, {}))
    assert (positive.label, positive.sign, positive.summary) == ("A > 0", 1, ("A > 0", "100 %"))
    assert (negative.label, negative.sign, negative.pieces) == ("A < 0", -1, [])


@pytest.mark.parametrize(
    ("top", "ticks"),
    [(0.9, []), (1.0, [1.0]), (4.9, [1.0]), (5.0, [1.0, 5.0]), (20.6, [1.0, 5.0, 20.0]), (20.7, [5.0, 20.0])],
)
def test_lines_of_the_root_axis_at_their_edges(top: float, ticks: list[float]) -> None:
    """A line is at least 0.22 of the axis away from 0: the root of 1 is that up to a top of 20.66."""
    assert root_ticks(top) == ticks


def test_boxes_have_their_four_corners() -> None:
    assert _corners(Box(1, 2, 3, 4)) == [(1, 2), (4, 2), (4, 6), (1, 6)]


def test_steps_that_a_run_has_left_are_faint_dashes_below_its_curves(drawn: Drawn) -> None:
    """Steps 3 and 4 were left. The mean of 0, 0, 1 and 1 halves the weight at each step: 4/7 and 12/15."""
    left = [Record(step, {"pair_accuracy": float(step > 2)}) for step in range(1, 5)]
    branch = DrawnBranch(2, run_data("before rewind to 2", left, {}))
    records = [Record(step, {"pair_accuracy": 0.0}) for step in (1, 2)]
    run_picture(run_data("", records, {}, branches=[branch], branches_left_out=2), [ACCURACY])
    assert drawn.words[:2] == ["before rewind to 2", "2 earlier ones are not drawn"]
    (curve,) = drawn.curves(blend(TRAIN, 0.55))
    top = 82 + 18  # the legend takes a row
    means = {2: 0.0, 3: 4 / 7, 4: 12 / 15}
    expected = [(56 + 290 * step / 4, top + 152 * (1.03 - mean) / 1.06) for step, mean in means.items()]
    assert [tuple(point) for point in curve] == [pytest.approx(point) for point in expected]
