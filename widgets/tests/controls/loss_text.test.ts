// @vitest-environment jsdom
import { describe, expect, it } from "vitest";
import { FAMILIES, inputsOf, nameOf } from "../../src/controls/loss_text";
import { h } from "../../src/lib/dom";
import { lossEntry } from "../support";

const input = (name: string, here: boolean) => ({ name, here });

describe("nameOf", () => {
  it.each([
    ["dpo", "dpo v1", "preference", "dpo"],
    ["dpo", "dpo v2", "preference", "dpo v2"],
    ["mine", "mine v1", "custom", "mine v1"],
    ["dpo", "dpo_v1", "preference", "dpo_v1"],
    ["d", "dpo v1", "preference", "dpo v1"],
  ])("of %s, label %s, family %s is %s", (name, label, family, expected) => {
    expect(nameOf(lossEntry(name, { label, family }))).toBe(expected);
  });
});

describe("inputsOf", () => {
  it("says which inputs the data has", () => {
    const entry = lossEntry("x", { inputs: [input("weights", true), input("<b>", true), input("reward", false)] });
    const element = h("p", {}, ...inputsOf(entry));
    expect(element.textContent).toBe("Reads <b> ✓reward – not in this data");
    const spans = [...element.querySelectorAll<HTMLElement>("span")];
    expect(spans.map(({ className, dataset }) => [className, dataset.here])).toEqual([
      ["ml-input", "true"],
      ["ml-input", "false"],
    ]);
  });

  it("names tokens and weights if there is nothing else", () => {
    for (const inputs of [[], [input("weights", false)]]) {
      expect(h("p", {}, ...inputsOf(lossEntry("x", { inputs }))).textContent).toBe("Reads tokens and weights.");
    }
  });
});

describe("FAMILIES", () => {
  it("have headings", () => {
    expect(FAMILIES).toEqual({
      ...{ preference: "Preference", supervised: "Supervised", policy: "Policy", custom: "Yours" },
    });
  });
});
