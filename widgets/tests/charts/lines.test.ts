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

const AXIS_TITLE = { text: "step", standoff: 4, font: { size: 11, color: THEME.muted } };

describe("every part of LinesPanel.drawing", () => {
  it("is exact for a training and a held-out curve", () => {
    const store = storeOf(snapshotOf(COLUMNS, { baseline: { loss: 5 } }));
    const { train, held_out } = THEME.roles;
    const drawing = new LinesPanel(metricChart("loss")).drawing(viewOf(store));
    expect(drawing).toEqual({
      traces: [
        {
          ...{ type: "scatter", mode: "lines", name: "training", x: [1, 2], y: [4, 2], opacity: 1 },
          line: { color: train, width: 1.6 },
        },
        {
          ...{ type: "scatter", mode: "lines+markers", name: "held-out", x: [0, 1], y: [5, 3] },
          ...{ line: { color: held_out, width: 1.8 }, marker: { color: held_out, size: 5 } },
        },
      ],
      layout: {
        hovermode: false,
        xaxis: { range: [0, 100], title: AXIS_TITLE, tickformat: "~s" },
        // Values 2 to 5 with 4 % of the span of 3 as margin, rounded outwards to whole numbers.
        yaxis: { type: "linear", range: [1, 6] },
        shapes: [],
        annotations: [],
      },
      legend: [
        { label: "training", colour: train, key: "loss/training", hidden: false, value: "2.000" },
        { label: "held-out", colour: held_out, key: "loss/held-out", hidden: false, value: "3.000" },
      ],
      ...{ points: 3, last: 2, isOverSteps: true, readout: expect.any(Function) },
      toggle: { label: "log", title: "Logarithmic vertical axis", isOn: false, flip: expect.any(Function) },
    });
    expect(drawing.readout?.(2)).toEqual([
      { label: "training", colour: train, key: "loss/training", hidden: false, value: "2.000" },
      { label: "held-out", colour: held_out, key: "loss/held-out", hidden: false, value: "3.000" },
    ]);
  });

  it("is exact without data", () => {
    const { traces, layout, legend, readout, points, last, toggle } = new LinesPanel(metricChart("loss")).drawing(
      viewOf(storeOf(snapshotOf({}))),
    );
    const empty = [
      { label: "training", colour: THEME.roles.train, value: "–" },
      { label: "held-out", colour: THEME.roles.held_out, value: "–" },
    ];
    expect([traces, legend, readout?.(1), points, last, toggle]).toEqual([[], empty, empty, 0, undefined, null]);
    expect(layout.yaxis).toEqual({ type: "linear", range: [0, 1] });
  });

  it("shows fifty steps without a state", () => {
    const store = storeOf(snapshotOf({}));
    store.state = null;
    const { layout, points } = new LinesPanel(metricChart("loss")).drawing(viewOf(store));
    expect([layout.xaxis, layout.yaxis, layout.shapes, points]).toMatchObject([
      { range: [0, 50] },
      { range: [0, 1] },
      [],
      0,
    ]);
  });

  it("is thin and faint under a smoothed curve", () => {
    const store = storeOf(snapshotOf({ loss: [1, 4] }));
    const [raw, smoothed, ...others] = new LinesPanel(metricChart("loss")).drawing(
      viewOf(store, { halfLife: 1 }),
    ).traces;
    const colour = THEME.roles.train;
    expect(raw).toEqual({
      ...{ type: "scatter", mode: "lines", name: "training", x: [1, 2], y: [1, 4], opacity: 0.32 },
      line: { color: colour, width: 1 },
    });
    // Half-life 1: the weights are 1/4 and 1/2, so (1/4 * 1 + 1/2 * 4) / (3/4) = 3.
    expect(smoothed).toEqual({
      ...{
        type: "scatter",
        mode: "lines",
        x: [1, 2],
        y: [1, expect.closeTo(3, 12)],
        line: { color: colour, width: 2 },
      },
    });
    expect(others).toEqual([]);
  });

  it("is a marker for a single point: of the raw curve, or of the smoothed one", () => {
    const store = storeOf(snapshotOf({ loss: [1] }));
    const draw = (halfLife: number) => new LinesPanel(metricChart("loss")).drawing(viewOf(store, { halfLife })).traces;
    const marker = { color: THEME.roles.train, size: 5 };
    expect(draw(0)).toMatchObject([{ mode: "markers", marker }]);
    expect(draw(5)).toMatchObject([{ mode: "lines" }, { mode: "markers", marker }]);
    expect(draw(5)[0]).not.toHaveProperty("marker");
  });

  it("has no markers on a held-out curve of more than 120 points", () => {
    const mode = (count: number) =>
      new LinesPanel(metricChart("loss")).drawing(
        viewOf(storeOf(snapshotOf({ "held_out/loss": Array(count).fill(1) }))),
      ).traces[0]?.mode;
    expect([mode(120), mode(121)]).toEqual(["lines+markers", "lines"]);
  });

  it("is a held-out curve without the value before training if there is none", () => {
    const { traces, last } = new LinesPanel(metricChart("loss")).drawing(
      viewOf(storeOf(snapshotOf({ "held_out/loss": [3, 7] }))),
    );
    expect(traces).toMatchObject([{ name: "held-out", x: [1, 2], y: [3, 7] }]);
    expect(last).toBe(7);
    const before = new LinesPanel(metricChart("loss")).drawing(
      viewOf(storeOf(snapshotOf({}, { baseline: { loss: 5 } }))),
    );
    expect(before.traces).toMatchObject([{ name: "held-out", x: [0], y: [5] }]);
    expect(before.legend.map(({ value }) => value)).toEqual(["–", "5.000"]);
  });

  it("follows the zoomed range, of which the vertical axis shows the values", () => {
    const store = storeOf(snapshotOf({ loss: [40, 4, 2, 60] }, { steps_done: 4 }));
    store.view.range = [2, 3];
    const { xaxis, yaxis } = new LinesPanel(metricChart("loss")).drawing(viewOf(store)).layout;
    expect([(xaxis as { range: unknown }).range, yaxis]).toEqual([[2, 3], { type: "linear", range: [1.5, 4.5] }]);
  });

  it("shows the steps of a run of unknown length", () => {
    const store = storeOf(snapshotOf({ loss: [1] }, { steps_total: 0, steps_done: 70 }));
    expect(new LinesPanel(metricChart("loss")).drawing(viewOf(store)).layout.xaxis).toMatchObject({ range: [0, 100] });
  });

  it("has a logarithmic axis a twentieth longer than the data, and switches back", () => {
    const store = storeOf(snapshotOf({ loss: [0.1, 10] }));
    const panel = new LinesPanel(metricChart("loss"));
    panel.drawing(viewOf(store)).toggle?.flip();
    const { layout, toggle } = panel.drawing(viewOf(store));
    expect(layout.yaxis).toEqual({
      ...{ type: "log", dtick: "D2" },
      range: [expect.closeTo(-1.1, 6), expect.closeTo(1.1, 6)],
    });
    expect(toggle?.isOn).toBe(true);
    toggle?.flip();
    expect([...store.view.log]).toEqual([]);
    expect(panel.drawing(viewOf(store)).layout.yaxis).toMatchObject({ type: "linear" });
  });

  it("has no logarithmic axis at 0, nor without a visible curve", () => {
    const panel = new LinesPanel(metricChart("loss"));
    expect(panel.drawing(viewOf(storeOf(snapshotOf({ loss: [0, 1] })))).toggle).toBeNull();
    const store = storeOf(snapshotOf({ loss: [1, 2] }));
    store.view.hidden.add("loss/training");
    store.view.log.add("loss");
    const { toggle, layout } = panel.drawing(viewOf(store));
    expect([toggle, layout.yaxis]).toEqual([null, { type: "linear", range: [0, 1] }]);
    const bounded = new LinesPanel(metricChart("loss", { bounds: [0, 4] }));
    const shown = storeOf(snapshotOf({ loss: [1, 2] }));
    shown.view.log.add("loss");
    expect(bounded.drawing(viewOf(shown)).layout.yaxis).toMatchObject({ type: "linear", tickvals: [0, 1, 2, 3, 4] });
  });
});

