// @vitest-environment jsdom
import { describe, expect, it } from "vitest";
import { ResultsTable, sharedMetrics } from "../../src/compare/results";
import { runStyle } from "../../src/overlay/run_style";
import type { Result } from "../../src/run_messages";
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

describe("ResultsTable in detail", () => {
  const run = (label: string, result: Result | null) => ({
    ...{ label, result, store: storeOf(snapshotOf({}, {}, { charts: CHARTS[0] as (typeof CHARTS)[0] })) },
  });
  const A = { step: 20, before: { pair_accuracy: 0.5, loss: 2 }, final: { loss: 1, pair_accuracy: 0.75 } };

  it("has a column for each shared metric and a row for each run, with its line", () => {
    const table = new ResultsTable(() => THEME);
    table.draw([run("<b>", A), run("b", { ...A, final: { loss: 3 } })]);
    const { element } = table;
    expect(element.hidden).toBe(false);
    expect([...element.querySelectorAll("thead th")].map(({ textContent }) => textContent)).toEqual([
      "run",
      "step",
      "loss",
    ]);
    const rows = [...element.querySelectorAll<HTMLElement>("tbody tr")];
    expect(rows.map(({ dataset, textContent }) => [dataset.run, textContent])).toEqual([
      ["<b>", "<b>202.000 → 1.000"],
      ["b", "b202.000 → 3.000"],
    ]);
    expect(rows.map((row) => row.querySelector("line")?.getAttribute("stroke"))).toEqual(
      [0, 1].map((index) => runStyle(index, false).colour),
    );
    expect(rows[0]?.querySelector<HTMLElement>("[data-metric]")?.dataset.metric).toBe("loss");
    expect(element.querySelector(".ml-unit")?.textContent).toBe("before training → at the last evaluation");
    expect([...element.querySelectorAll("th")].map((head) => head.getAttribute("scope"))).toEqual([
      ...["col", "col", "col", "row", "row"],
    ]);
  });

  it("uses the metrics before training until the first evaluation", () => {
    const table = new ResultsTable(() => THEME);
    const early = { step: 0, before: { nll: 2 }, final: { other: 1 } };
    table.draw([run("a", early)]);
    expect(table.element.querySelector("tbody")?.textContent).toBe("a02.000 → –");
    table.draw([run("a", { step: 1, before: {}, final: { nll: 1 } })]);
    expect(table.element.querySelector("tbody")?.textContent).toBe("a1– → 1.000");
  });

  it("is redrawn only if a result, a label or the theme changed", () => {
    const theme = { dark: false };
    const table = new ResultsTable(() => ({ ...THEME, ...theme }));
    const runs = [run("a", A)];
    const row = () => table.element.querySelector("tbody tr");
    table.draw(runs);
    const first = row();
    table.draw([run("a", { ...A })]);
    expect(row()).toBe(first);
    table.draw([run("a", { ...A, step: 21 })]);
    const second = row();
    expect(second).not.toBe(first);
    theme.dark = true;
    table.draw([run("a", { ...A, step: 21 })]);
    expect([row() === second, row()?.querySelector("line")?.getAttribute("stroke")]).toEqual([
      false,
      runStyle(0, true).colour,
    ]);
  });
});

describe("sharedMetrics in detail", () => {
  it("puts metrics with a chart before those without, by the order of the charts and not by name", () => {
    const charts = [[metricChart("z"), metricChart("b")]];
    expect(sharedMetrics([{ a: 1, b: 1, z: 1 }], charts)).toEqual(["z", "b", "a"]);
    expect(sharedMetrics([{ a: 1, loss: 1, A: 1 }], [[LOSS]])).toEqual(["A", "a", "loss"]);
    expect(sharedMetrics([{ a: 1 }, {}], charts)).toEqual([]);
  });
});
