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

  it("has no text, id or number beyond its tokens", () => {
    const table = new TokenTable(tokens([4], [1], [2]));
    expect([table.size, table.text(1), table.id(1), table.value(1, 1)]).toEqual([1, "", -1, Number.NaN]);
    const odd = new TokenTable({ ...tokens([4], [1], [2]), pieces: view(Int32Array.from([7])) });
    expect(odd.text(0)).toBe("");
  });

  it("reads unaligned little-endian numbers", () => {
    const bytes = new Uint8Array([9, 1, 2, 0, 0, 0, 0, 192, 63]);
    const table = new TokenTable({
      ...tokens([4], [1], [2]),
      ids: new DataView(bytes.buffer, 1, 4),
      values: new DataView(bytes.buffer, 5, 4),
    });
    expect([table.id(0), table.value(0, 0)]).toEqual([513, 1.5]);
  });

  it("counts every token if weights are unknown, and none without a number or with weight 0", () => {
    const columns = [column("diverging", -1, 1, "gradient")];
    expect(new TokenTable({ ...tokens([4], [], [0]), columns }).isCounted(0)).toBe(true);
    const table = new TokenTable(tokens([4, 5, 6, 7], [Number.NaN, 0, -1, 0.5], [1, 1, 1, 1]));
    expect([0, 1, 2, 3].map((i) => table.isCounted(i))).toEqual([false, false, true, true]);
  });

  it("knows clipped tokens only from a column", () => {
    expect(new TokenTable(tokens([4], [1], [1])).isClipped(0)).toBe(false);
    const columns = [column("sequential", 0, 1, "clipped"), column("diverging", -1, 1, "gradient")];
    const table = new TokenTable({ ...tokens([4, 5, 6], [1, 1, 1], [0, 1, Number.NaN]), columns });
    expect([0, 1, 2].map((i) => table.isClipped(i))).toEqual([false, true, false]);
    expect(table.columnIndex("gradient")).toBe(1);
  });

  it("compares texts only where ids were not stored, and the rows", () => {
    const base = tokens([4, -1], [1, 1], [1, 1]);
    const same = (change: Partial<Tokens>) => new TokenTable(base).hasSameText(new TokenTable({ ...base, ...change }));
    expect(same({})).toBe(true);
    expect(same({ texts: ["z", "b"] })).toBe(true); // the first token has an id
    expect(same({ pieces: view(Int32Array.from([0, 0])) })).toBe(false);
    expect(same({ ids: view(Int32Array.from([4])) })).toBe(false);
    expect(same({ rows: [{ ...(base.rows[0] as TokenRow), shared: 0 }] })).toBe(false);
  });
});

describe("the items of rows", () => {
  const row = (item: number, change: Partial<TokenRow> = {}): TokenRow => ({
    ...{ item, title: `pair ${item}`, role: "", start: 0, length: 2, shared: 0, ...change },
  });

  it("are in the order of their first rows, also if rows alternate", () => {
    const items = itemsOf([row(7), row(3, { start: 2 }), row(7, { start: 4, title: "ignored" })]);
    expect(items.map(({ title, lines }) => [title, lines.map(({ start }) => start)])).toEqual([
      ["pair 7", [0, 4]],
      ["pair 3", [2]],
    ]);
    expect(itemsOf([])).toEqual([]);
  });

  it("call a line with a prompt and without a role a completion", () => {
    const labels = (change: Partial<TokenRow>) => itemsOf([row(0, change)])[0]?.lines.map(({ label }) => label);
    expect(labels({ shared: 1 })).toEqual(["prompt", "completion"]);
    expect(labels({ shared: 0 })).toEqual([""]);
    expect(labels({ shared: 1, role: "chosen" })).toEqual(["prompt", "chosen"]);
  });

  it("are whole if they have exactly as many tokens as are drawn", () => {
    const line = { label: "", role: "" as const, start: 10, end: 15 };
    expect(visiblePart(line, 5)).toBe(line);
    expect(visiblePart(line, 4)).toEqual({ start: 10, end: 14 });
  });
});
