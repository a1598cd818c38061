// @vitest-environment jsdom
import { describe, expect, it } from "vitest";
import { lineSample, runStyle } from "../../src/overlay/run_style";

describe("runStyle", () => {
  it.each([false, true])("differs by colour and by line for six runs (dark: %s)", (dark) => {
    const styles = [0, 1, 2, 3, 4, 5].map((index) => runStyle(index, dark));
    expect(new Set(styles.map((style) => style.colour)).size).toBe(6);
    expect(new Set(styles.map((style) => style.dash)).size).toBe(6);
    expect(runStyle(6, dark)).toEqual(runStyle(0, dark));
  });

  it("is the style of the line in the legend", () => {
    const stroke = (index: number) => lineSample(index, false).querySelector("line");
    expect(stroke(0)?.getAttribute("stroke-dasharray")).toBeNull();
    expect(stroke(1)?.getAttribute("stroke-dasharray")).toBe("6 4");
    expect(stroke(1)?.getAttribute("stroke")).toBe(runStyle(1, false).colour);
  });
});

describe("the palette of runs", () => {
  it("is used in its order", () => {
    expect([0, 1, 2, 5, 6, 7].map((index) => runStyle(index, false))).toEqual([
      { colour: "#0072b2", dash: "solid" },
      { colour: "#d55e00", dash: "dash" },
      { colour: "#009e73", dash: "dot" },
      { colour: "#56b4e9", dash: "longdashdot" },
      { colour: "#0072b2", dash: "solid" },
      { colour: "#d55e00", dash: "dash" },
    ]);
    expect(runStyle(0, true).colour).toBe("#56b4e9");
  });

  it("is drawn as a short line", () => {
    const attributes = (element: Element | null) =>
      Object.fromEntries([...(element?.attributes ?? [])].map(({ name, value }) => [name, value]));
    const sample = lineSample(3, false);
    expect(attributes(sample)).toEqual({
      ...{ viewBox: "0 0 30 10", width: "30", height: "10", "aria-hidden": "true", class: "ml-sample" },
    });
    expect(attributes(sample.firstElementChild)).toEqual({
      ...{ x1: "1", x2: "29", y1: "5", y2: "5", stroke: "#cc79a7", "stroke-width": "2.4" },
      "stroke-dasharray": "7 3 2 3",
    });
    const dashes = [1, 2, 4, 5].map((index) =>
      lineSample(index, false).firstElementChild?.getAttribute("stroke-dasharray"),
    );
    expect(dashes).toEqual(["6 4", "2 3", "11 4", "11 3 2 3"]);
  });
});
