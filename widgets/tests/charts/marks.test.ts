// @vitest-environment jsdom
import { describe, expect, it } from "vitest";
import { lossChangeSteps, MarkList, markLayout, markLines } from "../../src/charts/marks";
import type { Mark } from "../../src/messages";
import { STATE, THEME } from "../support";

describe("markLines", () => {
  const at = (...steps: number[]) => steps.map((step) => ({ step, kind: "setting" as const, label: "x" }));

  it("numbers each change", () => {
    expect(markLines(at(10, 50), 2, 5)).toEqual([
      { x: 9.5, label: "1" },
      { x: 49.5, label: "2" },
    ]);
  });

  it("numbers close lines once, and draws one line per step", () => {
    expect(markLines(at(10, 10, 12, 50), 4, 5)).toEqual([
      { x: 9.5, label: "1–3" },
      { x: 11.5, label: "" },
      { x: 49.5, label: "4" },
    ]);
  });

  it("counts marks that are no longer sent", () => {
    expect(markLines(at(900), 61, 5)[0]?.label).toBe("61");
  });
});

const MARKS: Mark[] = [
  { step: 10, kind: "loss", label: "hinge v1" },
  { step: 20, kind: "setting", label: "beta v2" },
  { step: 30, kind: "loss", label: "no version" },
  { step: 40, kind: "reward", label: "grade v2" },
];

describe("lossChangeSteps", () => {
  it("follows the kind of a mark, whatever its label says", () => {
    expect(lossChangeSteps({ state: { ...STATE, marks: MARKS } })).toEqual([10, 30]);
    expect(lossChangeSteps({ state: null })).toEqual([]);
  });
});

describe("markLayout", () => {
  it("has a line before each step on the axis, and the number above it", () => {
    const state = { ...STATE, marks: MARKS, marks_total: 4 };
    const { shapes, annotations } = markLayout({ state }, [15, 100], THEME);
    expect(shapes).toMatchObject([{ x0: 19.5 }, { x0: 29.5 }, { x0: 39.5 }]);
    expect(annotations).toMatchObject([
      { x: 19.5, text: "2" },
      { x: 29.5, text: "3" },
      { x: 39.5, text: "4" },
    ]);
  });
});

describe("MarkList", () => {
  it("numbers the latest nine changes, with kind and step", () => {
    const list = new MarkList();
    const marks = Array.from({ length: 12 }, (_, i): Mark => ({ step: i, kind: "setting", label: `<b>${i}</b>` }));
    list.draw([...marks, ...MARKS.slice(0, 1)], 20);
    const items = [...list.element.children] as HTMLElement[];
    expect(items).toHaveLength(9);
    expect(items[0]?.textContent).toBe("12<b>4</b>from step 4");
    expect(items.at(-1)?.textContent).toBe("20hinge v1from step 10");
    expect(items.at(-1)?.dataset.kind).toBe("loss");
    expect(list.element.dataset.marks).toBe("20");
  });
});