describe("the band of a curve", () => {
  const SPREAD = chart("reward", [{ ...line("reward", "chosen"), spread: "reward_std" }]);

  it("lies below the curve, is wide as its deviation, and belongs to the vertical axis", () => {
    const store = storeOf(snapshotOf({ reward: [1, 2], reward_std: [0.5, 0.25] }));
    const { traces, layout } = new LinesPanel(SPREAD).drawing(viewOf(store));
    expect(traces).toHaveLength(2);
    expect(traces[0]).toEqual({
      ...{ type: "scatter", mode: "lines", x: [1, 2, 2, 1], y: [1.5, 2.25, 1.75, 0.5], fill: "toself" },
      ...{ fillcolor: THEME.roles.chosen, opacity: 0.13, line: { width: 0 } },
    });
    // 0.5 to 2.25; the curve alone is 1 to 2, with an axis from 0.75 to 2.25.
    expect(layout.yaxis).toEqual({ type: "linear", range: [0, 2.5] });
  });

  it("is smoothed like the curve, and restarts with it", () => {
    const marks = [{ step: 2, kind: "loss" as const, label: "x" }];
    const columns = { reward: [1, 3], reward_std: [0.5, 0.25] };
    const band = (state: object) =>
      new LinesPanel(SPREAD).drawing(viewOf(storeOf(snapshotOf(columns, state)), { halfLife: 1 })).traces[0]?.y;
    expect(band({ marks })).toEqual([1.5, 3.25, 2.75, 0.5]);
    // Half-life 1: the second mean is (1 + 2 * 3) / 3 = 7/3, the second deviation (0.5 + 2 * 0.25) / 3 = 1/3.
    expect(band({})).toEqual([1.5, expect.closeTo(8 / 3, 6), expect.closeTo(2, 6), 0.5]);
  });

  it("needs a deviation for every point, and a visible curve", () => {
    const draw = (columns: Record<string, number[]>, hidden: string[] = []) => {
      const store = storeOf(snapshotOf(columns));
      for (const key of hidden) store.view.hidden.add(key);
      return new LinesPanel(SPREAD).drawing(viewOf(store)).traces.map(({ fill }) => fill);
    };
    expect(draw({ reward: [1, 2] })).toEqual([undefined]);
    expect(draw({ reward: [1, 2], reward_std: [0.5] })).toEqual([undefined]);
    expect(draw({ reward: [1, 2], reward_std: [0.5, 1] }, ["reward/reward"])).toEqual([]);
  });
});
