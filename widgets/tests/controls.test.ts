// @vitest-environment jsdom
import { describe, expect, it, vi } from "vitest";
import { CompareControls } from "../src/compare/controls";
import { CompareStore } from "../src/compare/store";
import { RunControls } from "../src/controls/buttons";
import { Settings } from "../src/controls/settings";
import type { Snapshot, State } from "../src/protocol";
import { PROTOCOL } from "../src/protocol";
import type { Model } from "../src/requests";
import { Store } from "../src/store";

const STATE: State = {
  ...{ status: "running", steps_done: 3, steps_total: 100, steps_per_s: 0, recipe: "preference", base_model: "" },
  ...{ data: "", loss: "dpo", loss_label: "dpo v1", settings: {}, controls: [], clip: null, marks: [] },
  ...{ marks_total: 0, baseline: {}, histograms: [], warnings: [], failure: null },
};
const SNAPSHOT: Snapshot = {
  ...{ type: "snapshot", protocol: PROTOCOL, epoch: "a", number: 1, seen: 0, state: STATE },
  ...{ charts: [], losses: [], series: [], heats: [] },
};
const RESULT = { step: 0, before: {}, final: {} };

/** A kernel that died: it takes what it is asked and says nothing. */
function silent(traits: Record<string, unknown>) {
  const asked: Record<string, unknown>[] = [];
  const model: Model = {
    get: (name) => traits[name] ?? null,
    send: (content) => asked.push(content as Record<string, unknown>),
    on: () => {},
    off: () => {},
  };
  return { model, asked: () => asked.filter(({ type }) => type !== "sync").map(({ type }) => type) };
}

describe("buttons", () => {
  const scenes = {
    "of a run": () => {
      const { model, asked } = silent({ snapshot: SNAPSHOT });
      return { controls: new RunControls(new Store(model), () => {}), asked };
    },
    "of a comparison": () => {
      const { model, asked } = silent({
        compared: { recipe: "preference", runs: [{ label: "a", result: RESULT, snapshot: SNAPSHOT }] },
      });
      return { controls: new CompareControls(new CompareStore(model)), asked };
    },
  };

  it.each(Object.entries(scenes))("%s can be pressed again when no answer comes", (_, scene) => {
    vi.useFakeTimers();
    const { controls, asked } = scene();
    const buttons = [...controls.element.querySelectorAll("button")];
    const stop = buttons.find((button) => button.textContent === "Stop") as HTMLButtonElement;
    stop.click();
    expect(buttons.every((button) => button.disabled)).toBe(true);
    vi.advanceTimersByTime(2000);
    expect(stop.disabled).toBe(false);
    stop.click();
    expect(asked()).toEqual(["stop", "stop"]);
    controls.dispose();
    vi.useRealTimers();
  });
});

/** A slider of a run that answers when it is told to, and what it was asked for. */
function setting() {
  const asked: Record<string, unknown>[] = [];
  let hear: (content: unknown, buffers: DataView[]) => void = () => {};
  const control = { name: "beta", low: 0, high: 2, default: 1, minimum: 0, scale: "linear" as const, doc: "" };
  const state = { ...STATE, settings: { beta: 1 }, controls: [control] };
  const model: Model = {
    get: (name) => (name === "snapshot" ? { ...SNAPSHOT, state } : null),
    send: (content) => asked.push(content as Record<string, unknown>),
    on: (event, handler) => {
      if (event === "msg:custom") hear = handler;
    },
    off: () => {},
  };
  const { element } = new Settings(new Store(model));
  const entry = element.querySelector("[data-entry='beta']") as HTMLInputElement;
  const sent = () => asked.filter(({ type }) => type === "set");
  const answer = (at: number, error: string) => {
    hear({ type: "reply", request: sent()[at]?.request, error }, []);
    return new Promise((resolve) => setTimeout(resolve));
  };
  const type = (text: string) => {
    entry.value = text;
    entry.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter" }));
    entry.dispatchEvent(new Event("change"));
  };
  return { entry, sent, answer, type };
}

describe("a setting", () => {
  it("is asked for once by Enter and the change that follows", () => {
    const { type, sent } = setting();
    type("0.5");
    expect(sent().map(({ value }) => value)).toEqual([0.5]);
  });

  it("goes back to what was taken last where a later one is refused", async () => {
    const { type, sent, answer, entry } = setting();
    type("0.5");
    type("7");
    expect(sent().map(({ value }) => value)).toEqual([0.5, 7]);
    await answer(0, "");
    expect(entry.value).toBe("7");
    await answer(1, "beta is 7, expected at most 2");
    expect(entry.value).toBe("0.5");
  });
});
