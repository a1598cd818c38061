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

describe("MarkList in detail", () => {
  const marks = (count: number, label = "x") =>
    Array.from({ length: count }, (_, i): Mark => ({ step: 10 * i, kind: "loss", label }));

  it("has number, label and step of each change, and the number of all", () => {
    const list = new MarkList();
    list.draw([{ step: 1234, kind: "reward", label: "grade v2" }], 1);
    const [item] = [...list.element.children] as HTMLElement[];
    expect([...(item?.children ?? [])].map((part) => [part.localName, part.className, part.textContent])).toEqual([
      ["b", "", "1"],
      ["span", "ml-mark-label", "grade v2"],
      ["span", "ml-quiet", "from step 1234"],
    ]);
    expect([item?.dataset.kind, list.element.dataset.marks]).toEqual(["reward", "1"]);
    expect([list.element.localName, list.element.getAttribute("aria-label")]).toEqual(["ol", "Changes during the run"]);
  });

  it("counts the changes that were not sent", () => {
    const list = new MarkList();
    list.draw(marks(3), 50);
    const numbers = () => [...list.element.querySelectorAll("b")].map(({ textContent }) => textContent);
    expect(numbers()).toEqual(["48", "49", "50"]);
    list.draw(marks(3), 51);
    expect(numbers()).toEqual(["49", "50", "51"]);
    list.draw(marks(9), 9);
    expect(numbers()).toEqual(["1", "2", "3", "4", "5", "6", "7", "8", "9"]);
  });

  it("redraws only a change of what it shows", () => {
    const list = new MarkList();
    list.draw(marks(2), 2);
    const { firstChild } = list.element;
    list.draw(marks(2), 2);
    expect(list.element.firstChild).toBe(firstChild);
    list.draw(marks(2, "y"), 2);
    expect(list.element.firstChild).not.toBe(firstChild);
    list.draw([], 0);
    expect([list.element.children.length, list.element.dataset.marks]).toEqual([0, "0"]);
  });
});

describe("markLayout in detail", () => {
  const state = (...steps: number[]) => ({
    ...STATE,
    ...{ marks: steps.map((step): Mark => ({ step, kind: "loss", label: "x" })), marks_total: steps.length },
  });

  it("is exact", () => {
    expect(markLayout({ state: state(20) }, [0, 100], THEME)).toEqual({
      shapes: [
        {
          ...{ type: "line", xref: "x", yref: "paper", x0: 19.5, x1: 19.5, y0: 0, y1: 1, layer: "below" },
          line: { color: THEME.muted, width: 1, dash: "dot" },
        },
      ],
      annotations: [
        {
          ...{ x: 19.5, y: 1, xref: "x", yref: "paper", xanchor: "center", yanchor: "bottom", showarrow: false },
          ...{ text: "1", font: { size: 10, color: THEME.muted }, borderpad: 0 },
        },
      ],
    });
    expect(markLayout({ state: null }, [0, 100], THEME)).toEqual({ shapes: [], annotations: [] });
  });

  it("has the lines at both ends of the axis, and none beyond", () => {
    const { shapes } = markLayout({ state: state(10, 11, 61, 62) }, [10.5, 60.5], THEME);
    expect(shapes).toMatchObject([{ x0: 10.5 }, { x0: 60.5 }]);
  });

  it("has one number for lines closer than 6 % of the axis", () => {
    const texts = (...steps: number[]) =>
      markLayout({ state: state(...steps) }, [100, 200], THEME).annotations.map(
        (one) => (one as { text: string }).text,
      );
    expect(texts(110, 116)).toEqual(["1–2"]);
    expect(texts(110, 117)).toEqual(["1", "2"]);
    expect(markLayout({ state: state(110, 116) }, [100, 200], THEME).shapes).toHaveLength(2);
  });

  it("offers the step before a change, if someone listens", () => {
    const places: { step: number; from: HTMLElement }[] = [];
    const list = new MarkList((place) => places.push(place));
    list.draw(MARKS, 4);
    const buttons = [...list.element.querySelectorAll("button")];
    buttons[1]?.click();
    expect(places.map(({ step, from }) => [step, from === buttons[1]])).toEqual([[19, true]]);
    const still = new MarkList();
    still.draw(MARKS, 4);
    expect(still.element.querySelector("button")).toBeNull();
  });
});
