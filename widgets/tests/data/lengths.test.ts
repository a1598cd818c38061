// @vitest-environment jsdom
import { describe, expect, it } from "vitest";
import { lengthsChart, limitPlace } from "../../src/data/lengths";

const ENTRY = { name: "tokens", start: 5, width: 5, counts: [1, 0, 4, 2, 0], longest: 24, limit: null };

describe("lengthsChart", () => {
  it("has a bar for each bin with a height in proportion, and its numbers in words", () => {
    const chart = lengthsChart(ENTRY);
    const bars = [...chart.querySelectorAll<HTMLElement>(".ml-lengths-bar")];
    expect(bars.map(({ style }) => style.height)).toEqual(["25%", "0%", "100%", "50%", "0%"]);
    expect(bars.map(({ title }) => title).slice(0, 3)).toEqual([
      "5 to 9 tokens: 1",
      "10 to 14 tokens: 0",
      "15 to 19 tokens: 4",
    ]);
    expect(chart.querySelector("[role=img]")?.getAttribute("aria-label")).toBe(
      "tokens: 5 to 24 tokens, most often from 15",
    );
    expect(chart.textContent).toBe("tokens524 tokens");
    expect(lengthsChart({ ...ENTRY, width: 1 }).querySelector<HTMLElement>(".ml-lengths-bar")?.title).toBe(
      "5 tokens: 1",
    );
  });

  it("keeps a single sequence visible beside many", () => {
    const [small] = lengthsChart({ ...ENTRY, counts: [1, 9000] }).querySelectorAll<HTMLElement>(".ml-lengths-bar");
    expect(small?.style.height).toBe("1.5%");
  });

  it.each([
    [14, 0.4],
    [29, 1],
    [4, 0],
    [30, null],
    [3, null],
    [null, null],
  ])("puts the limit %j at %j", (limit, place) => {
    const entry = { ...ENTRY, limit };
    expect(limitPlace(entry)).toBe(place);
    const mark = lengthsChart(entry).querySelector<HTMLElement>(".ml-lengths-limit");
    expect(mark?.style.left).toBe(place === null ? undefined : `${100 * place}%`);
    expect(lengthsChart(entry).querySelector("[role=img]")?.getAttribute("aria-label")).toContain(
      limit === null ? "from 15" : `limit ${limit}`,
    );
  });
});
