// @vitest-environment jsdom
import { describe, expect, it, vi } from "vitest";
import "../page_stubs";
import type { State } from "../../src/messages";
import { type OverlayChart, overlayCharts } from "../../src/overlay/curves";
import { OverlayPanel } from "../../src/overlay/overlay_panel";
import { runStyle } from "../../src/overlay/run_style";
import { metricChart, snapshotOf, storeOf, THEME, viewOf } from "../support";

vi.mock("../../src/lib/plotly", () => ({ default: { react: vi.fn(), purge: vi.fn() } }));

const run = (label: string, columns: Record<string, number[]>) => ({
  ...{ label, store: storeOf(snapshotOf(columns, { steps_done: 2 })), result: null },
});
const RUNS = [
  run("<i>a</i>", { nll: [4, 2], "held_out/nll": [3] }),
  run("b", { nll: [1, 5] }),
  run("c", { other: [1] }),
];

function draw(hidden: number[] = [], bounds: number[] | null = null) {
  const [chart] = overlayCharts([[metricChart("nll", { bounds, definition: "mean(-log p)" })]]) as [OverlayChart];
  const panel = new OverlayPanel(
    chart,
    () => RUNS,
    (index) => hidden.includes(index),
  );
  return { panel, drawing: panel.drawing(viewOf((RUNS[0] as (typeof RUNS)[number]).store)) };
}

describe("OverlayPanel.drawing", () => {
  it("draws held-out data thick and training faint, and training alone thick", () => {
    const { traces, legend, points, attributes } = draw().drawing;
    expect(traces.map(({ y, line }) => [y, (line as { width: number }).width])).toEqual([
      [[4, 2], 1.2],
      [[3], 2],
      [[1, 5], 2],
    ]);
    expect(traces.map(({ line }) => (line as { color: string }).color)).toEqual(
      [0, 0, 1].map((index) => runStyle(index, false).colour),
    );
    expect(legend.map(({ label, value }) => `${label} ${value}`)).toEqual(["<i>a</i> 3.000", "b 5.000", "c –"]);
    expect([points, attributes]).toEqual([5, { "data-runs": 3 }]);
  });

  it("leaves hidden runs out, and keeps the style of the others", () => {
    const { traces, legend } = draw([0]).drawing;
    expect(legend.map(({ label }) => label)).toEqual(["b", "c"]);
    expect(traces[0]).toMatchObject({ line: { color: runStyle(1, false).colour } });
  });

  it("reads held-out values measured by a step", () => {
    const { readout } = draw().drawing;
    expect(readout?.(1).map(({ value }) => value)).toEqual(["3.000", "1.000", "–"]);
    expect(readout?.(0).map(({ value }) => value)).toEqual(["–", "–", "–"]);
  });

  it("has the chart's fixed axis, and its definition as the tooltip of the title", () => {
    const { panel, drawing } = draw([], [0, 8]);
    expect(drawing.layout.yaxis).toEqual({ range: [-0.16, 8.16], tickvals: [0, 2, 4, 6, 8] });
    expect((panel.element.querySelector(".ml-title") as HTMLElement).title).toBe("mean(-log p)");
  });
});

