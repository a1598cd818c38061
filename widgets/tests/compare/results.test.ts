// @vitest-environment jsdom
import { describe, expect, it } from "vitest";
import { ResultsTable, sharedMetrics } from "../../src/compare/results";
import { metricChart, snapshotOf, storeOf, THEME } from "../support";

const LOSS = metricChart("loss", { overlay: { difference: [], unit: "each in its own unit", last: true } });
const CHARTS = [[LOSS, metricChart("pair_accuracy"), metricChart("mean_margin")]];

describe("sharedMetrics", () => {
  it("are those that all runs have, in the order of the charts, then by name, then those that do not compare", () => {
    const finals = [
      { loss: 1, zeta: 1, mean_margin: 1, pair_accuracy: 1, own: 1 },
      { pair_accuracy: 1, zeta: 2, mean_margin: 2, loss: 2 },
    ];
    expect(sharedMetrics(finals, CHARTS)).toEqual(["pair_accuracy", "mean_margin", "zeta", "loss"]);
    expect(sharedMetrics(finals, [])).toEqual(["loss", "mean_margin", "pair_accuracy", "zeta"]);
    expect(sharedMetrics([], CHARTS)).toEqual([]);
  });
});

describe("ResultsTable", () => {
  const run = (label: string, step: number) => ({
    label,
    store: storeOf(snapshotOf({}, {}, { charts: CHARTS[0] as (typeof CHARTS)[0] })),
    result: { step, before: { pair_accuracy: 0.5 }, final: { pair_accuracy: 0.75 } },
  });
  const texts = (table: ResultsTable) =>
    [...table.element.querySelectorAll("tbody td")].map((cell) => cell.textContent);

  it("shows the value before training and at the last evaluation", () => {
    const table = new ResultsTable(() => THEME);
    table.draw([run("<b>a</b>", 20), run("b", 0)]);
    expect(texts(table)).toEqual(["20", "0.500 → 0.750", "0", "0.500 → –"]);
    expect(table.element.querySelector("tbody th")?.textContent).toBe("<b>a</b>");
  });

  it("is hidden without metrics", () => {
    const table = new ResultsTable(() => THEME);
    table.draw([{ ...run("a", 0), result: null }]);
    expect(table.element.hidden).toBe(true);
  });
});
