import { describe, expect, it } from "vitest";
import { badge, latest, type Mark, type Marked, readMark } from "../src/marks";

const MARK: Mark = { kind: "loss", name: "mine", version: 3, state: "registered" };
const output = (mark: unknown) => ({ metadata: { mint_lab: mark } });

describe("readMark", () => {
  it("takes the last output that has one", () => {
    expect(readMark([])).toBeNull();
    expect(readMark([{}, { metadata: {} }, { metadata: null }])).toBeNull();
    expect(readMark([output(MARK), { metadata: { other: 1 } }])).toEqual(MARK);
    expect(readMark([output(MARK), output({ ...MARK, version: 4 })])?.version).toBe(4);
    const refused = { kind: "reward", name: "right", version: null, state: "refused" };
    expect(readMark([output(refused)])).toEqual(refused);
  });

  it.each([
    [null],
    ["mine"],
    [[]],
    [{ ...MARK, kind: "metric" }],
    [{ ...MARK, state: "<img>" }],
    [{ ...MARK, name: "" }],
    [{ ...MARK, name: { toString: "mine" } }],
    [{ ...MARK, version: "3" }],
    [{ ...MARK, version: 0 }],
    [{ ...MARK, version: Number.NaN }],
  ])("takes %j for no mark", (found) => {
    expect(readMark([output(found)])).toBeNull();
  });
});

describe("latest", () => {
  const cell = (turn: number, mark: Partial<Mark> | null): Marked => ({ turn, mark: mark && { ...MARK, ...mark } });

  it("is the cell that ran last, else the highest version", () => {
    const stored = [cell(0, { version: 2 }), cell(0, { version: 5 }), cell(0, { version: 4 })];
    expect(latest(stored, "mine")).toBe(stored[1]);
    const ran = cell(1, { version: 1 }); // in a new kernel, versions begin anew
    expect(latest([...stored, ran], "mine")).toBe(ran);
    expect(latest([ran, cell(2, { state: "refused" }), cell(3, { name: "other" }), cell(4, null)], "mine")).toBe(ran);
    expect(latest(stored, "other")).toBeNull();
  });
});

describe("badge", () => {
  it("says each state in words", () => {
    const text = (mark: Mark, failed = false) => {
      const { sign, name, word, state } = badge(mark, failed);
      return `${state}: ${sign} ${name} ${word}`;
    };
    expect(text(MARK)).toBe("registered: ✓ mine v3");
    expect(text(MARK, true)).toBe("failed: ! mine v3 failed");
    expect(text({ ...MARK, state: "refused" })).toBe("refused: ✕ mine refused");
    expect(badge({ ...MARK, state: "refused" }, false).title).toContain("v3 stays in use");
    expect(badge({ ...MARK, state: "refused", version: null }, true).title).toBe("This loss was refused");
  });

  it("cuts a name without an end", () => {
    expect(badge({ ...MARK, name: "x".repeat(5000) }, false).name).toHaveLength(81);
  });
});
