// @vitest-environment jsdom
import { describe, expect, it, vi } from "vitest";
import "../page_stubs";
import { type OverlayChart, overlayCharts } from "../../src/overlay/curves";
import { OverlayPanel } from "../../src/overlay/overlay_panel";
import { runStyle } from "../../src/overlay/run_style";
import { metricChart, snapshotOf, storeOf, viewOf } from "../support";

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
