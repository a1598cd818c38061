// @vitest-environment jsdom
import { afterEach, describe, expect, it, vi } from "vitest";
import { type ButtonRow, comparisonButtons, runButtons } from "../../src/controls/buttons";
import type { State } from "../../src/messages";
import { MultiRunStore } from "../../src/multi_run_store";
import { RunStore } from "../../src/run_store";
import { FakeKernel, SNAPSHOT, STATE, settled } from "../support";

const RESULT = { step: 0, before: {}, final: {} };

const snapshot = (state: Partial<State>, seen = 0) => ({ ...SNAPSHOT, seen, state: { ...STATE, ...state } });

/** The labels of the buttons that are visible, those that are disabled in brackets. */
function labels({ element }: ButtonRow<never> | { element: HTMLElement }): string[] {
  const visible = [...element.querySelectorAll("button")].filter((button) => !button.hidden);
  return visible.map((button) => (button.disabled ? `[${button.textContent}]` : (button.textContent ?? "")));
}

const press = ({ element }: { element: HTMLElement }, label: string) =>
  [...element.querySelectorAll("button")].find((button) => button.textContent === label)?.click();

const requests = (kernel: FakeKernel) => kernel.asked.filter(({ type }) => type !== "sync").map(({ type }) => type);

function ofRun(state: Partial<State> = {}, canRenew = true) {
  const kernel = new FakeKernel({ snapshot: snapshot(state) });
  const store = new RunStore(kernel);
  const onRefusal = vi.fn();
  return { kernel, store, onRefusal, row: runButtons(store, onRefusal, canRenew) };
}

function ofComparison(...runs: [State["status"], number][]) {
  const compared = {
    ...{ recipe: "preference", batch_before_training: true },
    runs: runs.map(([status, steps_done], i) => ({
      ...{ label: String(i), result: RESULT },
      snapshot: { ...snapshot({ status, steps_done, steps_per_s: 2 }, steps_done), epoch: String(i) },
    })),
  };
  const kernel = new FakeKernel({ compared });
  return { kernel, row: comparisonButtons(new MultiRunStore(kernel)) };
}

afterEach(() => {
  vi.useRealTimers();
});

describe("every row of buttons", () => {
  const scenes = { "of a run": () => ofRun(), "of a comparison": () => ofComparison(["running", 3]) };

  it.each(Object.entries(scenes))("%s can be pressed again if no answer arrives", (_, scene) => {
    vi.useFakeTimers();
    const { row, kernel } = scene();
    press(row, "Stop");
    expect(labels(row).every((label) => label.startsWith("["))).toBe(true);
    vi.advanceTimersByTime(2000);
    expect(labels(row)).toContain("Stop");
    press(row, "Stop");
    expect(requests(kernel)).toEqual(["stop", "stop"]);
    row.dispose();
  });

  it.each(Object.entries(scenes))("%s is enabled again by the answer", async (_, scene) => {
    const { row, kernel } = scene();
    press(row, "Pause");
    expect(requests(kernel)).toEqual(["pause"]);
    kernel.reply("");
    await settled();
    expect(labels(row)).toContain("Pause");
  });
});

describe("the buttons of a run", () => {
  it.each<[State["status"], string[]]>([
    ["ready", ["Start", "Step", "Stop"]],
    ["running", ["Pause", "[Step]", "Stop"]],
    ["paused", ["Resume", "Step", "Stop"]],
    ["stopped", ["New run", "[Step]", "[Stop]"]],
    ["finished", ["New run", "[Step]", "[Stop]"]],
  ])("of status %s are %j", (status, expected) => {
    expect(labels(ofRun({ status }).row)).toEqual(expected);
  });

  it("have no New run where none can follow, and are disabled without a run", () => {
    expect(labels(ofRun({ status: "finished" }, false).row)).toEqual(["[Step]", "[Stop]"]);
    expect(labels(runButtons(new RunStore(new FakeKernel({})), () => {}))).toEqual(["[Start]", "[Step]", "[Stop]"]);
  });

  it("record a requested pause, and report a refusal", async () => {
    const { kernel, store, onRefusal, row } = ofRun();
    press(row, "Pause");
    kernel.reply("");
    await settled();
    expect([store.requestedStatus, onRefusal.mock.lastCall]).toEqual(["pause", [""]]);
    press(row, "Stop");
    kernel.reply("it is over");
    await settled();
    expect(onRefusal.mock.lastCall).toEqual(["it is over"]);
  });

  it("show the progress and the status", () => {
    const { row } = ofRun({ steps_done: 1250, steps_total: 5000, steps_per_s: 2.5 });
    const text = (selector: string) => row.element.querySelector(selector)?.textContent;
    expect(text(".ml-count")).toBe("step 1,250 / 5,000");
    expect(text(".ml-rate")).toBe("2.5 steps/s");
    expect(text(".ml-left")).toBe("25 min left");
    expect(row.element.querySelector("[role='progressbar']")?.getAttribute("aria-valuenow")).toBe("1250");
    const failure = { step: 2, message: "", line: null, index: null, traceback: "", loss: null, reward: null };
    const status = (state: Partial<State>) => ofRun({ ...state, failure }).row.element.querySelector(".ml-status");
    expect(status({ status: "paused" })?.textContent).toBe("failed");
    expect(status({ status: "stopped" })?.textContent).toBe("stopped");
  });
});

