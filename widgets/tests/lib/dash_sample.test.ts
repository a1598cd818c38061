// @vitest-environment jsdom
import { describe, expect, it } from "vitest";
import { dashSample } from "../../src/lib/dash_sample";
import { BRANCH_DASHES, DASHES } from "../../src/lib/palette";

describe("dashSample", () => {
  it("draws every line style differently, in its colour", () => {
    const arrays = DASHES.map((dash) =>
      dashSample("red", dash).querySelector("line")?.getAttribute("stroke-dasharray"),
    );
    expect(new Set(arrays).size).toBe(DASHES.length);
    expect(BRANCH_DASHES.every((dash) => (DASHES as readonly string[]).includes(dash))).toBe(true);
    const line = dashSample("red", "solid", 1.6).querySelector("line");
    expect(["stroke", "stroke-width", "stroke-dasharray"].map((name) => line?.getAttribute(name))).toEqual([
      ...["red", "1.6", null],
    ]);
  });
});
