// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { CellSource } from "../../src/controls/cell_source";
import { INSERT_CELL } from "../../src/lib/events";
import { RunStore } from "../../src/run_store";
import { FakeKernel, SNAPSHOT, settled } from "../support";

const SOURCE = "%%loss mine\nreturn <b>";

let clipboard: { writeText: ReturnType<typeof vi.fn> };

beforeEach(() => {
  clipboard = { writeText: vi.fn(() => Promise.resolve()) };
  vi.stubGlobal("navigator", { clipboard });
});
afterEach(() => {
  vi.unstubAllGlobals();
});

function scene() {
  const kernel = new FakeKernel({ snapshot: SNAPSHOT });
  const onRefusal = vi.fn();
  const cell = new CellSource(new RunStore(kernel), onRefusal);
  document.body.append(cell.element);
  const origin = document.createElement("div");
  const answer = (text: string) => {
    const { request } = kernel.asked.at(-1) ?? {};
    kernel.say({ type: "document", request }, [new DataView(new TextEncoder().encode(text).buffer)]);
    return settled();
  };
  const [copy, close] = [...cell.element.querySelectorAll("button")] as [HTMLButtonElement, HTMLButtonElement];
  return { kernel, onRefusal, cell, origin, answer, copy, close, element: cell.element };
}

describe("CellSource", () => {
  it("shows the cell as text if no extension inserts it", async () => {
    const { cell, origin, answer, kernel, element, onRefusal, copy } = scene();
    expect(element.hidden).toBe(true);
    cell.open("mine", origin);
    expect(kernel.asked.at(-1)).toMatchObject({ type: "cell", name: "mine" });
    expect(element.hidden).toBe(true);
    await answer(SOURCE);
    expect([element.hidden, element.querySelector("pre")?.textContent]).toEqual([false, SOURCE]);
    expect(onRefusal.mock.calls).toEqual([[""]]);
    expect(document.activeElement).toBe(copy);
    expect(element.querySelector("p")?.textContent).toBe("Paste it into a new cell and run it.");
    cell.dispose();
  });

  it("is not shown if a listener inserts the cell into the notebook of the widget", async () => {
    const { cell, origin, answer, element, onRefusal } = scene();
    const details: unknown[] = [];
    const insert = (event: Event) => {
      details.push((event as CustomEvent).detail);
      event.preventDefault();
    };
    window.addEventListener(INSERT_CELL, insert);
    cell.open("mine", origin);
    await answer(SOURCE);
    window.removeEventListener(INSERT_CELL, insert);
    expect(details).toEqual([{ source: SOURCE, origin }]);
    expect([element.hidden, onRefusal.mock.calls]).toEqual([true, [[""]]]);
    cell.dispose();
  });

  it("reports a refusal once", async () => {
    const { cell, origin, kernel, element, onRefusal } = scene();
    cell.open("mine", origin);
    kernel.reply("no such loss");
    await settled();
    expect([onRefusal.mock.calls, element.hidden]).toEqual([[["no such loss"]], true]);
    cell.dispose();
  });

  it("copies the source, or selects it if the page may not", async () => {
    const { cell, origin, answer, copy } = scene();
    cell.open("mine", origin);
    await answer(SOURCE);
    expect(copy.textContent).toBe("Copy");
    copy.click();
    await settled();
    expect(clipboard.writeText.mock.calls).toEqual([[SOURCE]]);
    expect(copy.textContent).toBe("Copied");
    clipboard.writeText.mockRejectedValue(new Error("not allowed"));
    copy.click();
    await settled();
    expect([copy.textContent, getSelection()?.toString()]).toEqual(["Press Ctrl+C", SOURCE]);
    cell.open("mine", origin);
    await answer("other");
    expect(copy.textContent).toBe("Copy");
    cell.dispose();
  });

  it("closes, and does nothing after dispose", async () => {
    const { cell, origin, answer, element, close, copy } = scene();
    cell.open("mine", origin);
    await answer(SOURCE);
    close.click();
    expect([element.hidden, close.textContent]).toEqual([true, "Close"]);
    element.hidden = false;
    cell.dispose();
    expect(element.isConnected).toBe(false);
    close.click();
    copy.click();
    expect([element.hidden, clipboard.writeText.mock.calls]).toEqual([false, []]);
  });
});
