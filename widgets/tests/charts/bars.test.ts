// @vitest-environment jsdom
import { describe, expect, it, vi } from "vitest";
import "../page_stubs";
import { BarsPanel } from "../../src/charts/bars";
import type { HeatData, Histogram } from "../../src/messages";
import { chart, float32Buffer, float64Buffer, line, snapshotOf, storeOf, THEME, viewOf } from "../support";

vi.mock("../../src/lib/plotly", () => ({ default: { react: vi.fn(), purge: vi.fn() } }));

const CHART = chart("margin", [line("", "chosen", "above 0"), line("", "rejected", "below 0")], {
  ...{ kind: "bars", axis: "chosen <minus> rejected", counts: "pairs", bounds: [-20, 20] },
});
const HISTOGRAM: Histogram = {
  ...{ name: "margin", step: 8, source: "held-out", start: -2, width: 1, counts: [1, 0, 2, 5], clip: null },
};
const HEAT: HeatData = {
  ...{ name: "margin", start: -2, bin: 1, bins: 4, width: 1, points: 2, source: "held-out" },
  ...{ steps: float64Buffer([4, 8]), values: float32Buffer([0.75, 0, 0.25, 0, 0, 0, 0.25, 0.75]) },
};

const values = (entries: { label: string; value: string }[] | undefined) =>
  entries?.map(({ label, value }) => `${label}: ${value}`);

describe("BarsPanel.drawing", () => {
  it("draws the share of each bin in the colours of the two lines", () => {
    const store = storeOf(snapshotOf({}, { histograms: [HISTOGRAM] }));
    const { traces, legend, points, last, toggle } = new BarsPanel(CHART).drawing(viewOf(store));
    const { chosen, rejected } = THEME.roles;
    expect(traces).toMatchObject([
      {
        ...{ type: "bar", x: [-1.5, -0.5, 0.5, 1.5], y: [12.5, 0, 25, 62.5], width: 1 },
        marker: { color: [rejected, rejected, chosen, chosen] },
        customdata: ["below -1.000", "-1 to 0", "0 to 1", "above 1.000"],
        hovertemplate: "%{y:.1f} % of pairs, %{customdata}<extra></extra>",
      },
    ]);
    expect(values(legend)).toEqual(["above 0: 88 %", "below 0: 12 %"]);
    expect([points, last, toggle]).toEqual([8, 8, null]);
  });

  it("escapes the axis title, and marks ends that count values beyond them", () => {
    const store = storeOf(snapshotOf({}, { histograms: [HISTOGRAM] }));
    const { layout } = new BarsPanel(CHART).drawing(viewOf(store));
    const { title, range, ticktext } = layout.xaxis as { title: { text: string }; range: number[]; ticktext: string[] };
    expect(title.text).toBe("chosen &lt;minus&gt; rejected, held-out, step 8");
    expect([range, ticktext[0], ticktext.at(-1)]).toEqual([[-2, 2], "≤ −2", "≥ 2"]);
  });

  it("has the axis of the chart's bounds before the first histogram", () => {
    const { traces, layout, legend, points } = new BarsPanel(CHART).drawing(viewOf(storeOf(snapshotOf({}))));
    expect(traces).toMatchObject([{ x: [], y: [] }]);
    expect(layout).toMatchObject({ xaxis: { range: [-20, 20] }, yaxis: { range: [0, 20] } });
    expect(values(legend)).toEqual(["above 0: –", "below 0: –"]);
    expect(points).toBe(0);
  });

  it("can be drawn over time, with the shares at each step", () => {
    const store = storeOf(snapshotOf({}, { histograms: [HISTOGRAM] }, { heats: [HEAT] }));
    const panel = new BarsPanel(CHART);
    panel.drawing(viewOf(store)).toggle?.flip();
    const { traces, legend, readout, points, last, isOverSteps, toggle } = panel.drawing(viewOf(store));
    expect(traces).toMatchObject([
      {
        type: "heatmap",
        x: [0, 4, 8],
        colorscale: [
          [0, "white"],
          [1, THEME.roles.train],
        ],
      },
    ]);
    expect(values(legend)).toEqual(["above 0: 100 %", "below 0: 0 %"]);
    expect(values(readout?.(3))).toEqual(["above 0: 25 %", "below 0: 75 %"]);
    expect([points, last, isOverSteps, toggle?.isOn]).toEqual([2, 8, true, true]);
    toggle?.flip();
    expect(panel.drawing(viewOf(store)).traces).toMatchObject([{ type: "bar" }]);
  });
});
