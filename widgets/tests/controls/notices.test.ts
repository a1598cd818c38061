// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Notices, statusText } from "../../src/controls/notices";
import { History } from "../../src/history";
import type { Failure, LossEntry, State } from "../../src/messages";
import { KERNEL_BUSY } from "../../src/requests";
import { RunStore } from "../../src/run_store";
import { FakeKernel, STATE, snapshotOf, storeOf } from "../support";

const FINISHED: State = { ...STATE, status: "finished", steps_done: 60 };

function storeWith(series: Record<string, number>) {
  const history = new History();
  for (const [name, value] of Object.entries(series)) history.add(60, name, value);
  return { history, requestedStatus: "" as const };
}

describe("statusText", () => {
  it("uses the singular for one step", () => {
    expect(statusText({ ...FINISHED, steps_done: 1 }, storeWith({}))).toBe("Finished 1 step. ");
    expect(statusText({ ...FINISHED, steps_done: 1, status: "paused" }, storeWith({}))).toBe("Paused after 1 step. ");
  });

  it("reports the first headline that was measured before training", () => {
    const ofRl = { ...FINISHED, headlines: ["pair_accuracy", "reward", "loss"], baseline: { loss: 1, reward: 0.125 } };
    expect(statusText(ofRl, storeWith({ "held_out/reward": 0.75, "held_out/loss": 2 }))).toBe(
      "Finished 60 steps. Held-out reward 0.125 → 0.750.",
    );
    const ofPairs = { ...FINISHED, baseline: { pair_accuracy: 0.5, loss: 1 } };
    expect(statusText(ofPairs, storeWith({ "held_out/pair_accuracy": 0.906 }))).toBe(
      "Finished 60 steps. Held-out pair_accuracy 0.500 → 0.906.",
    );
    expect(statusText({ ...ofPairs, headlines: [] }, storeWith({}))).toBe("Finished 60 steps. ");
  });
});

describe("Notices", () => {
  const FAILURE: Failure = {
    ...{ step: 3, message: "it broke", line: null, index: null, traceback: "", loss: null, reward: null },
  };
  const remedy = (failure: Partial<Failure>, state: Partial<State> = {}) => {
    const losses = [
      { name: "mine", family: "custom" },
      { name: "dpo", family: "preference" },
    ] as LossEntry[];
    const snapshot = snapshotOf({}, { status: "paused", failure: { ...FAILURE, ...failure }, ...state }, { losses });
    const notices = new Notices(storeOf(snapshot));
    const text = notices.element.querySelector(".ml-hint")?.textContent ?? "";
    notices.dispose();
    return text.replace("Weights and optimizer are as they were before this step. ", "");
  };

  it("say what resumes the run", () => {
    expect(remedy({ loss: "mine" })).toBe("Fix mine and run its cell: the run then resumes with this step.");
    expect(remedy({ reward: "grade" })).toBe("Fix grade and run its cell: the run then resumes with this step.");
    expect(remedy({ loss: "dpo" })).toBe("Choose another loss or other settings, then press Resume.");
    expect(remedy({ line: 4 })).toBe("Fix the loss and run its cell, then press Resume.");
    expect(remedy({})).toBe("Resume retries the step.");
    expect(remedy({}, { status: "stopped" })).toBe("The run is over; New run starts over.");
  });

  it("show the lines of a loss, with the failing one marked", () => {
    const traceback = "mine v2, line 4:\n      3 a = 1\n-->   4 b = <i>\n      5 c = 3";
    const notices = new Notices(storeOf(snapshotOf({}, { failure: { ...FAILURE, traceback } })));
    const lines = [...notices.element.querySelectorAll(".ml-code")];
    expect(lines.map((line) => line.textContent?.trim())).toEqual(["3 a = 1", "-->   4 b = <i>", "5 c = 3"]);
    expect(notices.element.querySelector(".ml-marked")?.textContent).toContain("b = <i>");
    notices.dispose();
  });

  it("show a refusal until it is cleared", () => {
    const notices = new Notices(storeOf(snapshotOf({})));
    const line = notices.element.querySelector(".ml-line") as HTMLElement;
    notices.showRefusal("it is over");
    expect([line.textContent, line.dataset.kind]).toEqual(["it is over", "warning"]);
    notices.showRefusal("");
    expect(line.dataset.kind).toBe("quiet");
    notices.dispose();
  });
});

