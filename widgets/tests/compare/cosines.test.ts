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

describe("CosinesPanel in detail", () => {
  const shown = (panel: CosinesPanel, selector: string) => panel.element.querySelector(selector) as HTMLElement;
  const button = (panel: CosinesPanel) => shown(panel, "button") as HTMLButtonElement;
  const caption = (panel: CosinesPanel) => shown(panel, "[role='status']").textContent;

  it("has a row and a column for each run, and the norms", () => {
    const { panel } = scene(true, { ...MATRIX, labels: ["<b>", "b"], norms: [2, 1234] });
    panel.draw();
    const rows = [...panel.element.querySelectorAll("tr")].map((row) =>
      [...row.children].map((cell) => cell.textContent),
    );
    expect(rows).toEqual([
      ["", "<b>", "b", "|g|"],
      ["<b>", "1.000", "−0.500", "2.000"],
      ["b", "−0.500", "–", "1234"],
    ]);
    const cells = [...panel.element.querySelectorAll<HTMLElement>("[data-pair]")];
    expect(cells.map(({ dataset }) => dataset.pair)).toEqual(["0 0", "0 1", "1 0", "1 1"]);
    // 255 * 0.4 = 102 and 255 * 0.22 = 56, of 255.
    expect(cells[0]?.style.background).toMatch(/^rgba\(0, 114, 178, 0\.4\)$/);
    expect(cells[1]?.style.background).toMatch(/^rgba\(213, 94, 0, 0\.2\d*\)$/);
    const scopes = [...panel.element.querySelectorAll("th")].map((head) => head.getAttribute("scope"));
    expect(scopes).toEqual(["col", "col", "col", "row", "row"]);
    expect((panel.element.querySelector("bdi") as HTMLElement).title).toBe("<b>");
  });

  it("says at which weights, with how many sequences", () => {
    const { panel } = scene(true, { ...MATRIX, at: "<b>", step: 1200, datums: 7 });
    panel.draw();
    expect(caption(panel)).toBe(
      "7 sequences of one batch, at the weights of <b> after 1,200 steps. |g| is the norm of a gradient.",
    );
  });

  it("says what it will measure, and has no matrix before", () => {
    for (const cosines of [null, { ...MATRIX, values: [] }]) {
      const { panel } = scene(true, cosines);
      panel.draw();
      expect(caption(panel)).toBe("Measured when training starts: do the gradients point in the same direction?");
      expect([panel.element.querySelectorAll("tr").length, shown(panel, "[role='alert']").hidden]).toEqual([0, true]);
      expect([button(panel).textContent, button(panel).disabled]).toEqual(["Measure", false]);
    }
  });

  it("says that it measures, and why the last measurement failed", () => {
    const { panel, kernel } = scene(true, { ...MATRIX, busy: true });
    panel.draw();
    expect([button(panel).textContent, button(panel).disabled, panel.element.dataset.busy]).toEqual([
      "Measuring…",
      true,
      "",
    ]);
    const table = panel.element.querySelector("tbody");
    kernel.set("cosines", { ...MATRIX, busy: false, problem: "<i>" });
    panel.draw();
    expect([button(panel).textContent, button(panel).disabled, panel.element.dataset.busy]).toEqual([
      "Measure",
      false,
      undefined,
    ]);
    const problem = shown(panel, "[role='alert']");
    expect([problem.hidden, problem.textContent, panel.element.querySelector("tbody") === table]).toEqual([
      false,
      "<i>",
      false,
    ]);
    kernel.set("cosines", MATRIX);
    panel.draw();
    expect(problem.hidden).toBe(true);
    const drawn = panel.element.querySelector("tbody");
    panel.draw();
    expect(panel.element.querySelector("tbody")).toBe(drawn);
  });

  it("measures once at a press, before training or at the weights of a run", () => {
    const { panel, kernel, select, view } = scene(true);
    const sent = () => kernel.asked.filter(({ type }) => type === "cosines").map(({ at }) => at);
    button(panel).click();
    expect([sent(), view.weights]).toEqual([[null], ""]);
    select.value = "0";
    button(panel).click();
    expect([sent(), view.weights]).toEqual([[null, "a"], "0"]);
    const without = scene(false);
    button(without.panel).click();
    expect(without.kernel.asked.at(-1)).toMatchObject({ type: "cosines", at: "a" });
  });

  it("is silent after dispose", () => {
    const { panel, kernel, select } = scene(true);
    document.body.append(panel.element);
    panel.dispose();
    const before = kernel.asked.length;
    button(panel).click();
    select.dispatchEvent(new Event("change"));
    expect([kernel.asked.length, panel.element.isConnected]).toEqual([before, false]);
  });
});

describe("background at the ends", () => {
  it("is faint at 0, and has two digits of alpha", () => {
    expect([background(0, THEME), background(-0, THEME)]).toEqual([`${ROLES.light.train}0a`, `${ROLES.light.train}0a`]);
    expect(background(-1, THEME)).toBe(`${ROLES.light.rejected}66`);
  });
});