describe("every part of OverlayPanel.drawing", () => {
  const [CHART] = overlayCharts([[metricChart("nll")]]) as [OverlayChart];
  const COLOURS = [0, 1, 2].map((index) => runStyle(index, false).colour);

  function drawingOf(runs: ReturnType<typeof run>[], change = {}, hidden: number[] = []) {
    const panel = new OverlayPanel(
      CHART,
      () => runs,
      (index) => hidden.includes(index),
    );
    return panel.drawing(viewOf((runs[0] as ReturnType<typeof run>).store, change));
  }
  const runWith = (label: string, columns: Record<string, number[]>, state: Partial<State>) => ({
    ...{ label, store: storeOf(snapshotOf(columns, state)), result: null },
  });

  it("is exact", () => {
    const { readout, ...drawing } = drawingOf(RUNS);
    expect(drawing).toEqual({
      traces: [
        {
          ...{ type: "scatter", mode: "lines", x: [1, 2], y: [4, 2], opacity: 0.42 },
          line: { color: COLOURS[0], width: 1.2 },
        },
        {
          ...{ type: "scatter", mode: "lines+markers", x: [1], y: [3] },
          ...{ line: { color: COLOURS[0], width: 2, dash: "solid" }, marker: { color: COLOURS[0], size: 4.5 } },
        },
        {
          ...{ type: "scatter", mode: "lines", x: [1, 2], y: [1, 5], opacity: 1 },
          line: { color: COLOURS[1], width: 2, dash: "dash" },
        },
      ],
      layout: {
        hovermode: false,
        xaxis: {
          ...{ range: [0, 100], tickformat: "~s" },
          title: { text: "step", standoff: 4, font: { size: 11, color: THEME.muted } },
        },
        yaxis: { range: [0, 6] },
      },
      legend: [
        { label: "<i>a</i>", colour: COLOURS[0], value: "3.000" },
        { label: "b", colour: COLOURS[1], value: "5.000" },
        { label: "c", colour: COLOURS[2], value: "–" },
      ],
      ...{ points: 5, last: 3, isOverSteps: true, attributes: { "data-runs": 3 } },
    });
    expect(readout?.(2)).toEqual([
      { label: "<i>a</i>", colour: COLOURS[0], value: "3.000" },
      { label: "b", colour: COLOURS[1], value: "5.000" },
      { label: "c", colour: COLOURS[2], value: "–" },
    ]);
  });

  it("has a marker for a single training point", () => {
    const { traces } = drawingOf([run("a", { nll: [4] })]);
    expect(traces).toMatchObject([{ mode: "markers", marker: { color: COLOURS[0], size: 5 }, opacity: 1 }]);
  });

  it("smooths training curves only, from each change of the run's own loss", () => {
    const marks = [{ step: 2, kind: "loss" as const, label: "x" }];
    const columns = { nll: [1, 4], "held_out/nll": [1, 4] };
    const runs = [runWith("a", columns, { marks }), runWith("b", columns, {})];
    const { traces, layout } = drawingOf(runs, { halfLife: 1 });
    // Half-life 1: (1 + 2 * 4) / 3 = 3.
    expect(traces.map(({ y }) => y)).toEqual([
      [1, 4],
      [1, 4],
      [1, expect.closeTo(3, 6)],
      [1, 4],
    ]);
    expect(layout).not.toHaveProperty("shapes");
  });

  it("has no markers on a held-out curve of more than sixty points, the one before training included", () => {
    const mode = (count: number, state: Partial<State> = {}) =>
      drawingOf([runWith("a", { "held_out/nll": Array(count).fill(1) }, state)]).traces[0]?.mode;
    expect([mode(60), mode(61), mode(60, { baseline: { nll: 2 } })]).toEqual(["lines+markers", "lines", "lines"]);
  });

  it("has the steps of the longest run, or the zoomed ones with their values", () => {
    const runs = [
      runWith("a", { nll: [90, 4, 2, 70] }, { steps_done: 4, steps_total: 50 }),
      runWith("b", { nll: [80, 3] }, { steps_done: 2, steps_total: 80 }),
    ];
    const range = () => drawingOf(runs).layout.xaxis;
    expect(range()).toMatchObject({ range: [0, 80] });
    expect(drawingOf(runs, {}, [1]).layout.xaxis).toMatchObject({ range: [0, 80] });
    (runs[0] as (typeof runs)[0]).store.view.range = [2, 3];
    expect([range(), drawingOf(runs).layout.yaxis]).toMatchObject([{ range: [2, 3] }, { range: [1.5, 4.5] }]);
    const unknown = runWith("c", {}, { steps_done: 300, steps_total: 0 });
    expect(drawingOf([unknown]).layout.xaxis).toMatchObject({ range: [0, 500] });
  });

  it("reads the held-out value measured by a step, and the value before training", () => {
    const { readout, points, last } = drawingOf([
      runWith("a", { "held_out/nll": [3, 2], nll: [8, 9] }, { baseline: { nll: 5 } }),
    ]);
    expect([0, 1, 2, 99].map((step) => readout?.(step)[0]?.value)).toEqual(["5.000", "3.000", "2.000", "2.000"]);
    expect([points, last]).toEqual([5, 2]);
  });

  it("has the last value of the first run that is shown and has one", () => {
    expect(drawingOf(RUNS, {}, [0]).last).toBe(5);
    const { last, legend, attributes } = drawingOf([run("c", { other: [1] }), run("a", { nll: [7] })]);
    expect([last, legend.length, attributes]).toEqual([7, 2, { "data-runs": 2 }]);
    expect(drawingOf(RUNS, {}, [0, 1, 2])).toMatchObject({ last: undefined, legend: [], traces: [], points: 0 });
  });

  it("shows fifty steps of runs without a state", () => {
    const without = run("a", {});
    without.store.state = null;
    expect(drawingOf([without])).toMatchObject({
      layout: { xaxis: { range: [0, 50] }, yaxis: { range: [0, 1] } },
      ...{ legend: [{ label: "a", value: "–" }], traces: [], points: 0 },
    });
  });

  it("describes the metric in its caption", () => {
    const { panel } = draw();
    expect(panel.element.dataset).toMatchObject({ name: "nll", kind: "lines" });
    expect(panel.element.querySelector(".ml-unit")?.textContent).toBe("nats");
  });
});
