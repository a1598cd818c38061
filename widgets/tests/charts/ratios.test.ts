// @vitest-environment jsdom
import { describe, expect, it, vi } from "vitest";
import "../page_stubs";
import { RatiosPanel } from "../../src/charts/ratios";
import type { Clip, HeatData, Histogram, State } from "../../src/messages";
import { chart, float32Buffer, float64Buffer, line, snapshotOf, storeOf, THEME, viewOf } from "../support";

vi.mock("../../src/lib/plotly", () => ({ default: { react: vi.fn(), purge: vi.fn() } }));

const CHART = chart("log_ratio", [line("up", "chosen", "A > 0"), line("down", "rejected", "A < 0")], {
  ...{ kind: "ratios", axis: "ratio r", counts: "tokens", bounds: [-1.025, 1.025] },
});
const CLIP: Clip = {
  ...{ low: { setting: "low", base: 0, slope: 1 }, high: { setting: "high", base: 0, slope: 1 }, both: false },
};
/** Four bins from -1 to 1; exp(0.5) is about 1.65, exp(-0.5) about 0.61. */
const histogram = (name: string, counts: number[]): Histogram => ({
  ...{ name, step: 6, source: "training", start: -1, width: 0.5, counts, clip: [0.8, 1.2] },
});
const STATE: Partial<State> = {
  ...{ clip: CLIP, settings: { low: Math.exp(-0.5), high: Math.exp(0.5) } },
  histograms: [histogram("up", [0, 2, 2, 4]), histogram("down", [1, 1, 0, 0])],
};
const heat = (name: string, values: number[]): HeatData => ({
  ...{ name, start: -1, bin: 0.5, bins: 4, width: 1, points: 1, source: "training" },
  ...{ steps: float64Buffer([6]), values: float32Buffer(values) },
});

const values = (entries: { label: string; value: string }[] | undefined) =>
  entries?.map(({ label, value }) => `${label}: ${value}`);

