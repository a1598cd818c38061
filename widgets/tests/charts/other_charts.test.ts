import { describe, expect, it } from "vitest";
import { otherChart, otherMetrics } from "../../src/charts/other_charts";

describe("otherMetrics", () => {
  it("are those that no chart shows, training and held-out column as one", () => {
    const columns = ["loss", "zeta", "held_out/zeta", "held_out/odd", "reward_std", "<img>"];
    expect(otherMetrics(columns, new Set(["loss", "held_out/loss", "reward_std"]))).toEqual(["<img>", "odd", "zeta"]);
  });

  it("are at most eighteen", () => {
    const columns = Array.from({ length: 100 }, (_, i) => `metric ${i}`);
    expect(otherMetrics(columns, new Set())).toHaveLength(18);
  });
});

describe("otherChart", () => {
  it("has definition and unit if the kernel knows the metric", () => {
    const known = otherChart("ess", { definition: "1 / mean(w²)", unit: "share" });
    expect(known).toMatchObject({ name: "ess", title: "ess", definition: "1 / mean(w²)", unit: "share" });
    expect(known.lines.map(({ series }) => series)).toEqual(["ess", "held_out/ess"]);
    expect(otherChart("own", undefined)).toMatchObject({ definition: "", unit: "" });
  });
});
