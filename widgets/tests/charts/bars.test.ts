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

const axisTitle = (text: string) => ({ text, standoff: 4, font: { size: 11, color: THEME.muted } });

describe("every part of BarsPanel.drawing", () => {
  const { chosen, rejected } = THEME.roles;

  it("is exact for the latest histogram", () => {
    const store = storeOf(snapshotOf({}, { histograms: [{ ...HISTOGRAM, name: "other" }, HISTOGRAM] }));
    expect(new BarsPanel(CHART).drawing(viewOf(store))).toEqual({
      traces: [
        {
          ...{ type: "bar", x: [-1.5, -0.5, 0.5, 1.5], y: [12.5, 0, 25, 62.5], width: 1 },
          marker: { color: [rejected, rejected, chosen, chosen], line: { width: 0 } },
          customdata: ["below -1.000", "-1 to 0", "0 to 1", "above 1.000"],
          hovertemplate: "%{y:.1f} % of pairs, %{customdata}<extra></extra>",
        },
      ],
      layout: {
        bargap: 0.12,
        xaxis: {
          ...{ range: [-2, 2], fixedrange: true, title: axisTitle("chosen &lt;minus&gt; rejected, held-out, step 8") },
          ...{ tickvals: [-2, -1, 0, 1, 2], ticktext: ["≤ −2", "−1", "0", "1", "≥ 2"] },
        },
        // The highest bar has 62.5 %, and the next round number is 100.
        yaxis: { range: [0, 100], ticksuffix: " %" },
        shapes: [
          {
            ...{ type: "line", x0: 0, x1: 0, yref: "paper", y0: 0, y1: 1, layer: "below" },
            line: { color: THEME.muted, width: 1 },
          },
        ],
      },
      legend: [
        { label: "above 0", colour: chosen, value: "88 %" },
        { label: "below 0", colour: rejected, value: "12 %" },
      ],
      ...{ points: 8, last: 8, toggle: null },
    });
  });

  it("is exact before the first histogram", () => {
    expect(new BarsPanel(CHART).drawing(viewOf(storeOf(snapshotOf({}))))).toMatchObject({
      traces: [{ x: [], y: [], width: 1, customdata: [] }],
      layout: {
        xaxis: { title: axisTitle("chosen &lt;minus&gt; rejected"), ticktext: ["−20", "−10", "0", "10", "20"] },
      },
      ...{ points: 0, last: undefined, toggle: null },
    });
    const unbounded = new BarsPanel({ ...CHART, bounds: null }).drawing(viewOf(storeOf(snapshotOf({}))));
    expect(unbounded.layout.xaxis).toMatchObject({ range: [-1, 1] });
  });

  it("names a training batch, and leaves out what the chart does not say", () => {
    const histogram = { ...HISTOGRAM, source: "training", counts: [0, 1, 1, 0] };
    const { layout, traces } = new BarsPanel({ ...CHART, axis: "", counts: "" }).drawing(
      viewOf(storeOf(snapshotOf({}, { histograms: [histogram] }))),
    );
    expect(layout.xaxis).toMatchObject({ title: { text: "training batch, step 8" } });
    expect(layout.xaxis).toMatchObject({ ticktext: ["−2", "−1", "0", "1", "2"] });
    expect(traces[0]?.hovertemplate).toBe("%{y:.1f} %, %{customdata}<extra></extra>");
  });

  it("escapes what it counts", () => {
    const { traces } = new BarsPanel({ ...CHART, counts: "<b>" }).drawing(
      viewOf(storeOf(snapshotOf({}, { histograms: [HISTOGRAM] }))),
    );
    expect(traces[0]?.hovertemplate).toBe("%{y:.1f} % of &lt;b&gt;, %{customdata}<extra></extra>");
  });

  it("counts a bin around 0 below, and has an axis of 5 % at least", () => {
    const flat = { ...HISTOGRAM, start: -1.5, counts: [0, 4, 0] };
    const { traces, legend } = new BarsPanel(CHART).drawing(viewOf(storeOf(snapshotOf({}, { histograms: [flat] }))));
    expect(traces[0]).toMatchObject({ x: [-1, 0, 1], y: [0, 100, 0], marker: { color: [rejected, rejected, chosen] } });
    expect(values(legend)).toEqual(["above 0: 0 %", "below 0: 100 %"]);
    const top = (counts: number[]) =>
      new BarsPanel(CHART).drawing(viewOf(storeOf(snapshotOf({}, { histograms: [{ ...HISTOGRAM, counts }] })))).layout
        .yaxis;
    expect(top([0, 0, 0, 0])).toMatchObject({ range: [0, 5] });
    expect(top(Array(25).fill(4))).toMatchObject({ range: [0, 5] });
    expect(top(Array(10).fill(4))).toMatchObject({ range: [0, 10] });
  });

  it("is exact over time", () => {
    const marks = [{ step: 5, kind: "loss" as const, label: "hinge v1" }];
    const store = storeOf(snapshotOf({}, { steps_done: 8, marks, marks_total: 1 }, { heats: [HEAT] }));
    store.view.overTime.add("margin");
    const { layout, legend, readout, last } = new BarsPanel(CHART).drawing(viewOf(store));
    expect(layout).toMatchObject({
      hovermode: false,
      xaxis: { range: [0, 100], title: axisTitle("step"), tickformat: "~s" },
      yaxis: { range: [-2, 2], type: "linear", ticktext: ["≤ −2", "−1", "0", "1", "≥ 2"] },
      shapes: [
        { x0: 4.5, x1: 4.5 },
        {
          ...{ type: "line", xref: "paper", x0: 0, x1: 1, y0: 0, y1: 0, line: { color: THEME.muted, width: 1 } },
        },
      ],
      annotations: [{ x: 4.5, text: "1" }],
    });
    expect([values(legend), values(readout?.(5)), last]).toEqual([
      ["above 0: 100 %", "below 0: 0 %"],
      ["above 0: 100 %", "below 0: 0 %"],
      8,
    ]);
    store.view.range = [2, 6];
    expect(new BarsPanel(CHART).drawing(viewOf(store)).layout.xaxis).toMatchObject({ range: [2, 6] });
  });

  it("marks the ends over time only if a column has values there", () => {
    const heat = { ...HEAT, values: float32Buffer([0, 1, 0, 0, 0, 0, 1, 0]) };
    const store = storeOf(snapshotOf({}, {}, { heats: [heat] }));
    store.view.overTime.add("margin");
    const { layout } = new BarsPanel(CHART).drawing(viewOf(store));
    expect(layout.yaxis).toMatchObject({ ticktext: ["−2", "−1", "0", "1", "2"] });
  });

  it("has no numbers over time without a column", () => {
    const none = { ...HEAT, points: 0, steps: float64Buffer([]), values: float32Buffer([]) };
    const store = storeOf(snapshotOf({}, {}, { heats: [none] }));
    store.view.overTime.add("margin");
    const { legend, last } = new BarsPanel(CHART).drawing(viewOf(store));
    expect([values(legend), last]).toEqual([["above 0: –", "below 0: –"], undefined]);
  });

  it("is empty without a state, and shows fifty steps over time", () => {
    const store = storeOf(snapshotOf({}, {}, { heats: [HEAT] }));
    store.state = null;
    expect(new BarsPanel(CHART).drawing(viewOf(store))).toMatchObject({
      points: 0,
      layout: { yaxis: { range: [0, 20] } },
    });
    store.view.overTime.add("margin");
    expect(new BarsPanel(CHART).drawing(viewOf(store)).layout.xaxis).toMatchObject({ range: [0, 50] });
  });

  it("offers the switch only with a history, and of this chart", () => {
    const store = storeOf(snapshotOf({}, { histograms: [HISTOGRAM] }, { heats: [HEAT] }));
    store.view.overTime.add("another");
    const { toggle, traces } = new BarsPanel(CHART).drawing(viewOf(store));
    expect(traces).toMatchObject([{ type: "bar" }]);
    expect(toggle).toMatchObject({ label: "over time", title: "Show the histograms of all steps", isOn: false });
    toggle?.flip();
    expect([...store.view.overTime]).toEqual(["another", "margin"]);
  });
});