describe("RatiosPanel.drawing", () => {
  it("draws each half filled and hatched, and the clipped share of all tokens", () => {
    const { traces, legend, points, last, attributes, text } = new RatiosPanel(CHART).drawing(
      viewOf(storeOf(snapshotOf({}, STATE))),
    );
    // Of 10 tokens, the 4 above the upper limit and the 1 below the lower limit are clipped.
    expect(values(legend)).toEqual(["A > 0, clipped: ≈ 40 %", "A < 0, clipped: ≈ 10 %"]);
    expect(attributes).toMatchObject({ "data-clipped": "40.000 10.000", "data-pending": "true" });
    expect([points, last]).toEqual([10, 6]);
    expect(traces.map(({ x }) => x)).toEqual([[-0.25, 0.25], [0.75], [-0.25], [-0.75]]);
    expect(traces[0]?.y).toEqual([Math.sqrt(20), Math.sqrt(20)]);
    expect(traces[3]?.y).toEqual([-Math.sqrt(10)]);
    expect(traces[1]).toMatchObject({ marker: { color: THEME.roles.chosen, pattern: { shape: "/" } } });
    expect(traces[3]?.hovertemplate).toBe("%{customdata}<br>A &lt; 0, clipped<extra></extra>");
    expect(traces[3]?.customdata).toEqual(["10 % of tokens, r below 0.61"]);
    expect(text).toBe("step 6, clipped above 1.649 ≈ 40 % of the tokens, below 0.6065 ≈ 10 %");
  });

  it("shows a limit while it is chosen, and the applied one dotted", () => {
    const store = storeOf(snapshotOf({}, STATE));
    store.draft("high", 2);
    const panel = new RatiosPanel(CHART);
    expect(panel.followsDrafts).toBe(true);
    const { layout, attributes } = panel.drawing(viewOf(store));
    expect(attributes).toMatchObject({ "data-high": 2, "data-pending": "true" });
    const lines = (layout.shapes as { type: string; x0: number; line: { dash?: string } }[]).filter(
      ({ type }) => type === "line",
    );
    expect(lines.slice(0, 2)).toMatchObject([
      { x0: Math.log(1.2), line: { dash: "dot" } },
      { x0: Math.log(2), line: { dash: "solid" } },
    ]);
    expect((layout.annotations as { text: string }[]).map(({ text }) => text)).toContain("2, next update");
  });

  it("shows shares instead of limits for a loss that clips nothing", () => {
    const { legend, attributes, text } = new RatiosPanel(CHART).drawing(
      viewOf(storeOf(snapshotOf({}, { ...STATE, clip: null }))),
    );
    expect(values(legend)).toEqual(["A > 0: 80 %", "A < 0: 20 %"]);
    expect(attributes).toMatchObject({ "data-low": null, "data-high": null, "data-clipped": null });
    expect(text).toBe("step 6, the loss clips nothing");
  });

  it("has the axis of the chart's bounds before the first histogram", () => {
    const { layout, text, points } = new RatiosPanel(CHART).drawing(viewOf(storeOf(snapshotOf({}))));
    expect(layout.xaxis).toMatchObject({ range: [-1.025, 1.025], title: { text: "ratio r" } });
    expect([text, points]).toEqual(["no ratios yet", 0]);
  });

  it("can be drawn over time, each half with its own limit", () => {
    const heats = [heat("up", [0, 0.25, 0.25, 0.5]), heat("down", [0.5, 0.5, 0, 0])];
    const store = storeOf(snapshotOf({}, STATE, { heats }));
    const panel = new RatiosPanel(CHART);
    panel.drawing(viewOf(store)).toggle?.flip();
    const { traces, layout, legend, readout, points } = panel.drawing(viewOf(store));
    expect(traces).toMatchObject([
      { type: "heatmap", yaxis: "y" },
      { type: "heatmap", yaxis: "y2" },
    ]);
    expect(layout.shapes).toMatchObject([
      { yref: "y", y0: 0.5 },
      { yref: "y2", y0: -0.5 },
    ]);
    expect(values(legend)).toEqual(["of A > 0, beyond: ≈ 50 %", "of A < 0, beyond: ≈ 50 %"]);
    expect(values(readout?.(6))).toEqual(values(legend));
    expect(points).toBe(2);
  });
});

const near = (value: number) => expect.closeTo(value, 9);
const title = (text: string) => ({ text, standoff: 4, font: { size: 11, color: THEME.muted } });

