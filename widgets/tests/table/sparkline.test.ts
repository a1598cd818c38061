// @vitest-environment jsdom
import { describe, expect, it } from "vitest";
import { sparkline, sparkPoints } from "../../src/table/sparkline";

describe("sparkPoints", () => {
  it("run from left to right, with the highest value at the top and a constant in the middle", () => {
    expect(sparkPoints([0, 1, 0.5], 100, 20, 0)).toEqual([
      [0, 20],
      [50, 0],
      [100, 10],
    ]);
    expect(sparkPoints([3, 3], 100, 20, 0)).toEqual([
      [0, 10],
      [100, 10],
    ]);
    expect(sparkPoints([5], 100, 20, 0)).toEqual([[50, 10]]);
    expect(sparkPoints([Number.NaN])).toEqual([]);
  });
});

describe("sparkline", () => {
  const attributes = (element: Element | null | undefined) =>
    Object.fromEntries([...(element?.attributes ?? [])].map(({ name, value }) => [name, value]));

  it("is a line through all points, with a dot at the last", () => {
    const svg = sparkline([0, Number.NaN, 1]);
    expect(attributes(svg)).toEqual({
      viewBox: "0 0 84 24",
      width: "84",
      height: "24",
      role: "img",
      class: "ml-spark",
    });
    expect([...svg.children].map(({ localName }) => localName)).toEqual(["polyline", "circle"]);
    // A box of 84 by 24 with a margin of 2.5 on each side.
    expect(attributes(svg.children[0])).toEqual({
      ...{ points: "2.5,21.5 81.5,2.5", fill: "none", stroke: "currentColor", "stroke-width": "1.4" },
    });
    expect(attributes(svg.children[1])).toEqual({ cx: "81.5", cy: "2.5", r: "2", fill: "currentColor" });
  });

  it("has no dot without a point", () => {
    expect([...sparkline([]).children].map(({ localName }) => localName)).toEqual(["polyline"]);
  });
});
