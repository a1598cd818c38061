// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { ChartGrid } from "../../src/charts/chart_grid";
import { Panel } from "../../src/charts/panel";
import type { Message, Snapshot, State } from "../../src/messages";
import { ResizeObserverStub } from "../page_stubs";
import { chart, line, metricChart, snapshotOf, storeOf, THEME } from "../support";

vi.mock("../../src/lib/plotly", () => ({ default: { react: vi.fn(), purge: vi.fn() } }));

const RATIOS = chart("log_ratio", [line("up", "chosen"), line("down", "rejected")], { kind: "ratios" });
const BARS = chart("margin", [line("", "chosen"), line("", "rejected")], { kind: "bars" });
const COLUMNS = { loss: [1, 2], odd: [3, 4] };

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

function scene(columns: Record<string, number[]> = COLUMNS, state: Partial<State> = {}, other: Partial<Snapshot> = {}) {
  const store = storeOf(snapshotOf(columns, state, { charts: [metricChart("loss"), BARS, RATIOS], ...other }));
  const drawn: string[] = [];
  const halfLives: number[] = [];
  vi.spyOn(Panel.prototype, "draw").mockImplementation(function (this: Panel, view) {
    drawn.push(this.chart.name);
    halfLives.push(view.halfLife);
  });
  const grid = new ChartGrid(store, () => THEME);
  document.body.append(grid.element);
  const frame = () => {
    vi.advanceTimersToNextFrame();
    return drawn.splice(0);
  };
  const button = (label: string) =>
    [...grid.element.querySelectorAll("button")].find(({ textContent }) => textContent === label);
  const names = (selector: string) =>
    [...grid.element.querySelectorAll<HTMLElement>(`${selector} figure`)].map(({ dataset }) => dataset.name);
  return { store, grid, drawn, halfLives, frame, button, names, element: grid.element };
}

const slider = (element: HTMLElement) => element.querySelector("input[type=range]") as HTMLInputElement;
const slide = (element: HTMLElement, value: string) => {
  slider(element).value = value;
  slider(element).dispatchEvent(new Event("input"));
};

describe("ChartGrid", () => {
  it("has a panel for every chart before it is drawn, and metrics without a chart in the box", () => {
    const { names, element, grid } = scene();
    expect(names(".ml-stage")).toEqual(["loss", "margin", "log_ratio"]);
    expect(names(".ml-more")).toEqual(["odd"]);
    expect([...element.querySelectorAll<HTMLElement>("figure")].map(({ dataset }) => dataset.kind)).toEqual([
      ...["lines", "bars", "ratios", "lines"],
    ]);
    expect(element.getAttribute("aria-label")).toBe("Charts");
    grid.dispose();
  });

  it("leaves columns out of the box that a chart shows as curve or band", () => {
    const charts = [chart("reward", [{ ...line("reward", "train"), spread: "reward_std" }])];
    const { names, grid } = scene({ reward: [1], reward_std: [1], reward_max: [1] }, {}, { charts });
    expect(names(".ml-more")).toEqual(["reward_max"]);
    grid.dispose();
  });

  it("draws every chart in the next frame, and those in the box only if it is open", () => {
    const { frame, element, grid, store } = scene();
    expect(frame()).toEqual(["loss", "margin", "log_ratio"]);
    expect(frame()).toEqual([]);
    const box = element.querySelector("details") as HTMLDetailsElement;
    box.open = true;
    box.dispatchEvent(new Event("toggle"));
    expect(store.view.more).toBe(true);
    expect(frame()).toEqual(["loss", "margin", "log_ratio", "odd"]);
    grid.dispose();
  });

  it("continues in the next frame when the time of one is used up, each chart once", () => {
    const { frame, grid } = scene();
    let now = 0;
    vi.spyOn(performance, "now").mockImplementation(() => {
      now += 4;
      return now;
    });
    expect([frame(), frame(), frame()]).toEqual([["loss", "margin"], ["log_ratio"], []]);
    grid.dispose();
  });

  it("draws new records of a running run after a pause, and the changes of a person at once", () => {
    const { frame, grid, store } = scene();
    frame();
    const update: Message = { type: "losses", losses: [] };
    store.receive(update, []);
    expect(frame()).toEqual([]);
    vi.advanceTimersByTime(300);
    expect(frame()).toEqual(["loss", "margin", "log_ratio"]);
    store.receive(update, []);
    store.viewChanged();
    expect(frame()).toEqual(["loss", "margin", "log_ratio"]);
    grid.dispose();
  });

  it("draws a run that is not running at once", () => {
    const { frame, grid, store } = scene(COLUMNS, { status: "paused" });
    frame();
    store.receive({ type: "losses", losses: [] }, []);
    expect(frame()).toEqual(["loss", "margin", "log_ratio"]);
    grid.dispose();
  });

  it("draws only the charts that follow a slider while it moves, once per frame", () => {
    const { frame, grid, store } = scene();
    frame();
    store.draft("beta", 1);
    store.draft("beta", 2);
    expect(frame()).toEqual(["log_ratio"]);
    store.draft("beta", 3);
    grid.dispose();
    expect(frame()).toEqual([]);
  });

  it.each<[State["status"], string]>([
    ["ready", "Press Start and watch the model learn"],
    ["running", "Loading the model and the data…"],
    ["paused", "No step is complete yet"],
  ])("says of a run without data that is %s: %s", (status, text) => {
    const { frame, grid, element } = scene({}, { status });
    frame();
    expect(element.querySelector(".ml-empty")?.textContent).toBe(text);
    expect([element.dataset.empty, element.dataset.seen]).toEqual(["", "0"]);
    grid.dispose();
  });

  it("is not empty with records, or with values before training", () => {
    const data: [Record<string, number[]>, Partial<State>][] = [
      [{ loss: [1, 2] }, {}],
      [{}, { baseline: { loss: 1 } }],
    ];
    for (const [columns, state] of data) {
      const { frame, grid, element } = scene(columns, state);
      frame();
      expect([element.querySelector(".ml-empty")?.textContent, element.dataset.empty]).toEqual(["", undefined]);
      expect(element.dataset.seen).toBe("loss" in columns ? "2" : "0");
      grid.dispose();
    }
  });

  it("lists the changes during the run", () => {
    const marks = [{ step: 3, kind: "loss" as const, label: "hinge v1" }];
    const { frame, grid, element } = scene(COLUMNS, { marks, marks_total: 7 });
    frame();
    expect(element.querySelector(".ml-marks")?.textContent).toBe("7hinge v1from step 3");
    grid.dispose();
  });

  it("smooths by a share of the run, which a slider sets for every view", () => {
    const { frame, grid, element, store, halfLives } = scene(COLUMNS, { steps_total: 400 });
    frame();
    expect([slider(element).value, halfLives.at(-1)]).toEqual(["1", 4]);
    const onChange = vi.fn();
    store.subscribe(onChange);
    slide(element, "2.5");
    expect([store.view.smoothing, onChange.mock.calls.length]).toEqual([2.5, 1]);
    frame();
    expect(halfLives.at(-1)).toBeCloseTo(2 * 2 ** 2.5, 9);
    expect(slider(element).getAttribute("aria-label")).toBe("Smoothing of the curves");
    store.view.smoothing = 0;
    store.viewChanged();
    frame();
    expect([slider(element).value, halfLives.at(-1)]).toEqual(["0", 0]);
    grid.dispose();
  });

  it("smooths a run of unknown length by the records seen", () => {
    const { frame, grid, halfLives } = scene({ loss: Array(1000).fill(1) }, { steps_total: 0 });
    frame();
    expect(halfLives.at(-1)).toBe(10);
    grid.dispose();
  });

  it("adds a chart for a metric that appears, and removes one that is gone", () => {
    const { frame, grid, names, store } = scene({ loss: [1] });
    frame();
    expect(names(".ml-more")).toEqual([]);
    store.history.add(2, "surprise", 1);
    store.charts = [BARS];
    store.viewChanged();
    expect(frame()).toEqual(["margin"]);
    expect([names(".ml-stage"), names(".ml-more")]).toEqual([["margin"], ["loss", "surprise"]]);
    grid.dispose();
  });

  it("is silent after dispose", () => {
    const { frame, grid, store, element } = scene();
    grid.dispose();
    store.viewChanged();
    store.draft("beta", 1);
    expect([frame(), element.isConnected]).toEqual([[], false]);
    expect([...ResizeObserverStub.active]).toEqual([]);
  });
});

