// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Panel } from "../../src/charts/panel";
import type { Chart, State } from "../../src/messages";
import type { LabelledRun } from "../../src/multi_run_store";
import { OverlayGrid } from "../../src/overlay/overlay_grid";
import { media, ResizeObserverStub } from "../page_stubs";
import { metricChart, snapshotOf, storeOf, THEME } from "../support";

vi.mock("../../src/lib/plotly", () => ({ default: { react: vi.fn(), purge: vi.fn() } }));

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

const run = (
  label: string,
  columns: Record<string, number[]>,
  state: Partial<State> = {},
  charts: Chart[] = [metricChart("nll")],
): LabelledRun => ({
  ...{ label, store: storeOf(snapshotOf(columns, { status: "paused", ...state }, { charts })), result: null },
});

const RUNS = () => [
  run("a", { nll: [4, 2], odd: [1, 1] }, { steps_total: 400 }),
  run("b", { nll: [1] }, { steps_total: 800 }),
];

function scene(runs = RUNS(), view = {}) {
  const drawn: { name: string; halfLife: number; cursor: number | null; store: unknown }[] = [];
  vi.spyOn(Panel.prototype, "draw").mockImplementation(function (this: Panel, { halfLife, cursor, store }) {
    drawn.push({ name: this.chart.name, halfLife, cursor, store });
  });
  const attached = vi.spyOn(Panel.prototype, "attach");
  const shown = { smoothing: 1, more: false, hidden: new Set<string>(), ...view };
  const current = { runs };
  const grid = new OverlayGrid(
    () => current.runs,
    shown,
    () => THEME,
  );
  document.body.append(grid.element);
  const frame = () => {
    vi.advanceTimersToNextFrame();
    return drawn.splice(0);
  };
  const names = () => frame().map(({ name }) => name);
  const slider = grid.element.querySelector("input[type=range]") as HTMLInputElement;
  const box = grid.element.querySelector("details") as HTMLDetailsElement;
  const events = () => (attached.mock.calls[0] as Parameters<Panel["attach"]>)[0];
  return { grid, view: shown, current, frame, names, slider, box, events, element: grid.element };
}

