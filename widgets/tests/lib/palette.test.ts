import { describe, expect, it } from "vitest";
import { BASE, DASHES, ROLES, RUNS, TOKENS } from "../../src/lib/palette";

const hex = (colour: string) => [1, 3, 5].map((at) => Number.parseInt(colour.slice(at, at + 2), 16));
const distance = (one: readonly number[], other: readonly number[]) =>
  Math.hypot(...one.map((value, i) => value - (other[i] as number)));

describe("the palette", () => {
  it.each(["light", "dark"] as const)("has clearly different colours on a %s page", (mode) => {
    for (const colours of [Object.values(ROLES[mode]), RUNS[mode]]) {
      colours.forEach((colour, i) => {
        for (const other of colours.slice(i + 1)) expect(distance(hex(colour), hex(other))).toBeGreaterThan(40);
      });
    }
  });

  it.each(["light", "dark"] as const)(
    "has the colours of the roles first in those of the runs on a %s page",
    (mode) => {
      const { train, rejected, chosen } = ROLES[mode];
      expect(RUNS[mode].slice(0, 3)).toEqual([train, rejected, chosen]);
      expect(BASE[mode].accent).toBe(train);
    },
  );

  it("has blue below and orange above", () => {
    for (const { below, above, ground } of [TOKENS.light, TOKENS.dark]) {
      expect([below[2] > below[0], above[0] > above[2]]).toEqual([true, true]);
      expect(distance(below, ground)).toBeGreaterThan(100);
    }
    expect([hex(BASE.light.surface), TOKENS.light.ground]).toEqual([
      [255, 255, 255],
      [255, 255, 255],
    ]);
    expect(DASHES[0]).toBe("solid");
  });
});
