import { describe, expect, it } from "vitest";
import type { TokenColumn, TokenRow, Tokens } from "../src/protocol";
import { colourAt, contrast, gradient, inkOn, place } from "../src/tokens/colour";
import { itemsOf, part, Table } from "../src/tokens/table";
import { exact, shortened, spelled, tick, visible } from "../src/tokens/text";
import twin from "./colour_twin.json";

function column(scale: TokenColumn["scale"], low: number, high: number, name = "x"): TokenColumn {
  return { name, unit: "", note: "", scale, low, high };
}

describe("colours", () => {
  it.each(["diverging", "ratio", "sequential"] as const)("leaves text on %s readable, light and dark", (scale) => {
    for (const dark of [false, true]) {
      for (let share = scale === "sequential" ? 0 : -1; share <= 1.0001; share += 0.01) {
        const ground = colourAt(Math.min(share, 1), scale, dark);
        expect(contrast(inkOn(ground, dark), ground)).toBeGreaterThanOrEqual(4.5);
      }
    }
  });

  it("are those of the picture for readers without a kernel", () => {
    for (const { scale, low, high, value, colour } of twin as {
      scale: TokenColumn["scale"];
      low: number;
      high: number;
      value: number;
      colour: number[];
    }[]) {
      const share = place(value, column(scale, low, high)) as number;
      expect(colourAt(share, scale, false)).toEqual(colour);
    }
  });

  it("are symmetrical round 0, round 1 for a ratio, and end where the scale ends", () => {
    expect(place(-1, column("diverging", -2, 2))).toBe(-0.5);
    expect(place(99, column("diverging", -2, 2))).toBe(1);
    expect(place(0.5, column("ratio", 0.25, 4))).toBeCloseTo(-0.5);
    expect(place(2, column("ratio", 0.25, 4))).toBeCloseTo(0.5);
    expect(place(0, column("ratio", 0.25, 4))).toBe(-1);
    expect(place(-2, column("sequential", -8, 0))).toBe(0.25);
    expect(place(0.25, column("sequential", 0, 1))).toBe(0.25);
    expect(place(Number.NaN, column("sequential", 0, 1))).toBeNull();
  });

  it("never divides by nothing", () => {
    expect(place(0, column("sequential", 0, 0))).toBe(0);
    expect(place(3, column("diverging", 0, 0))).toBe(1);
  });

  it("fills the bar from its low end to its high one", () => {
    const ends = gradient(column("sequential", -8, 0), false).match(/rgb\([^)]+\)/g) as string[];
    expect(ends.at(-1)).toBe("rgb(255,255,255)");
    expect(ends[0]).not.toBe(ends.at(-1));
  });
});

describe("text", () => {
  it.each([
    [" cat", " cat"],
    ["   ", "␣␣␣"],
    ["a\n\tb", "a↵⇥b"],
    ["", "⟨empty⟩"],
    ["\u202egnp.exe", "⟨U+202E⟩gnp.exe"],
    ["\u2066a\u2069", "⟨U+2066⟩a⟨U+2069⟩"],
    ["\0\u001b", "⟨U+0000⟩⟨U+001B⟩"],
    ["a\u200bb", "a⟨U+200B⟩b"],
    ["\u200d", "⟨U+200D⟩"],
    ["👩\u200d👧", "👩\u200d👧"],
    ["\u0301", "◌\u0301"],
    ["\ud800", "⟨U+D800⟩"],
    ["\u00a0x", "⟨U+00A0⟩x"],
    ["<img src=x onerror=1>", "<img src=x onerror=1>"],
    ["שלום", "שלום"],
  ])("shows what cannot be seen in %j", (text, shown) => {
    expect(visible(text)).toBe(shown);
  });

  it("cuts what is long, and no character in two", () => {
    expect(shortened("w".repeat(10_000))).toBe(`${"w".repeat(32)}…`);
    expect(shortened("x".repeat(32))).toBe("x".repeat(32));
    expect(shortened("🙂".repeat(20))).toBe("🙂".repeat(20));
    expect(shortened("🙂".repeat(40))).toBe(`${"🙂".repeat(32)}…`);
  });

  it("spells spaces out and writes numbers as people do", () => {
    expect(spelled(" a b")).toBe("␣a␣b");
    expect([0, -0.03928, 1.56e-5, 123456, Number.NaN].map(exact)).toEqual([
      "0",
      "−0.03928",
      "1.560e−5",
      "1.235e5",
      "–",
    ]);
    expect([-0.2, 9.7e9, 1e-10, 0].map(tick)).toEqual(["−0.2", "9.7e9", "1e−10", "0"]);
  });
});

describe("lines", () => {
  const row = (item: number, role: TokenRow["role"], start: number, length: number, shared: number): TokenRow => ({
    ...{ item, title: `pair ${item + 1}`, role, start, length, shared },
  });

  it("show the prompt of a pair once, and both sides after it", () => {
    const [item] = itemsOf([row(0, "chosen", 0, 5, 2), row(0, "rejected", 5, 4, 2)]);
    expect(item?.lines).toEqual([
      { label: "prompt", role: "prompt", start: 0, end: 2 },
      { label: "chosen", role: "chosen", start: 2, end: 5 },
      { label: "rejected", role: "rejected", start: 7, end: 9 },
    ]);
  });

  it("of one side that is all prompt has no line", () => {
    const [item] = itemsOf([row(0, "chosen", 0, 2, 2), row(0, "rejected", 2, 3, 2)]);
    expect(item?.lines.map((line) => line.label)).toEqual(["prompt", "rejected"]);
  });

  it("that are long show the end of a prompt and the beginning of a completion", () => {
    expect(part({ label: "", role: "prompt", start: 10, end: 30 }, 5)).toEqual({ start: 25, end: 30 });
    expect(part({ label: "", role: "chosen", start: 10, end: 30 }, 5)).toEqual({ start: 10, end: 15 });
    expect(part({ label: "", role: "", start: 10, end: 12 }, 5)).toMatchObject({ start: 10, end: 12 });
  });
});

describe("table", () => {
  const view = (array: Float32Array | Int32Array) => new DataView(array.buffer);
  const tokens = (ids: number[], weights: number[], values: number[]): Tokens => ({
    ...{ step: 3, about: "", by: "gradient", texts: ["a", "b"] },
    rows: [{ item: 0, title: "", role: "", start: 0, length: ids.length, shared: 1 }],
    columns: [column("diverging", -1, 1, "gradient"), column("sequential", 0, 1, "weight")],
    ids: view(Int32Array.from(ids)),
    pieces: view(Int32Array.from(ids.map((id) => id % 2))),
    values: view(Float32Array.from([...values, ...weights])),
  });

  it("reads numbers by column and place", () => {
    const table = new Table(tokens([4, 5, 4], [Number.NaN, 0, 1], [Number.NaN, 0, -0.5]));
    expect([table.text(1), table.id(1), table.value(0, 2), table.value(1, 1)]).toEqual(["b", 5, -0.5, 0]);
    expect([0, 1, 2].map((at) => table.counts(at))).toEqual([false, false, true]);
    expect([table.column("weight"), table.column("gone")]).toEqual([1, 0]);
  });

  it("knows the same tokens with other numbers", () => {
    const table = new Table(tokens([4, 5], [0, 1], [0, 1]));
    expect(table.sameText(new Table(tokens([4, 5], [0, 1], [0, 9])))).toBe(true);
    expect(table.sameText(new Table(tokens([4, 4], [0, 1], [0, 1])))).toBe(false);
  });
});