describe("statusText of a run that is not over", () => {
  const text = (state: Partial<State>, requestedStatus: "" | "pause" | "stop" = "") =>
    statusText({ ...STATE, ...state }, { history: new History(), requestedStatus });

  it("says what will happen", () => {
    expect(text({ status: "ready" })).toBe("The model will learn. No step is complete yet.");
    expect(text({ status: "ready", base_model: "tiny", data: "40 <pairs>" })).toBe(
      "tiny will learn on 40 <pairs>. No step is complete yet.",
    );
  });

  it("says what happens", () => {
    expect(text({ steps_done: 0, data: "pairs" })).toBe("Loading the model and the data…");
    expect(text({ steps_done: 1 })).toBe("A change of the loss or a setting takes effect at the next step.");
    expect(text({ steps_done: 1, data: "pairs" })).toBe(
      "Learning from pairs. A change of the loss or a setting takes effect at the next step.",
    );
  });

  it("says what was requested", () => {
    const rest = "after the current step. A loss that does not return is cancelled.";
    expect([text({}, "pause"), text({}, "stop")]).toEqual([`Pausing ${rest}`, `Stopping ${rest}`]);
    expect(text({ status: "paused", steps_done: 2 }, "stop")).toBe("Paused after 2 steps. ");
  });

  it("says how the run ended", () => {
    expect(text({ status: "stopped", steps_done: 1200 })).toBe("Stopped after 1,200 steps. ");
    expect(text({ status: "finished", steps_done: 0 })).toBe("Finished 0 steps. ");
  });
});

describe("the panel of a failed step", () => {
  const FAILURE: Failure = {
    ...{ step: 1234, message: "<b>it</b> broke", line: 7, index: null, traceback: "", loss: "mine", reward: null },
  };
  const show = (failure: Partial<Failure> | null, state: Partial<State> = {}) => {
    const full = failure && { ...FAILURE, ...failure };
    const notices = new Notices(storeOf(snapshotOf({}, { status: "paused", failure: full, loss: "mine", ...state })));
    const find = (selector: string) => notices.element.querySelector(selector) as HTMLElement;
    notices.dispose();
    return { find, panel: find(".ml-failure"), details: find("details") as HTMLDetailsElement };
  };

  it("is hidden without a failure", () => {
    expect([show(null).panel.hidden, show({}).panel.hidden]).toEqual([true, false]);
  });

  it("names step, line and message, as text", () => {
    const { find, panel } = show({});
    expect(find("strong").textContent).toBe("Step 1,234 failed, line 7 of mine");
    expect(find(".ml-failure-text").textContent).toBe("<b>it</b> broke");
    expect(find(".ml-hint").textContent).toBe(
      "Weights and optimizer are as they were before this step. " +
        "Choose another loss or other settings, then press Resume.",
    );
    expect(panel.getAttribute("role")).toBe("alert");
  });

  it("names no line that is unknown or in the message", () => {
    expect(show({ line: null }).find("strong").textContent).toBe("Step 1,234 failed");
    expect(show({ message: "line 7: it broke" }).find("strong").textContent).toBe("Step 1,234 failed");
    expect(show({ message: "line 8: it broke" }).find("strong").textContent).toBe("Step 1,234 failed, line 7 of mine");
  });

  it("shows a short traceback at once, folds a long one, and hides an empty one", () => {
    const state = (traceback: string) => {
      const { details, find } = show({ traceback });
      return [details.hidden, details.open, find("pre").textContent?.length];
    };
    expect(state("")).toEqual([true, false, 0]);
    expect(state("x".repeat(899))).toEqual([false, true, 899]);
    expect(state("x".repeat(900))).toEqual([false, false, 900]);
    const lines = `-->   4 ${"x".repeat(900)}\n not of the loss\n      5`;
    expect(state(lines)).toEqual([false, true, 915]);
    expect(show({ traceback: "      5 a\n      6 b" }).find("pre").textContent).toBe("      5 a\n      6 b");
  });

  it("stays as a person left it while the failure is the same", () => {
    const kernel = new FakeKernel({ snapshot: snapshotOf({}, { failure: { ...FAILURE, traceback: "short" } }) });
    const store = new RunStore(kernel);
    const notices = new Notices(store);
    const details = notices.element.querySelector("details") as HTMLDetailsElement;
    details.open = false;
    store.viewChanged();
    expect(details.open).toBe(false);
    store.state = { ...STATE, failure: { ...FAILURE, traceback: "other" } };
    store.viewChanged();
    expect([details.open, details.querySelector("pre")?.textContent]).toEqual([true, "other"]);
    store.state = { ...STATE, failure: null };
    store.viewChanged();
    expect(notices.element.querySelector<HTMLElement>(".ml-failure")?.hidden).toBe(true);
    notices.dispose();
  });

  it("tells a custom loss from a built-in one of another name", () => {
    const losses = [{ name: "mine", family: "custom" }] as LossEntry[];
    const notices = new Notices(storeOf(snapshotOf({}, { failure: { ...FAILURE, loss: "gone" } }, { losses })));
    expect(notices.element.querySelector(".ml-hint")?.textContent).toContain("Choose another loss");
    notices.dispose();
  });
});

