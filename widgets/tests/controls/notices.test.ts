// @vitest-environment jsdom
import { describe, expect, it } from "vitest";
import { Notices, statusText } from "../../src/controls/notices";
import { History } from "../../src/history";
import type { Failure, LossEntry, State } from "../../src/messages";
import { STATE, snapshotOf, storeOf } from "../support";

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