describe("every part of RatiosPanel.drawing", () => {
  const { chosen, rejected } = THEME.roles;
  const drawn = (state: Partial<State> = {}, change = {}) =>
    new RatiosPanel(CHART).drawing(viewOf(storeOf(snapshotOf({}, { ...STATE, ...state })), change));

  it("is exact for the bars", () => {
    const filled = (color: string) => ({ color, line: { width: 0, color } });
    const hatched = (color: string) => ({
      ...{ color, line: { width: 1, color } },
      pattern: { shape: "/", fgcolor: color, bgcolor: THEME.surface, size: 5, solidity: 0.45 },
    });
    const width = near(0.46);
    expect(drawn().traces).toEqual([
      {
        ...{ type: "bar", x: [-0.25, 0.25], y: [Math.sqrt(20), Math.sqrt(20)], width: [width, width] },
        marker: filled(chosen),
        customdata: ["20 % of tokens, r 0.61 to 1.00", "20 % of tokens, r 1.00 to 1.65"],
        hovertemplate: "%{customdata}<br>A &gt; 0<extra></extra>",
      },
      {
        ...{ type: "bar", x: [0.75], y: [Math.sqrt(40)], width: [width], marker: hatched(chosen) },
        customdata: ["40 % of tokens, r above 1.65"],
        hovertemplate: "%{customdata}<br>A &gt; 0, clipped<extra></extra>",
      },
      {
        ...{ type: "bar", x: [-0.25], y: [-Math.sqrt(10)], width: [width], marker: filled(rejected) },
        customdata: ["10 % of tokens, r 0.61 to 1.00"],
        hovertemplate: "%{customdata}<br>A &lt; 0<extra></extra>",
      },
      {
        ...{ type: "bar", x: [-0.75], y: [-Math.sqrt(10)], width: [width], marker: hatched(rejected) },
        customdata: ["10 % of tokens, r below 0.61"],
        hovertemplate: "%{customdata}<br>A &lt; 0, clipped<extra></extra>",
      },
    ]);
  });

  it("is exact for the axes", () => {
    const { xaxis, yaxis, barmode, hovermode } = drawn().layout;
    expect([barmode, hovermode]).toEqual(["overlay", "closest"]);
    expect(xaxis).toEqual({
      ...{ range: [-1, 1], fixedrange: true, title: title("ratio r, step 6") },
      tickvals: [0.4, 0.5, 0.7, 1, 1.4, 2, 2.5].map(Math.log),
      ticktext: ["0.4", "0.5", "0.7", "1", "1.4", "2", "2.5"],
    });
    // The highest bar has 40 %, so the axis ends at 50 %, with room above.
    const top = near(1.04 * Math.sqrt(50));
    const [low, middle, high] = [5, 20, 50].map(Math.sqrt) as [number, number, number];
    expect(yaxis).toEqual({
      range: [near(-1.04 * Math.sqrt(50)), top],
      tickvals: [-high, -middle, -low, 0, low, middle, high],
      ticktext: ["50 %", "20 %", "5 %", "0 %", "5 %", "20 %", "50 %"],
      ...{ zeroline: true, zerolinecolor: THEME.muted },
    });
  });

  it("has more ticks on a chart wider than 420 pixels", () => {
    const ticks = (widthPx: number) => (drawn({}, { widthPx }).layout.xaxis as { ticktext: string[] }).ticktext;
    expect(ticks(420)).toHaveLength(7);
    expect(ticks(421)).toEqual([
      "0.4",
      "0.5",
      "0.6",
      "0.7",
      "0.8",
      "0.9",
      "1",
      "1.1",
      "1.25",
      "1.5",
      "1.75",
      "2",
      "2.5",
    ]);
  });

  it("is exact for the limits: a tint beyond each, the applied limit dotted and the chosen one solid", () => {
    const top = 1.04 * Math.sqrt(50);
    const tint = { type: "rect", layer: "below", opacity: 0.12, line: { width: 0 } };
    const dotted = { color: THEME.muted, width: 1.2, dash: "dot" };
    const solid = { color: THEME.text, width: 2, dash: "solid" };
    const lineAt = (x: number, y1: number, style: object) => ({
      ...{ type: "line", layer: "above", x0: near(x), x1: near(x), y0: 0, y1: near(y1), line: style },
    });
    expect(drawn().layout.shapes).toEqual([
      { ...tint, x0: near(0.5), x1: 1, y0: 0, y1: near(top), fillcolor: chosen },
      lineAt(Math.log(1.2), top, dotted),
      lineAt(0.5, top, solid),
      { ...tint, x0: -1, x1: near(-0.5), y0: 0, y1: near(-top), fillcolor: rejected },
      lineAt(Math.log(0.8), -top, dotted),
      lineAt(-0.5, -top, solid),
    ]);
  });

  it("has no dotted line if the limits are those of the step", () => {
    const settings = { low: 0.8, high: 1.2 };
    const { layout, attributes } = drawn({ settings });
    const dashes = (layout.shapes as { line: { dash?: string } }[]).map(({ line }) => line.dash);
    expect(dashes).toEqual([undefined, "solid", undefined, "solid"]);
    expect(attributes).toMatchObject({ "data-low": 0.8, "data-high": 1.2, "data-pending": "false" });
    const texts = (layout.annotations as { text: string }[]).map(({ text }) => text);
    expect(texts).toEqual(["A &gt; 0", "A &lt; 0", "1.2", "0.8"]);
    // Only the upper limit is being chosen, so the lower one has one line.
    const one = drawn({ settings: { low: 0.8, high: 1.5 } }).layout;
    expect((one.shapes as { line: { dash?: string } }[]).map(({ line }) => line.dash)).toEqual([
      ...[undefined, "dot", "solid"],
      ...[undefined, "solid"],
    ]);
    expect((one.annotations as { text: string }[]).map(({ text }) => text).slice(2)).toEqual([
      "1.5, next update",
      "0.8",
    ]);
  });

  it("is exact for the labels, outside of a limit if there is room", () => {
    const top = 1.04 * Math.sqrt(50);
    const font = { size: 11, color: THEME.text };
    expect(drawn({ settings: { low: 0.8, high: 1.2 } }).layout.annotations).toEqual([
      {
        ...{ x: -1, y: near(top), showarrow: false, xshift: 4, text: "A &gt; 0" },
        ...{ xanchor: "left", yanchor: "top", font: { size: 12, color: chosen } },
      },
      {
        ...{ x: 1, y: near(-top), showarrow: false, xshift: -4, text: "A &lt; 0" },
        ...{ xanchor: "right", yanchor: "bottom", font: { size: 12, color: rejected } },
      },
      {
        ...{ x: near(Math.log(1.2)), y: near(top), xanchor: "left", yanchor: "top", showarrow: false, xshift: 4 },
        ...{ font, text: "1.2" },
      },
      {
        ...{ x: near(Math.log(0.8)), y: near(-top), xanchor: "right", yanchor: "bottom", showarrow: false, xshift: -4 },
        ...{ font, text: "0.8" },
      },
    ]);
    // Less than a quarter of the axis is left beyond these limits, so their labels stand inside.
    const [upper, lower] = (drawn({ settings: { low: 0.5, high: 2 } }).layout.annotations as object[]).slice(2);
    expect(upper).toMatchObject({ xanchor: "right", xshift: -4 });
    expect(lower).toMatchObject({ xanchor: "left", xshift: 4 });
  });

  it("has arrows and no lines for limits beyond the axis", () => {
    const { layout } = drawn({ settings: { low: 0.25, high: 4 }, histograms: [] });
    expect((layout.shapes as { type: string }[]).map(({ type }) => type)).toEqual([]);
    expect((layout.annotations as { text: string; x: number }[]).slice(2)).toMatchObject([
      { text: "4 →", x: 1.025 },
      { text: "← 0.25", x: -1.025 },
    ]);
  });

  it("has no label for a lower limit of 0, and tints the whole half for an upper one of 0", () => {
    const { layout, legend } = drawn({ settings: { low: 0, high: 0 } });
    const shapes = layout.shapes as { type: string; x0: number; x1: number; y1: number }[];
    const solid = shapes.filter((shape) => shape.type === "rect");
    expect(solid).toMatchObject([{ x0: -1, x1: 1 }]);
    const texts = (layout.annotations as { text: string }[]).map(({ text }) => text);
    expect(texts.slice(2)).toEqual(["← 0, next update"]);
    expect(values(legend)).toEqual(["A > 0, clipped: ≈ 80 %", "A < 0, clipped: ≈ 0 %"]);
  });

  it("clips each half on both sides if the loss does", () => {
    const { attributes, layout, text } = drawn({ clip: { ...CLIP, both: true }, settings: { low: 0.8, high: 1.2 } });
    // Beyond 0.8 and 1.2, log-ratios -0.2231 and 0.1823, of bins that are 0.5 wide.
    const inside = (0.5 - 0.2231) / 0.5;
    const above = (0.5 - 0.1823) / 0.5;
    const [up, down] = String(attributes?.["data-clipped"]).split(" ").map(Number);
    expect(up).toBeCloseTo(40 + 20 * above + 20 * inside, 1);
    expect(down).toBeCloseTo(10 + 10 * inside, 1);
    expect((layout.shapes as { type: string }[]).filter(({ type }) => type === "line")).toHaveLength(4);
    expect(text).toBe(
      `step 6, clipped above 1.2 ≈ ${up?.toFixed(0)} % of the tokens, below 0.8 ≈ ${down?.toFixed(0)} %`,
    );
  });

  it("shows small shares with a decimal", () => {
    const histograms = [histogram("up", [0, 0, 95, 5]), histogram("down", [0, 0, 0, 0])];
    expect(values(drawn({ histograms }).legend)).toEqual(["A > 0, clipped: ≈ 5.0 %", "A < 0, clipped: ≈ 0 %"]);
    expect(drawn({ histograms }).traces[1]?.customdata).toEqual(["5.0 % of tokens, r above 1.65"]);
    const ten = [histogram("up", [0, 0, 90, 10]), histogram("down", [])];
    expect(values(drawn({ histograms: ten }).legend)?.[0]).toBe("A > 0, clipped: ≈ 10 %");
  });

  it("has dashes instead of shares without tokens, and half of the axis for 50 %", () => {
    const { legend, attributes, layout, last } = drawn({ histograms: [] });
    expect(legend).toEqual([
      { label: "A > 0, clipped", colour: chosen, value: "–" },
      { label: "A < 0, clipped", colour: rejected, value: "–" },
    ]);
    expect(attributes).toMatchObject({ "data-clipped": null, "data-pending": null, "data-low": near(Math.exp(-0.5)) });
    expect(layout.yaxis).toMatchObject({ range: [near(-1.04 * Math.sqrt(50)), near(1.04 * Math.sqrt(50))] });
    expect(last).toBeUndefined();
    expect(values(drawn({ histograms: [], clip: null }).legend)).toEqual(["A > 0, clipped: –", "A < 0, clipped: –"]);
    expect((drawn({ clip: null }).layout.annotations as object[]).length).toBe(2);
    expect(drawn({ histograms: [{ ...histogram("up", [0, 0, 0, 0]) }] }).layout.yaxis).toMatchObject({
      range: [near(-1.04 * Math.sqrt(50)), expect.anything()],
    });
  });

  it("has an axis of 5 % at least", () => {
    const histograms = [histogram("up", Array(40).fill(1)), histogram("down", [])];
    expect(drawn({ histograms }).layout.yaxis).toMatchObject({
      range: [near(-1.04 * Math.sqrt(5)), expect.anything()],
    });
  });

  it("uses the histogram of the second half if the first has none", () => {
    const { layout, last, text } = drawn({ histograms: [histogram("down", [1, 1, 0, 0])] });
    expect([layout.xaxis, last, text]).toMatchObject([{ range: [-1, 1] }, 6, expect.stringMatching(/^step 6, /)]);
  });

  it("escapes the axis title and what it counts", () => {
    const hostile = new RatiosPanel({ ...CHART, axis: "<i>", counts: "<b>" });
    const { layout, traces } = hostile.drawing(viewOf(storeOf(snapshotOf({}, STATE))));
    expect(layout.xaxis).toMatchObject({ title: { text: "&lt;i&gt;, step 6" } });
    expect(traces[1]?.customdata).toEqual(["40 % of &lt;b&gt;, r above 1.65"]);
    const bare = new RatiosPanel({ ...CHART, axis: "" }).drawing(viewOf(storeOf(snapshotOf({}, STATE))));
    expect(bare.layout.xaxis).toMatchObject({ title: { text: "step 6" } });
  });
});

