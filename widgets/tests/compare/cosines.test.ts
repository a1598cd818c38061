// @vitest-environment jsdom
import { describe, expect, it } from "vitest";
import { background, CosinesPanel } from "../../src/compare/cosines";
import { ROLES } from "../../src/lib/palette";
import { MultiRunStore } from "../../src/multi_run_store";
import { FakeKernel, SNAPSHOT, THEME } from "../support";

const RESULT = { step: 0, before: {}, final: {} };
const MATRIX = {
  ...{ labels: ["a", "b"], norms: [2, 3], at: null, step: 0, datums: 32, busy: false, problem: "" },
  values: [
    [1, -0.5],
    [-0.5, null],
  ],
};

function scene(batchBeforeTraining: boolean, cosines: unknown = null) {
  const runs = ["a", "b"].map((label) => ({ label, result: RESULT, snapshot: { ...SNAPSHOT, epoch: label } }));
  const compared = { recipe: "", batch_before_training: batchBeforeTraining, runs };
  const kernel = new FakeKernel({ compared, cosines });
  const store = new MultiRunStore(kernel, ["cosines"]);
  const view = { weights: null as string | null };
  const panel = new CosinesPanel(store, view, () => THEME);
  const select = panel.element.querySelector("select") as HTMLSelectElement;
  return { kernel, store, view, panel, select };
}

describe("CosinesPanel", () => {
  it("offers the weights before training only if there is a batch by then", () => {
    const choices = (isKnown: boolean) => [...scene(isKnown).select.options].map((option) => option.text);
    expect(choices(true)).toEqual(["before training", "a, now", "b, now"]);
    expect(choices(false)).toEqual(["a, now", "b, now"]);
    expect([scene(true).select.value, scene(false).select.value]).toEqual(["", "0"]);
  });

  it("requests a measurement at the chosen weights, and remembers the choice for other views", () => {
    const { kernel, store, view, select } = scene(true);
    select.value = "1";
    select.dispatchEvent(new Event("change"));
    expect(kernel.asked.at(-1)).toMatchObject({ type: "cosines", at: "b" });
    const other = new CosinesPanel(store, view, () => THEME);
    expect(other.element.querySelector("select")?.value).toBe("1");
  });

  it("draws the matrix, with a dash for a gradient of 0", () => {
    const { panel } = scene(true, MATRIX);
    panel.draw();
    expect([...panel.element.querySelectorAll("[data-pair]")].map((cell) => cell.textContent)).toEqual([
      "1.000",
      "−0.500",
      "−0.500",
      "–",
    ]);
    expect(panel.element.textContent).toContain("32 sequences of one batch, at the weights before training");
  });

  it("shows why a measurement failed", () => {
    const { panel } = scene(true, { ...MATRIX, problem: "the loss raised" });
    panel.draw();
    expect(panel.element.querySelector("[role='alert']")?.textContent).toBe("the loss raised");
  });
});

describe("background", () => {
  it("has the colour of agreement or opposition, stronger for larger cosines", () => {
    // 255 * 0.4 = 102 = 0x66; 255 * 0.22 = 56.1, 0x38
    expect(background(1, THEME)).toBe(`${ROLES.light.train}66`);
    expect(background(-0.5, { roles: ROLES.dark })).toBe(`${ROLES.dark.rejected}38`);
    expect(background(null, THEME)).toBe("none");
  });
});
