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