describe("the buttons of a comparison", () => {
  it.each<[[State["status"], number][], string[]]>([
    [[], ["[Start]", "[Stop]"]],
    [[["ready", 0]], ["Start", "Stop"]],
    [
      [
        ["running", 1],
        ["paused", 1],
      ],
      ["Pause", "Stop"],
    ],
    [
      [
        ["paused", 1],
        ["finished", 9],
      ],
      ["Resume", "Stop"],
    ],
    [
      [
        ["stopped", 1],
        ["finished", 9],
      ],
      ["[Start]", "[Stop]"],
    ],
  ])("of runs %j are %j", (runs, expected) => {
    expect(labels(ofComparison(...runs).row)).toEqual(expected);
  });

  it("show the progress of all runs together", () => {
    const { row } = ofComparison(["running", 30], ["paused", 20]);
    expect(row.element.querySelector(".ml-count")?.textContent).toBe("50 / 200 steps of 2 runs");
    expect(row.element.querySelector(".ml-rate")?.textContent).toBe("2.0 steps/s");
    expect(row.element.querySelector("[role='group']")?.getAttribute("aria-label")).toBe("All runs");
  });
});

describe("the buttons in detail", () => {
  const buttons = ({ element }: { element: HTMLElement }) => [...element.querySelectorAll("button")];
  const group = ({ element }: { element: HTMLElement }) => element.querySelector("[role='group']");

  it.each<[State["status"], string, string]>([
    ["ready", "start", "Load the model and start training"],
    ["running", "pause", "Pause after the current step"],
    ["paused", "resume", "Continue with the next step"],
    ["stopped", "new_run", "Start over with the loss and settings shown"],
    ["finished", "new_run", "Start over with the loss and settings shown"],
  ])("of a run that is %s send %s", (status, request, title) => {
    const { row, kernel } = ofRun({ status });
    const [primary] = buttons(row);
    expect(primary?.title).toBe(title);
    primary?.click();
    expect(requests(kernel)).toEqual([request]);
  });

  it("of a run send a step and a stop", async () => {
    const { row, kernel } = ofRun({ status: "paused" });
    expect(buttons(row).map(({ title }) => title)).toEqual([
      ...["Continue with the next step", "Do one step", "End the run after the current step"],
    ]);
    press(row, "Step");
    expect(labels(row)).toEqual(["[Resume]", "[Step]", "[Stop]"]);
    kernel.reply("");
    await settled();
    press(row, "Stop");
    expect(requests(kernel)).toEqual(["step", "stop"]);
    expect([group(row)?.getAttribute("aria-label"), row.element.className]).toEqual(["Run", "ml-bar"]);
  });

  it("of a run hide New run if none can follow, and only then", () => {
    const hidden = (state: Partial<State>, canRenew: boolean) => buttons(ofRun(state, canRenew).row)[0]?.hidden;
    expect(hidden({ status: "stopped" }, false)).toBe(true);
    expect([hidden({ status: "stopped" }, true), hidden({ status: "paused" }, false)]).toEqual([false, false]);
  });

  it.each<[State["status"], string, string]>([
    ["running", "Pause", "pause"],
    ["running", "Stop", "stop"],
    ["paused", "Stop", ""],
    ["paused", "Resume", ""],
  ])("record what was requested while %s by %s: %j", async (status, label, expected) => {
    const { kernel, store, row, onRefusal } = ofRun({ status });
    store.requestedStatus = "pause";
    press(row, label);
    kernel.reply("");
    await settled();
    expect([store.requestedStatus, onRefusal.mock.calls]).toEqual([expected, [[""]]]);
  });

  it("keep what was requested before a refusal", async () => {
    const { kernel, store, row } = ofRun();
    store.requestedStatus = "pause";
    press(row, "Stop");
    kernel.reply("no");
    await settled();
    expect(store.requestedStatus).toBe("pause");
  });

  it("are silent after dispose", () => {
    const { kernel, row, store } = ofRun({ status: "paused" });
    document.body.append(row.element);
    row.dispose();
    for (const button of buttons(row)) button.click();
    store.state = { ...STATE, status: "running" };
    store.viewChanged();
    expect([requests(kernel), labels(row), row.element.isConnected]).toEqual([[], ["Resume", "Step", "Stop"], false]);
  });

  it("follow the run, with a new icon only if the button changed", () => {
    const { row, store } = ofRun({ status: "paused" });
    const icon = () => buttons(row)[0]?.querySelector("svg");
    const before = icon();
    store.viewChanged();
    expect(icon()).toBe(before);
    store.state = { ...STATE, status: "running" };
    store.viewChanged();
    expect([labels(row), icon() === before]).toEqual([["Pause", "[Step]", "Stop"], false]);
  });

  it("of a comparison send requests for all runs", () => {
    const titles = (...runs: [State["status"], number][]) => {
      const { row, kernel } = ofComparison(...runs);
      const [primary, stop] = buttons(row);
      primary?.click();
      const [request] = requests(kernel);
      return [primary?.textContent, request, primary?.title, stop?.title];
    };
    const stop = "End every run after its current step";
    expect(titles(["ready", 0])).toEqual(["Start", "start", "Load the model and train every run", stop]);
    expect(titles(["running", 0])).toEqual(["Pause", "pause", "Pause every run after its current step", stop]);
    expect(titles(["paused", 1])).toEqual(["Resume", "resume", "Resume every run", stop]);
    expect(titles(["finished", 1])).toEqual([
      ...["Start", undefined, "Every run is over; create a new comparison to start again", stop],
    ]);
    const { row, kernel } = ofComparison(["paused", 1]);
    press(row, "Stop");
    expect(requests(kernel)).toEqual(["stop"]);
  });
});

