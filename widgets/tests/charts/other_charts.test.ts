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

describe("the chart of a metric without one", () => {
  it("is exact", () => {
    expect(otherChart("ess", { definition: "1 / mean(w²)", unit: "share" })).toEqual({
      ...{ name: "ess", title: "ess", definition: "1 / mean(w²)", unit: "share", kind: "lines", axis: "", counts: "" },
      ...{ bounds: null, overlay: null },
      lines: [
        { series: "ess", label: "training", role: "train", spread: "" },
        { series: "held_out/ess", label: "held-out", role: "held_out", spread: "" },
      ],
    });
  });

  it("is for a prefix at the start of a name only", () => {
    expect(otherMetrics(["a/held_out/b", "held_out/c"], new Set(["c"]))).toEqual(["a/held_out/b"]);
    expect(otherMetrics(["held_out/c"], new Set(["held_out/c"]))).toEqual([]);
  });
});
