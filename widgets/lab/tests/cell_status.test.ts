import { describe, expect, it } from "vitest";
import { badgeOf, type CellStatus, type CellWithStatus, latestCell, readCellStatus } from "../src/cell_status";

const STATUS: CellStatus = { kind: "loss", name: "mine", version: 3, state: "registered" };
const output = (status: unknown) => ({ metadata: { mint_lab: status } });

describe("readCellStatus", () => {
  it("reads the last output that has one", () => {
    expect(readCellStatus([])).toBeNull();
    expect(readCellStatus([{}, { metadata: {} }, { metadata: null }])).toBeNull();
    expect(readCellStatus([output(STATUS), { metadata: { other: 1 } }])).toEqual(STATUS);
    expect(readCellStatus([output(STATUS), output({ ...STATUS, version: 4 })])?.version).toBe(4);
    const refused = { kind: "reward", name: "right", version: null, state: "refused" };
    expect(readCellStatus([output(refused)])).toEqual(refused);
  });

  it.each([
    [null],
    ["mine"],
    [[]],
    [{ ...STATUS, kind: "metric" }],
    [{ ...STATUS, state: "<img>" }],
    [{ ...STATUS, name: "" }],
    [{ ...STATUS, name: { toString: "mine" } }],
    [{ ...STATUS, version: "3" }],
    [{ ...STATUS, version: 0 }],
    [{ ...STATUS, version: Number.NaN }],
  ])("ignores %j", (metadata) => {
    expect(readCellStatus([output(metadata)])).toBeNull();
  });
});

describe("latestCell", () => {
  const cell = (runCount: number, status: Partial<CellStatus> | null): CellWithStatus => ({
    runCount,
    status: status && { ...STATUS, ...status },
  });

  it("is the cell that ran last, else the highest version", () => {
    const stored = [cell(0, { version: 2 }), cell(0, { version: 5 }), cell(0, { version: 4 })];
    expect(latestCell(stored, "mine")).toBe(stored[1]);
    const ran = cell(1, { version: 1 }); // in a new kernel, versions start at 1
    expect(latestCell([...stored, ran], "mine")).toBe(ran);
    expect(latestCell([ran, cell(2, { state: "refused" }), cell(3, { name: "other" }), cell(4, null)], "mine")).toBe(
      ran,
    );
    expect(latestCell(stored, "other")).toBeNull();
  });
});

describe("badgeOf", () => {
  it("says each state in words", () => {
    const text = (status: CellStatus, failed = false) => {
      const { sign, name, word, state } = badgeOf(status, failed);
      return `${state}: ${sign} ${name} ${word}`;
    };
    expect(text(STATUS)).toBe("registered: ✓ mine v3");
    expect(text(STATUS, true)).toBe("failed: ! mine v3 failed");
    expect(text({ ...STATUS, state: "refused" })).toBe("refused: ✕ mine refused");
    expect(badgeOf({ ...STATUS, state: "refused" }, false).title).toContain("v3 stays in use");
    expect(badgeOf({ ...STATUS, state: "refused", version: null }, true).title).toBe("This loss was refused");
  });

  it("truncates a long name", () => {
    expect(badgeOf({ ...STATUS, name: "x".repeat(5000) }, false).name).toHaveLength(81);
  });
});
