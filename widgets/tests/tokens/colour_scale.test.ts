// @vitest-environment jsdom
import { describe, expect, it, vi } from "vitest";
import type { TokenColumn } from "../../src/messages";
import { gradient } from "../../src/tokens/colour";
import { ColourScale } from "../../src/tokens/colour_scale";

const COLUMN: TokenColumn = { name: "x", unit: "nats", note: "blue <b>", scale: "diverging", low: -0.25, high: 0.25 };

function texts(change: Partial<TokenColumn> = {}, dark = false) {
  const scale = new ColourScale();
  scale.draw({ ...COLUMN, ...change }, dark);
  const numbers = [...scale.element.querySelectorAll(".ml-scale-ends span")].map(({ textContent }) => textContent);
  return { numbers, note: scale.element.querySelector(".ml-scale-note")?.textContent };
}

describe("ColourScale", () => {
  it("has the low end, the middle and the high end, in this order", () => {
    expect(texts().numbers).toEqual(["−0.25", "0", "0.25"]);
    expect(texts({ scale: "sequential", low: -8, high: 0 }).numbers).toEqual(["−8", "−4", "0"]);
    expect(texts({ scale: "sequential", low: 1, high: 2 }).numbers).toEqual(["1", "1.5", "2"]);
    expect(texts({ scale: "ratio", low: 0.25, high: 4 }).numbers).toEqual(["0.25", "1", "4"]);
  });

  it("has the unit and what the sign means, as text", () => {
    expect(texts().note).toBe("nats · blue <b>");
    expect([texts({ unit: "" }).note, texts({ note: "" }).note, texts({ unit: "", note: "" }).note]).toEqual([
      ...["blue <b>", "nats", ""],
    ]);
  });

  it.each([false, true])("has the colours of the scale (dark: %s)", (dark) => {
    const backgrounds: string[] = [];
    // jsdom ignores a gradient.
    vi.spyOn(CSSStyleDeclaration.prototype, "background", "set").mockImplementation((css) => backgrounds.push(css));
    texts({}, dark);
    expect(backgrounds).toEqual([gradient(COLUMN, dark)]);
    vi.restoreAllMocks();
  });
});