describe("OverlayGrid", () => {
  it("has the panels at once, and draws them in the next frame", () => {
    const { element, names, grid } = scene();
    expect([...element.querySelectorAll<HTMLElement>("figure")].map(({ dataset }) => dataset.name)).toEqual(["nll"]);
    expect(names()).toEqual(["nll"]);
    expect(names()).toEqual([]);
    expect([...element.querySelectorAll<HTMLElement>("figure")].map(({ dataset }) => dataset.name)).toEqual([
      "nll",
      "odd",
    ]);
    expect(element.getAttribute("aria-label")).toBe("Charts of all runs");
    expect(element.querySelector(".ml-overlay-key")?.textContent).toBe(
      "strong: held-out data; faint: training batches",
    );
    grid.dispose();
  });

  it("draws the charts in the box only if it is open, which is stored", () => {
    const { box, names, view, grid } = scene();
    expect([box.open, names()]).toEqual([false, ["nll"]]);
    box.open = true;
    box.dispatchEvent(new Event("toggle"));
    expect([view.more, names()]).toEqual([true, ["nll", "odd"]]);
    grid.dispose();
    const other = scene(RUNS(), { more: true });
    expect([other.box.open, other.names()]).toEqual([true, ["nll", "odd"]]);
    other.grid.dispose();
  });

  it("smooths by a share of the longest run, as the slider says", () => {
    const { slider, frame, view, grid, current } = scene();
    expect([slider.value, slider.getAttribute("aria-label")]).toEqual(["1", "Smoothing of the training curves"]);
    expect(frame()).toEqual([{ name: "nll", halfLife: 8, cursor: null, store: current.runs[0]?.store }]);
    slider.value = "2";
    slider.dispatchEvent(new Event("input"));
    expect([view.smoothing, frame()[0]?.halfLife]).toEqual([2, 16]);
    current.runs = [run("a", { nll: Array(1000).fill(1) }, { steps_total: 0 })];
    grid.schedule();
    expect(frame()[0]?.halfLife).toBe(20);
    grid.dispose();
    const other = scene(RUNS(), { smoothing: 3 });
    expect(other.slider.value).toBe("3");
    other.grid.dispose();
  });

  it("draws new records after a pause if a run is running, else at once", () => {
    const { grid, names, current } = scene();
    names();
    grid.onRunsChanged();
    expect(names()).toEqual(["nll"]);
    current.runs = [...current.runs, run("c", {}, { status: "running" })];
    grid.onRunsChanged();
    expect(names()).toEqual([]);
    vi.advanceTimersByTime(300);
    expect(names()).toEqual(["nll"]);
    grid.dispose();
  });

  it("says whether there is data, and how many records each run has", () => {
    const empty = (runs: LabelledRun[]) => {
      const { frame, element, grid } = scene(runs);
      frame();
      grid.dispose();
      return [element.dataset.empty, element.dataset.seen];
    };
    expect(empty(RUNS())).toEqual([undefined, "2 1"]);
    expect(empty([run("a", {}), run("b", {})])).toEqual(["", "0 0"]);
    expect(empty([run("a", {}, { baseline: { nll: 1 } })])).toEqual([undefined, "0"]);
    expect(empty([])).toEqual(["", ""]);
  });

  it("follows the runs, and hides the chosen ones", () => {
    const { grid, names, current, view, element } = scene();
    current.runs = [run("a", { loss: [1, 2] }, {}, [metricChart("loss")])];
    grid.schedule();
    expect(names()).toEqual(["loss"]);
    expect([...element.querySelectorAll<HTMLElement>("figure")].map(({ dataset }) => dataset.name)).toEqual(["loss"]);
    vi.restoreAllMocks();
    const values = () => {
      grid.schedule();
      vi.advanceTimersToNextFrame();
      return [...element.querySelectorAll(".ml-key")].map(({ textContent }) => textContent);
    };
    expect(values()).toEqual(["a2.000"]);
    view.hidden.add("a");
    expect(values()).toEqual([]);
    grid.dispose();
  });

  it("is redrawn when the theme changes, and silent after dispose", () => {
    const { grid, names, element, slider } = scene();
    names();
    const themeChanges = () => {
      for (const listener of media.listeners) listener();
      vi.advanceTimersByTime(1);
      return names();
    };
    expect(themeChanges()).toEqual(["nll"]);
    grid.schedule();
    grid.dispose();
    expect([names(), themeChanges(), element.isConnected, media.listeners.size]).toEqual([[], [], false, 0]);
    expect([...ResizeObserverStub.active]).toEqual([]);
    expect(slider.isConnected).toBe(false);
  });
});

describe("the events of a panel of several runs", () => {
  it("store the zoom and the enlarged chart with the first run", () => {
    const { events, current, grid, names } = scene();
    names();
    const view = () => current.runs[0]?.store.view;
    events().onZoom([3, 9]);
    expect([view()?.range, names()]).toEqual([[3, 9], ["nll"]]);
    events().onZoom(null);
    expect(view()?.range).toBeNull();
    events().onEnlarge("nll");
    expect([view()?.large, names()]).toEqual(["nll", ["nll"]]);
    events().onEnlarge("loss");
    events().onEnlarge("loss");
    expect(view()?.large).toBe("");
    expect(current.runs[1]?.store.view).toMatchObject({ range: null, large: "" });
    current.runs = [];
    expect(() => events().onZoom([1, 2])).not.toThrow();
    grid.dispose();
  });

  it("redraw after a change of the size or of the view, and move the cursor of every chart", () => {
    const { events, grid, frame, names } = scene();
    names();
    events().onResize();
    expect(names()).toEqual(["nll"]);
    events().onViewChange();
    expect(names()).toEqual(["nll"]);
    const point = vi.spyOn(Panel.prototype, "point").mockImplementation(() => {});
    events().onPoint(6);
    expect(events().cursor()).toBe(6);
    frame();
    expect(point.mock.calls).toEqual([[6], [6]]);
    grid.schedule();
    expect(frame()[0]?.cursor).toBe(6);
    grid.dispose();
  });
});
