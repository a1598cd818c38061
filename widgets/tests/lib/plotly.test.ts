import { describe, expect, it, vi } from "vitest";

const register = vi.hoisted(() => vi.fn());
vi.mock("plotly.js/lib/core", () => ({ default: { register } }));
vi.mock("plotly.js/lib/bar", () => ({ default: "bars" }));
vi.mock("plotly.js/lib/heatmap", () => ({ default: "heat maps" }));

describe("plotly", () => {
  it("has bars and heat maps besides the lines of its core", async () => {
    const { default: plotly } = await import("../../src/lib/plotly");
    expect(plotly).toMatchObject({ register });
    expect(register.mock.calls).toEqual([[["bars", "heat maps"]]]);
  });
});
