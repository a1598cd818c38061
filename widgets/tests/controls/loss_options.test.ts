// @vitest-environment jsdom
import { describe, expect, it } from "vitest";
import { optionGroups } from "../../src/controls/loss_options";
import { lossEntry } from "../support";

describe("optionGroups", () => {
  it("has the losses by family, and says why one cannot be used", () => {
    const losses = [
      lossEntry("dpo"),
      lossEntry("mine", { family: "custom" }),
      lossEntry("ppo", { reason: "no rewards" }),
    ];
    const groups = optionGroups(losses);
    const options = groups.map((group) => [...group.children] as HTMLOptionElement[]);
    expect(options.map((all) => all.map(({ value }) => value))).toEqual([["dpo", "ppo"], ["mine"]]);
    expect(options[0]?.map(({ disabled, text }) => [disabled, text.includes("no rewards")])).toEqual([
      [false, false],
      [true, true],
    ]);
  });
});
