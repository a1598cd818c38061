// @vitest-environment jsdom
import { describe, expect, it, vi } from "vitest";
import "../page_stubs";
import { LinesPanel } from "../../src/charts/lines";
import { chart, line, metricChart, snapshotOf, storeOf, THEME, viewOf } from "../support";

vi.mock("../../src/lib/plotly", () => ({ default: { react: vi.fn(), purge: vi.fn() } }));

const COLUMNS = { loss: [4, 2], "held_out/loss": [3] };

describe("LinesPanel.drawing", () => {
  it("draws training and held-out curves, the latter from the value before training on", () => {
    const store = storeOf(snapshotOf(COLUMNS, { baseline: { loss: 5 } }));
    const { traces, legend, points, last, isOverSteps } = new LinesPanel(metricChart("loss")).drawing(viewOf(store));
    expect(traces).toMatchObject([
      { name: "training", x: [1, 2], y: [4, 2], line: { color: THEME.roles.train } },
      { name: "held-out", x: [0, 1], y: [5, 3], mode: "lines+markers", line: { color: THEME.roles.held_out } },
    ]);
    expect(legend.map(({ label, value }) => `${label} ${value}`)).toEqual(["training 2.000", "held-out 3.000"]);
    expect([points, last, isOverSteps]).toEqual([3, 2, true]);
  });

  it("adds a thick smoothed line, and restarts it when the loss changes, not when a setting does", () => {
    const marks = [
      { step: 2, kind: "setting" as const, label: "beta v2" },
      { step: 3, kind: "loss" as const, label: "hinge v1" },
    ];
    const store = storeOf(snapshotOf({ loss: [8, 8, 2] }, { marks, marks_total: 2 }));
    const { traces, layout } = new LinesPanel(metricChart("loss")).drawing(viewOf(store, { halfLife: 10 }));
    expect(traces.map((trace) => (trace.line as { width: number }).width)).toEqual([1, 2]);
    expect(traces[1]?.y).toEqual([8, 8, 2]);
    expect(layout.shapes).toMatchObject([{ x0: 1.5 }, { x0: 2.5 }]);
  });

  it("reads the numbers at a step", () => {
    const store = storeOf(snapshotOf(COLUMNS, { baseline: { loss: 5 } }));
    const { readout } = new LinesPanel(metricChart("loss")).drawing(viewOf(store));
    expect(readout?.(1).map(({ value }) => value)).toEqual(["4.000", "3.000"]);
    expect(readout?.(0).map(({ value }) => value)).toEqual(["–", "5.000"]);
  });

  it("leaves a hidden curve out of the plot, not out of the legend", () => {
    const store = storeOf(snapshotOf(COLUMNS));
    store.view.hidden.add("loss/training");
    const { traces, legend } = new LinesPanel(metricChart("loss")).drawing(viewOf(store));
    expect(traces).toMatchObject([{ name: "held-out" }]);
    expect(legend.map(({ hidden }) => hidden)).toEqual([true, false]);
  });

  it("lists curves without data, except for a metric without a chart in the recipe", () => {
    const view = viewOf(storeOf(snapshotOf({ loss: [1] })));
    const values = (omitsEmpty: boolean) =>
      new LinesPanel(metricChart("loss"), omitsEmpty).drawing(view).legend.map(({ value }) => value);
    expect(values(false)).toEqual(["1.000", "–"]);
    expect(values(true)).toEqual(["1.000"]);
  });

  it("draws one standard deviation as a band", () => {
    const spread = chart("reward", [{ ...line("reward", "train"), spread: "reward_std" }]);
    const store = storeOf(snapshotOf({ reward: [1, 2], reward_std: [0.5, 0.25] }));
    const [band] = new LinesPanel(spread).drawing(viewOf(store)).traces;
    expect(band).toMatchObject({ fill: "toself", x: [1, 2, 2, 1], y: [1.5, 2.25, 1.75, 0.5] });
  });

  it("has a fixed axis with bounds, and offers a logarithmic one for positive values without", () => {
    const store = storeOf(snapshotOf({ loss: [0.1, 10] }));
    const bounded = new LinesPanel(metricChart("loss", { bounds: [0, 1] })).drawing(viewOf(store));
    expect(bounded.layout.yaxis).toEqual({ type: "linear", range: [-0.02, 1.02], tickvals: [0, 0.25, 0.5, 0.75, 1] });
    expect(bounded.toggle).toBeNull();
    const free = new LinesPanel(metricChart("loss"));
    free.drawing(viewOf(store)).toggle?.flip();
    expect(store.view.log.has("loss")).toBe(true);
    expect(free.drawing(viewOf(store)).layout.yaxis).toMatchObject({ type: "log" });
    const negative = storeOf(snapshotOf({ loss: [-1, 10] }));
    expect(free.drawing(viewOf(negative)).toggle).toBeNull();
  });
});
