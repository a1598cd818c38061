import { describe, expect, it } from "vitest";
import type { TokenColumn, TokenRow, Tokens } from "../../src/messages";
import { itemsOf, TokenTable, visiblePart } from "../../src/tokens/token_table";

function column(scale: TokenColumn["scale"], low: number, high: number, name = "x"): TokenColumn {
  return { name, unit: "", note: "", scale, low, high };
}

describe("lines", () => {
  const row = (item: number, role: TokenRow["role"], start: number, length: number, shared: number): TokenRow => ({
    ...{ item, title: `pair ${item + 1}`, role, start, length, shared },
  });

  it("show the prompt of a pair once, then both completions", () => {
    const [item] = itemsOf([row(0, "chosen", 0, 5, 2), row(0, "rejected", 5, 4, 2)]);
    expect(item?.lines).toEqual([
      { label: "prompt", role: "prompt", start: 0, end: 2 },
      { label: "chosen", role: "chosen", start: 2, end: 5 },
      { label: "rejected", role: "rejected", start: 7, end: 9 },
    ]);
  });

  it("leave out a completion without tokens", () => {
    const [item] = itemsOf([row(0, "chosen", 0, 2, 2), row(0, "rejected", 2, 3, 2)]);
    expect(item?.lines.map((line) => line.label)).toEqual(["prompt", "rejected"]);
  });

  it("show the end of a long prompt and the start of a long completion", () => {
    expect(visiblePart({ label: "", role: "prompt", start: 10, end: 30 }, 5)).toEqual({ start: 25, end: 30 });
    expect(visiblePart({ label: "", role: "chosen", start: 10, end: 30 }, 5)).toEqual({ start: 10, end: 15 });
    expect(visiblePart({ label: "", role: "", start: 10, end: 12 }, 5)).toMatchObject({ start: 10, end: 12 });
  });
});

describe("TokenTable", () => {
  const view = (array: Float32Array | Int32Array) => new DataView(array.buffer);
  const tokens = (ids: number[], weights: number[], values: number[]): Tokens => ({
    ...{ step: 3, about: "", by: "gradient", texts: ["a", "b"] },
    rows: [{ item: 0, title: "", role: "", start: 0, length: ids.length, shared: 1 }],
    columns: [column("diverging", -1, 1, "gradient"), column("sequential", 0, 1, "weight")],
    ids: view(Int32Array.from(ids)),
    pieces: view(Int32Array.from(ids.map((id) => id % 2))),
    values: view(Float32Array.from([...values, ...weights])),
  });

  it("reads numbers by column and index", () => {
    const table = new TokenTable(tokens([4, 5, 4], [Number.NaN, 0, 1], [Number.NaN, 0, -0.5]));
    expect([table.text(1), table.id(1), table.value(0, 2), table.value(1, 1)]).toEqual(["b", 5, -0.5, 0]);
    expect([0, 1, 2].map((at) => table.isCounted(at))).toEqual([false, false, true]);
    expect([table.columnIndex("weight"), table.columnIndex("gone")]).toEqual([1, 0]);
  });

  it("recognizes the same tokens with other numbers", () => {
    const table = new TokenTable(tokens([4, 5], [0, 1], [0, 1]));
    expect(table.hasSameText(new TokenTable(tokens([4, 5], [0, 1], [0, 9])))).toBe(true);
    expect(table.hasSameText(new TokenTable(tokens([4, 4], [0, 1], [0, 1])))).toBe(false);
  });
});
