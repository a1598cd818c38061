import { describe, expect, it } from "vitest";
import { Series } from "../../src/history";
import type { Overlay } from "../../src/messages";
import {
  difference,
  heldOutCurve,
  type OverlayChart,
  otherCharts,
  overlayCharts,
  trainingCurve,
} from "../../src/overlay/curves";
import { chart, line, metricChart, snapshotOf, storeOf } from "../support";

const LAST: Overlay = { difference: [], unit: "each in its own unit", last: true };
const DIFFERENCE: Overlay = { difference: ["logps/chosen", "logps/rejected"], unit: "unscaled, nats", last: false };
const LOSS = metricChart("loss", { overlay: LAST });
const MARGIN = metricChart("mean_margin", { overlay: DIFFERENCE });
const LOGPS = chart("logps", [line("logps/chosen", "chosen"), line("logps/rejected", "rejected")]);

describe("overlayCharts", () => {
  it("splits charts of several curves, and puts charts that do not compare last", () => {
    const charts = overlayCharts([
      [LOSS, MARGIN, LOGPS],
      [metricChart("nll"), LOSS],
    ]);
    expect(charts.map(({ name }) => name)).toEqual(["mean_margin", "logps/chosen", "logps/rejected", "nll", "loss"]);
    expect(charts.at(-1)).toMatchObject({ unit: "each in its own unit", last: true });
    expect(charts.map(({ title }) => title)).toEqual(charts.map(({ name }) => name));
  });

  it("shows the difference that the kernel names, if charts have both series", () => {
    const [both] = overlayCharts([[MARGIN, LOGPS]]);
    expect(both).toMatchObject({ series: "logps/chosen", minus: "logps/rejected", unit: "unscaled, nats" });
    const [neither] = overlayCharts([[MARGIN]]);
    expect(neither).toMatchObject({ series: "mean_margin", minus: "", unit: "nats" });
  });

  it("depends on no name", () => {
    const own = metricChart("score", { overlay: { difference: ["a", "b"], unit: "points", last: true } });
    const charts = overlayCharts([[own, metricChart("a"), metricChart("b"), metricChart("loss")]]);
    expect(charts.map(({ name }) => name)).toEqual(["a", "b", "loss", "score"]);
    expect(charts.at(-1)).toMatchObject({ series: "a", minus: "b", unit: "points" });
  });

  it("keeps definitions, and leaves histograms out", () => {
    const charts = overlayCharts([[LOSS, chart("margin", [], { kind: "bars" })]]);
    expect(charts).toMatchObject([{ name: "loss", definition: "loss = 1" }]);
  });
});

describe("otherCharts", () => {
  it("shows metrics without a chart, with the definition of the first run that has one", () => {
    const metrics = { odd: { definition: "odd = 3", unit: "nats" } };
    const stores = [
      storeOf(snapshotOf({ loss: [1, 2] })),
      storeOf(snapshotOf({ "held_out/odd": [3] }, {}, { metrics })),
    ];
    const runs = stores.map((store, i) => ({ label: String(i), store, result: null }));
    expect(otherCharts(runs, overlayCharts([[LOSS]]))).toMatchObject([
      { name: "odd", definition: "odd = 3", unit: "nats" },
    ]);
  });
});

describe("curves", () => {
  const columns = {
    ...{ "logps/chosen": [-1, -2], "logps/rejected": [-3, -5] },
    ...{ "held_out/logps/chosen": [-1.5], "held_out/logps/rejected": [-4] },
  };
  const [margin] = overlayCharts([[MARGIN, LOGPS]]) as [OverlayChart];

  it("are differences where the chart says so, with the value before training", () => {
    const store = storeOf(snapshotOf(columns, { baseline: { "logps/chosen": -1, "logps/rejected": -2 } }));
    expect(trainingCurve(store, margin)?.mean).toEqual([2, 3]);
    expect(heldOutCurve(store, margin)).toEqual({ steps: [0, 1], values: [1, 2.5] });
  });

  it("are null if one series is missing", () => {
    const store = storeOf(snapshotOf({ "logps/chosen": [-1, -2] }, { baseline: { "logps/chosen": -1 } }));
    expect(trainingCurve(store, margin)).toBeNull();
    expect(heldOutCurve(store, margin)).toBeNull();
  });

  it("have no difference unless both have the same buckets", () => {
    const [one, other] = [new Series(4), new Series(4)];
    for (const step of [1, 2, 3, 4, 5]) one.add(step, step);
    expect(difference(one, other)).toBeNull();
    for (const step of [1, 2, 3, 4, 5]) other.add(step, 1);
    expect(one.width).toBe(2);
    expect(difference(one, other)?.mean).toEqual([0.5, 2.5, 4]);
  });
});