describe("the line of Notices", () => {
  beforeEach(() => {
    vi.useFakeTimers();
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  function scene(snapshot: unknown = snapshotOf({}, { status: "paused", steps_done: 2 })) {
    const kernel = new FakeKernel(snapshot ? { snapshot } : {});
    const store = new RunStore(kernel);
    const notices = new Notices(store);
    document.body.append(notices.element);
    const line = notices.element.querySelector(".ml-line") as HTMLElement;
    return { kernel, store, notices, shown: () => [line.textContent, line.dataset.kind, line.title], line };
  }

  it("is empty without a run, else about its status", () => {
    const without = scene(null);
    expect(without.shown()).toEqual(["", "quiet", ""]);
    without.notices.dispose();
    const { shown, notices, line } = scene();
    expect(shown()).toEqual(["Paused after 2 steps. ", "quiet", "Paused after 2 steps. "]);
    expect(line.getAttribute("aria-live")).toBe("polite");
    notices.dispose();
  });

  it("prefers a problem of the page to a late answer, that to a refusal, and that to the status", async () => {
    const { store, notices, shown, kernel } = scene();
    notices.showRefusal("it is over");
    expect(shown()).toEqual(["it is over", "warning", "it is over"]);
    void store.request({ type: "pause" });
    vi.advanceTimersByTime(2000);
    expect(shown()).toEqual([KERNEL_BUSY, "warning", KERNEL_BUSY]);
    store.problem = "another version";
    store.viewChanged();
    expect(shown()).toEqual(["another version", "warning", "another version"]);
    store.problem = "";
    kernel.reply("");
    expect(shown()[0]).toBe("it is over");
    notices.dispose();
  });

  it("looks for a late answer every second, until dispose", () => {
    const { notices, shown, store } = scene();
    store.problem = "another version"; // not announced by the store
    vi.advanceTimersByTime(999);
    expect(shown()[1]).toBe("quiet");
    vi.advanceTimersByTime(1);
    expect(shown()[1]).toBe("warning");
    notices.dispose();
    store.problem = "";
    vi.advanceTimersByTime(5000);
    store.viewChanged();
    expect([shown()[1], notices.element.isConnected]).toEqual(["warning", false]);
  });
});
