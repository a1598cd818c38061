import { describe, expect, it } from "vitest";
import { stem } from "../src/charts/downloads";
import { calm } from "../src/controls/notices";
import { History } from "../src/history";
import { firstLoss, lossMarks, lossOfLastStep } from "../src/loss_marks";
import type { LossEntry, State } from "../src/protocol";

const LOSSES = ["dpo", "hinge", "my loss"].map((name) => ({ name }) as LossEntry);
const STATE = { status: "finished", steps_done: 60, recipe: "preference", loss: "dpo", marks: [] as unknown } as State;
const MARKS = [
  { step: 10, label: "hinge v1" },
  { step: 20, label: "beta 2" },
  { step: 30, label: "my loss v12" },
  { step: 40, label: "grade v2" },
];

describe("lossMarks", () => {
  it("are those of losses, and of nothing else that is known", () => {
    expect(lossMarks(MARKS, LOSSES)).toEqual([
      { step: 10, name: "hinge" },
      { step: 30, name: "my loss" },
    ]);
    expect(lossMarks(MARKS, []).map(({ step }) => step)).toEqual([10, 30, 40]);
  });
});

describe("the loss of the last step", () => {
  const made = { losses: LOSSES, first: "pairwise_preference" };

  it("is that of the last mark, else the first one, and not the one that is chosen", () => {
    expect(lossOfLastStep({ ...made, state: { ...STATE, marks: MARKS } })).toBe("my loss");
    expect(lossOfLastStep({ ...made, state: STATE })).toBe("pairwise_preference");
    expect(lossOfLastStep({ ...made, state: STATE, losses: [] })).toBe("dpo");
  });

  it("names files, and is left out where it is not known", () => {
    expect(stem({ ...made, state: STATE })).toBe("preference-pairwise_preference-step60");
    expect(stem({ ...made, state: STATE, first: "" })).toBe("preference-step60");
    expect(stem({ ...made, state: STATE, first: "<img src=x>/../" })).toBe("preference-_img_src_x_-step60");
    expect(stem({ ...made, state: null })).toBe("run-step0");
  });
});

describe("firstLoss", () => {
  const at = (steps_done: number, loss: string, status: State["status"] = "running") =>
    ({ ...STATE, steps_done, loss, status }) as State;

  it("follows a run from its beginning, whatever is chosen later", () => {
    const states = [at(0, "dpo", "ready"), at(0, "hinge"), at(3, "hinge"), at(9, "hinge"), at(9, "dpo", "finished")];
    let [before, first] = [null as State | null, ""];
    const seen = states.map((state) => {
      first = firstLoss(before, state, first);
      before = state;
      return first;
    });
    expect(seen).toEqual(["dpo", "hinge", "hinge", "hinge", "hinge"]);
  });

  it("is not known of a run that is over, nor where the choice came with the steps", () => {
    expect(firstLoss(null, at(9, "dpo", "finished"), "")).toBe("");
    expect(firstLoss(null, at(9, "dpo"), "")).toBe("dpo");
    expect(firstLoss(at(0, "dpo"), at(2, "hinge"), "dpo")).toBe("");
  });
});

describe("the last line", () => {
  const told = (series: Record<string, number>) => {
    const history = new History();
    for (const [name, value] of Object.entries(series)) history.add(60, name, value);
    return { history, halting: "" as const };
  };

  it("counts one step as one", () => {
    expect(calm({ ...STATE, steps_done: 1, baseline: {} }, told({}))).toBe("Finished 1 step. ");
    expect(calm({ ...STATE, steps_done: 1, status: "paused", baseline: {} }, told({}))).toBe("Paused after 1 step. ");
  });

  it("says what was achieved on held-out data, of reinforcement learning its reward", () => {
    const baseline = { loss: 1, reward: 0.125 };
    expect(calm({ ...STATE, baseline }, told({ "held_out/reward": 0.75, "held_out/loss": 2 }))).toBe(
      "Finished 60 steps. Held-out reward 0.125 → 0.750.",
    );
    expect(
      calm({ ...STATE, baseline: { pair_accuracy: 0.5, loss: 1 } }, told({ "held_out/pair_accuracy": 0.906 })),
    ).toBe("Finished 60 steps. Held-out pair_accuracy 0.500 → 0.906.");
  });
});