describe("overlayCharts in detail", () => {
  it("is exact", () => {
    expect(overlayCharts([[metricChart("nll", { title: "NLL", unit: "nats", bounds: [0, 4] })]])).toEqual([
      {
        ...{ name: "nll", title: "NLL", definition: "nll = 1", unit: "nats", bounds: [0, 4] },
        ...{ series: "nll", minus: "", last: false },
      },
    ]);
  });

  it("uses the first chart of a series, and no held-out curve", () => {
    const charts = overlayCharts([[metricChart("nll", { unit: "first" })], [metricChart("nll", { unit: "second" })]]);
    expect(charts.map(({ name, unit }) => [name, unit])).toEqual([["nll", "first"]]);
    expect(overlayCharts([[chart("x", [line("held_out/x", "held_out")])]])).toEqual([]);
  });

  it("needs charts for both series of a difference", () => {
    for (const name of ["logps/chosen", "logps/rejected"]) {
      const [margin] = overlayCharts([[MARGIN, chart("one", [line(name, "chosen")])]]);
      expect(margin).toMatchObject({ series: "mean_margin", minus: "", unit: "nats" });
    }
    const half = { difference: ["a"], unit: "other", last: false };
    expect(overlayCharts([[metricChart("x", { overlay: half })]])[0]).toMatchObject({ unit: "other", minus: "" });
  });
});

describe("otherCharts in detail", () => {
  it("is exact, and leaves out what other charts show or subtract", () => {
    const store = storeOf(
      snapshotOf({ odd: [1], "logps/chosen": [1], "logps/rejected": [1], mean_margin: [1], loss: [1] }),
    );
    const runs = [{ label: "a", store, result: null }];
    expect(otherCharts(runs, overlayCharts([[MARGIN, LOGPS]]))).toEqual([
      expect.objectContaining({ name: "loss" }),
      {
        ...{ name: "odd", title: "odd", definition: "", unit: "", bounds: null, series: "odd", minus: "", last: false },
      },
    ]);
    const [margin] = overlayCharts([[MARGIN, LOGPS]]) as [OverlayChart];
    expect(otherCharts(runs, [margin]).map(({ name }) => name)).toEqual(["loss", "odd"]);
  });
});

describe("curves in detail", () => {
  const [nll] = overlayCharts([[metricChart("nll")]]) as [OverlayChart];
  const [margin] = overlayCharts([[MARGIN, LOGPS]]) as [OverlayChart];

  it("are those of the run, without a value before training if there is none", () => {
    const store = storeOf(snapshotOf({ nll: [4, 2], "held_out/nll": [3] }));
    expect(trainingCurve(store, nll)).toBe(store.history.series.get("nll"));
    expect(heldOutCurve(store, nll)).toEqual({ steps: [1], values: [3] });
  });

  it("have the value before training alone, also if it is 0", () => {
    const store = storeOf(snapshotOf({}, { baseline: { nll: 0 } }));
    expect([trainingCurve(store, nll), heldOutCurve(store, nll)]).toEqual([null, { steps: [0], values: [0] }]);
    const difference = storeOf(snapshotOf({}, { baseline: { "logps/chosen": -1, "logps/rejected": -3 } }));
    expect(heldOutCurve(difference, margin)).toEqual({ steps: [0], values: [2] });
    store.state = null;
    expect(heldOutCurve(store, nll)).toBeNull();
  });

  it("of a difference keep steps, width and points", () => {
    const [one, other] = [new Series(4), new Series(4)];
    for (const step of [1, 2, 3, 4, 5]) {
      one.add(step, step);
      other.add(step, 2 * step);
    }
    const result = difference(one, other);
    expect(result).toMatchObject({ width: 2, points: 5, capacity: 4, steps: [2, 4, 5], mean: [-1.5, -3.5, -5] });
    expect([result?.low, result?.high]).toEqual([result?.mean, result?.mean]);
    other.width = 1;
    expect(difference(one, other)).toBeNull();
    other.width = 2;
    other.points = 6;
    expect(difference(one, other)).toBeNull();
    other.points = 5;
    other.steps = [2, 4];
    expect(difference(one, other)).toBeNull();
  });
});