describe("the events of a panel", () => {
  function real() {
    const store = storeOf(snapshotOf(COLUMNS, {}, { charts: [metricChart("loss"), metricChart("nll")] }));
    const points: (number | null)[] = [];
    vi.spyOn(Panel.prototype, "point").mockImplementation((step) => {
      points.push(step);
    });
    const attached = vi.spyOn(Panel.prototype, "attach");
    const grid = new ChartGrid(store, () => THEME);
    const [events] = attached.mock.calls[0] as Parameters<Panel["attach"]>;
    return { store, grid, points, events };
  }

  it("zoom every chart, and end the zoom", () => {
    const { store, events, grid } = real();
    const changes = store.viewChanges;
    events.onZoom([3, 9]);
    expect([store.view.range, store.viewChanges]).toEqual([[3, 9], changes + 1]);
    events.onZoom(null);
    expect(store.view.range).toBeNull();
    grid.dispose();
  });

  it("enlarge a chart, and make it small again", () => {
    const { store, events, grid } = real();
    events.onEnlarge("loss");
    expect([store.view.large, store.viewChanges]).toEqual(["loss", 1]);
    events.onEnlarge("nll");
    expect(store.view.large).toBe("nll");
    events.onEnlarge("nll");
    expect([store.view.large, store.viewChanges]).toEqual(["", 3]);
    grid.dispose();
  });

  it("move the cursor of every chart in the next frame", () => {
    const { events, grid, points } = real();
    vi.advanceTimersToNextFrame();
    points.length = 0;
    events.onPoint(4);
    events.onPoint(5);
    expect([events.cursor(), points]).toEqual([5, []]);
    vi.advanceTimersToNextFrame();
    expect(points).toEqual([5, 5, 5]); // loss, nll and the metric in the box
    grid.dispose();
  });

  it("report a change of the view, and redraw after a change of the size", () => {
    const { store, events, grid } = real();
    const draw = vi.spyOn(Panel.prototype, "draw").mockImplementation(() => {});
    vi.advanceTimersToNextFrame();
    draw.mockClear();
    events.onViewChange();
    expect(store.viewChanges).toBe(1);
    vi.advanceTimersToNextFrame();
    expect(draw).toHaveBeenCalledTimes(2);
    events.onResize();
    vi.advanceTimersToNextFrame();
    expect(draw).toHaveBeenCalledTimes(4);
    expect(store.viewChanges).toBe(1);
    grid.dispose();
  });
});
