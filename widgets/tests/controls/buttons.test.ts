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
