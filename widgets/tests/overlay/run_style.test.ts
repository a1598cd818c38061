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