describe("the progress", () => {
  const text = (state: Partial<State>, selector: string) =>
    ofRun(state).row.element.querySelector(selector)?.textContent;

  it.each([
    [0, ""],
    [0.04, "0.0 steps/s"],
    [9.96, "10.0 steps/s"],
    [10, "10 steps/s"],
    [123.4, "123 steps/s"],
  ])("at %d steps per second says %j", (steps_per_s, expected) => {
    expect(text({ steps_per_s }, ".ml-rate")).toBe(expected);
  });

  it("says how long a run takes only if it runs, moves and has an end", () => {
    const left = (state: Partial<State>) => text({ steps_done: 40, steps_per_s: 2, ...state }, ".ml-left");
    expect(left({})).toBe("30 s left");
    for (const state of [{ status: "paused" as const }, { steps_per_s: 0 }, { steps_total: 0 }])
      expect(left(state)).toBe("");
  });

  it("has a bar as long as the share of steps, and never longer than its track", () => {
    const bar = (state: Partial<State>) => {
      const { element } = ofRun(state).row;
      const track = element.querySelector("[role='progressbar']");
      const names = ["aria-label", "aria-valuemin", "aria-valuemax", "aria-valuenow"];
      const width = (element.querySelector(".ml-fill") as HTMLElement).style.width;
      return [width, ...names.map((name) => track?.getAttribute(name))];
    };
    expect(bar({ steps_done: 25 })).toEqual(["25%", "Progress", "0", "100", "25"]);
    expect(bar({ steps_done: 150 })).toEqual(["100%", "Progress", "0", "100", "150"]);
    expect(bar({ steps_done: 5, steps_total: 0 })).toEqual(["0px", "Progress", "0", null, "5"]);
    expect(text({ steps_done: 5, steps_total: 0 }, ".ml-count")).toBe("step 5");
  });

  it("has the status beside it, which changes with the run", () => {
    const { row, store } = ofRun();
    const status = row.element.querySelector("[role='status']") as HTMLElement;
    expect([status.textContent, status.dataset.status]).toEqual(["running", "running"]);
    const { firstChild } = status;
    store.viewChanged();
    expect(status.firstChild).toBe(firstChild);
    store.state = { ...STATE, status: "finished" };
    store.viewChanged();
    expect([status.textContent, status.dataset.status]).toEqual(["finished", "finished"]);
  });

  it("of a comparison is failed if a run is, unless others run or all are over", () => {
    const failure = { step: 2, message: "", line: null, index: null, traceback: "", loss: null, reward: null };
    const status = (...statuses: State["status"][]) => {
      const runs = statuses.map((one, i) => ({
        ...{ label: String(i), result: RESULT },
        snapshot: { ...snapshot({ status: one, failure: i ? null : failure }), epoch: String(i) },
      }));
      const kernel = new FakeKernel({ compared: { recipe: "", batch_before_training: true, runs } });
      return comparisonButtons(new MultiRunStore(kernel)).element.querySelector(".ml-status")?.textContent;
    };
    expect([status("paused", "finished"), status("paused", "running"), status("stopped", "stopped")]).toEqual([
      ...["failed", "running", "stopped"],
    ]);
  });

  it("of a comparison counts the speed of running runs, and the time of all", () => {
    const { row } = ofComparison(["running", 30], ["running", 50]);
    const of = (selector: string) => row.element.querySelector(selector)?.textContent;
    expect([of(".ml-rate"), of(".ml-left"), of(".ml-count")]).toEqual([
      ...["4.0 steps/s", "30 s left", "80 / 200 steps of 2 runs"],
    ]);
    expect(row.element.querySelector("[role='progressbar']")?.getAttribute("aria-label")).toBe("Progress of all runs");
    expect(labels(ofComparison(["paused", 0]).row)).toEqual(["Start", "Stop"]);
  });
});