describe("every part of RatiosPanel.drawing over time", () => {
  const heats = [heat("up", [0, 0.25, 0.25, 0.5]), heat("down", [0.5, 0.5, 0, 0])];
  const scene = (state: Partial<State> = {}, both = heats) => {
    const store = storeOf(snapshotOf({}, { ...STATE, steps_done: 6, ...state }, { heats: both }));
    store.view.overTime.add("log_ratio");
    return { store, drawing: () => new RatiosPanel(CHART).drawing(viewOf(store)) };
  };

  it("is exact for the axes and the limits", () => {
    const { drawing, store } = scene();
    const axis = {
      ...{ range: [-1, 1], type: "linear", ticktext: ["0.5", "0.7", "1", "1.4", "2"] },
      tickvals: [0.5, 0.7, 1, 1.4, 2].map(Math.log),
    };
    const limit = (text: string, yref: string, y: number) => ({
      ...{ type: "line", xref: "paper", x0: 0, x1: 1, yref, y0: near(y), y1: near(y) },
      line: { color: THEME.text, width: 1.2, dash: "dash" },
      label: { text, textposition: "end", font: { size: 10, color: THEME.text } },
    });
    const { layout, legend, last, isOverSteps, attributes, toggle, traces } = drawing();
    expect(layout).toEqual({
      hovermode: false,
      xaxis: { range: [0, 100], title: title("step"), tickformat: "~s", anchor: "y2" },
      yaxis: { ...axis, domain: [0.53, 1] },
      yaxis2: { ...axis, domain: [0, 0.47] },
      shapes: [limit("1.649", "y", 0.5), limit("0.6065", "y2", -0.5)],
    });
    expect(traces.map(({ colorscale }) => (colorscale as [number, string][])[1]?.[1])).toEqual([
      THEME.roles.chosen,
      THEME.roles.rejected,
    ]);
    expect(legend.map(({ colour }) => colour)).toEqual([THEME.roles.chosen, THEME.roles.rejected]);
    expect([last, isOverSteps, toggle?.isOn]).toEqual([6, true, true]);
    expect(attributes).toEqual({
      "data-low": near(Math.exp(-0.5)),
      "data-high": near(Math.exp(0.5)),
      "data-pending": null,
    });
    store.view.range = [2, 9];
    expect(drawing().layout.xaxis).toMatchObject({ range: [2, 9] });
  });

  it("has the share beyond both limits if both apply, and none for a lower limit of 0", () => {
    const both = { ...CLIP, both: true };
    const sides = [heat("up", [0.125, 0.25, 0.5, 0.125]), heat("down", [0.0625, 0, 0.9375, 0])];
    expect(values(scene({ clip: both }, sides).drawing().legend)).toEqual([
      "of A > 0, beyond: ≈ 25 %",
      "of A < 0, beyond: ≈ 6.3 %",
    ]);
    const { legend, layout } = scene({ clip: both, settings: { low: 0, high: Math.exp(0.5) } }, sides).drawing();
    expect(values(legend)).toEqual(["of A > 0, beyond: ≈ 13 %", "of A < 0, beyond: ≈ 0.0 %"]);
    expect(layout.shapes).toHaveLength(2);
    expect(values(scene({ clip: null }).drawing().legend)).toEqual([
      "of A > 0, beyond: ≈ 0.0 %",
      "of A < 0, beyond: ≈ 0.0 %",
    ]);
    expect(scene({ clip: null }).drawing().layout.shapes).toEqual([]);
  });

  it("has no limits without a state, and shows fifty steps", () => {
    const { store, drawing } = scene();
    store.state = null;
    const { layout, attributes } = drawing();
    expect([layout.xaxis, layout.shapes]).toMatchObject([{ range: [0, 50] }, []]);
    expect(attributes).toEqual({ "data-low": null, "data-high": null, "data-pending": null });
    store.view.overTime.clear();
    expect(drawing()).toMatchObject({ text: "no ratios yet", points: 0 });
  });

  it("needs both histories", () => {
    const store = storeOf(snapshotOf({}, STATE, { heats: heats.slice(0, 1) }));
    store.view.overTime.add("log_ratio");
    const { traces, toggle } = new RatiosPanel(CHART).drawing(viewOf(store));
    expect([traces[0]?.type, toggle]).toEqual(["bar", null]);
  });

  it("has dashes without a column", () => {
    const empty = heats.map((data) => ({ ...data, points: 0, steps: float64Buffer([]), values: float32Buffer([]) }));
    expect(values(scene({}, empty).drawing().legend)).toEqual(["of A > 0, beyond: –", "of A < 0, beyond: –"]);
  });
});
