// @vitest-environment jsdom
import { describe, expect, it } from "vitest";
import { type CellToInsert, INSERT_CELL, insertCell, RUN } from "../../src/lib/events";

const cell = (): CellToInsert => ({ source: "1", origin: document.createElement("div") });

describe("events between widget and extension", () => {
  it("have names that the extension knows too", () => {
    expect([INSERT_CELL, RUN]).toEqual(["mint-lab:insert-cell", "mint-lab:run"]);
  });

  it("say whether a listener inserted the cell", () => {
    const details: CellToInsert[] = [];
    const insert = (event: CustomEvent<CellToInsert>) => {
      details.push(event.detail);
      event.preventDefault();
    };
    const ignore = () => {};
    expect(insertCell(cell())).toBe(false);
    window.addEventListener(INSERT_CELL, ignore);
    expect(insertCell(cell())).toBe(false);
    window.addEventListener(INSERT_CELL, insert);
    const sent = cell();
    expect([insertCell(sent), details]).toEqual([true, [sent]]);
    window.removeEventListener(INSERT_CELL, insert);
    window.removeEventListener(INSERT_CELL, ignore);
  });
});
