// @vitest-environment jsdom
import { describe, expect, it, vi } from "vitest";
import { CompareControls } from "../src/compare/controls";
import { CompareStore } from "../src/compare/store";
import { RunControls } from "../src/controls/buttons";
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
