// @vitest-environment jsdom
import { describe, expect, it, vi } from "vitest";
import "../page_stubs";
import { BranchLegend } from "../../src/charts/branch_curves";
import { LinesPanel } from "../../src/charts/lines";
import { metricChart, snapshotOf, storeOf, THEME, viewOf } from "../support";

vi.mock("../../src/lib/plotly", () => ({ default: { react: vi.fn(), purge: vi.fn() } }));

/** A run at step 2 of 10 that was at step 4: held-out data were evaluated before training and after step 4. */
function scene(labels = ["before rewind to 2"], leftOut = 0) {
  const left = snapshotOf({ loss: [8, 6, 4, 2] }).series;
  const evaluated = { ...snapshotOf({ "held_out/loss": [3] }).series[0], steps: stepsOf(4) };
  const series = [...left, evaluated] as typeof left;
  const branches = labels.map((label) => ({ label, step: 2, breaks: [3], series }));
  const state = { steps_total: 10, steps_done: 2, baseline: { loss: 9 } };
  return storeOf(snapshotOf({ loss: [8, 6] }, state, { branches, branches_left_out: leftOut }));
}

const stepsOf = (...steps: number[]) => new DataView(new Float64Array(steps).buffer);
const drawn = (store: ReturnType<typeof scene>, halfLife = 0) =>
  new LinesPanel(metricChart("loss")).drawing(viewOf(store, { halfLife }));

describe("a chart of a run that was rewound", () => {
  it("has the steps that it has left behind its own, in the colours of its curves", () => {
    const { traces } = drawn(scene());
    expect(traces.slice(0, 2)).toMatchObject([
      { x: [2, 3, 4], y: [6, 4, 2], opacity: 0.6, line: { color: THEME.roles.train, dash: "dash" } },
      { x: [0, 4], y: [9, 3], line: { color: THEME.roles.held_out, dash: "dash" } },
    ]);
    expect(traces.slice(2)).toMatchObject([{ name: "training", x: [1, 2] }, { name: "held-out" }]);
  });

  it("smooths them from the first step, and restarts where their own loss changed", () => {
    // Step 2 is smoothed with step 1; the loss of step 3 is another one.
    const [faint] = drawn(scene(), 1).traces as [{ y: number[] }];
    const decay = 0.5;
    expect(faint.y[0]).toBeCloseTo((decay * 8 + 6) / (decay + 1), 9);
    expect(faint.y[1]).toBe(4);
  });

  it("has room for them on both axes", () => {
    const { layout } = drawn(scene());
    const [low, high] = (layout.yaxis as { range: [number, number] }).range;
    expect(low).toBeLessThan(2);
    expect(high).toBeGreaterThan(9);
    const short = scene();
    if (short.state) short.state.steps_total = 3;
    expect(short.stepsShown).toEqual([0, 4]);
  });

  it("leaves out a branch or a curve that a person has hidden", () => {
    const store = scene();
    store.view.hidden.add("branch/before rewind to 2");
    expect(drawn(store).traces.map(({ name }) => name)).toEqual(["training", "held-out"]);
    store.view.hidden.clear();
    store.view.hidden.add("loss/training");
    expect(drawn(store).traces.map(({ name }) => name)).toEqual(["before rewind to 2", "held-out"]);
  });
});

describe("BranchLegend", () => {
  const show = (store: ReturnType<typeof scene>) => {
    const legend = new BranchLegend(store, () => THEME);
    legend.draw();
    return legend;
  };

  it("says what each faint curve is, and how many are not drawn", () => {
    const { element } = show(scene(["before rewind to 2", "my run"], 2));
    expect(element.hidden).toBe(false);
    expect([...element.children].map((child) => child.textContent)).toEqual([
      ...["before rewind to 2", "my run", "2 earlier ones are not drawn"],
    ]);
    const samples = [...element.querySelectorAll("line")].map((line) => line.getAttribute("stroke-dasharray"));
    expect(samples).toEqual(["7 3 2 3", "6 4"]); // two earlier ones have "dash" and "dot"
    expect(show(scene(["one"], 1)).element.textContent).toBe("one1 earlier one is not drawn");
  });

  it("is not there without faint curves", () => {
    expect(show(scene([])).element.hidden).toBe(true);
  });

  it("hides a branch in all charts and shows it again", () => {
    const store = scene();
    const legend = show(store);
    const button = legend.element.querySelector("button") as HTMLButtonElement;
    const onChange = vi.fn();
    store.subscribe(onChange);
    button.click();
    legend.draw();
    expect([...store.view.hidden]).toEqual(["branch/before rewind to 2"]);
    expect([button.getAttribute("aria-pressed"), button.title, onChange.mock.calls.length]).toEqual([
      "false",
      "Show",
      1,
    ]);
    button.click();
    legend.draw();
    expect([store.view.hidden.size, button.getAttribute("aria-pressed")]).toEqual([0, "true"]);
    legend.dispose();
    button.click();
    expect(store.view.hidden.size).toBe(0);
  });
});
