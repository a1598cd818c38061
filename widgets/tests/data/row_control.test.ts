// @vitest-environment jsdom
import { afterEach, describe, expect, it } from "vitest";
import { RowControl } from "../../src/data/row_control";
import { settled } from "../support";
import { REPORT } from "./report";

const controls: RowControl[] = [];

afterEach(() => {
  for (const control of controls.splice(0)) {
    control.dispose();
    control.element.remove();
  }
});

function scene(change: object = {}) {
  const asked: object[] = [];
  let refusal = "";
  const control = new RowControl((rows) => {
    asked.push(rows);
    return Promise.resolve(refusal);
  });
  controls.push(control);
  document.body.append(control.element);
  control.show({ ...REPORT, ...change });
  const [noteworthy, previous, next] = [...control.element.querySelectorAll("button")] as HTMLButtonElement[];
  const number = control.element.querySelector("input") as HTMLInputElement;
  const source = control.element.querySelector("select") as HTMLSelectElement;
  const press = (key: string) => number.dispatchEvent(new KeyboardEvent("keydown", { key }));
  const refuse = (reason: string) => {
    refusal = reason;
  };
  return { control, asked, noteworthy, previous, next, number, source, press, refuse };
}

describe("RowControl", () => {
  it("begins with noteworthy rows, after which the first row is next", () => {
    const { noteworthy, previous, next, number, asked } = scene();
    expect([noteworthy?.getAttribute("aria-pressed"), previous?.disabled, next?.disabled]).toEqual([
      ...["true", true, false],
    ]);
    expect(number.value).toBe("");
    next?.click();
    expect(asked).toEqual([{ item: 0 }]);
  });

  it("leads to the rows before and after, and back", () => {
    const { noteworthy, previous, next, number, asked, control } = scene({ item: 1, row: 7 });
    expect([number.value, control.element.textContent]).toEqual(["7", expect.stringContaining("2 of 3")]);
    previous?.click();
    next?.click();
    noteworthy?.click();
    expect(asked).toEqual([{ item: 0 }, { item: 2 }, {}]);
  });

  it("stops at both ends, and a button with the focus keeps it there", () => {
    const first = scene({ item: 0, row: 4 });
    expect([first.previous?.disabled, first.next?.disabled]).toEqual([true, false]);
    const { control, next } = scene({ item: 1, row: 7 });
    next?.focus();
    control.show({ ...REPORT, item: 2, row: 9 });
    expect([next?.disabled, next?.getAttribute("aria-disabled"), document.activeElement === next]).toEqual([
      ...[false, "true", true],
    ]);
  });

  it("asks for a row by its number once, on Enter or on leaving the field", () => {
    const { number, press, asked } = scene();
    number.value = "12";
    press("Enter");
    number.dispatchEvent(new Event("change"));
    expect(asked).toEqual([{ row: 12, held_out: false }]);
    number.value = "";
    press("Enter");
    number.value = "1.5";
    number.dispatchEvent(new Event("change"));
    expect(asked.length).toBe(1);
    number.value = "13";
    number.dispatchEvent(new Event("change"));
    expect(asked.at(-1)).toEqual({ row: 13, held_out: false });
  });

  it("returns to the number that is shown on Escape", () => {
    const { number, press, asked } = scene({ item: 1, row: 7 });
    number.value = "12";
    press("Escape");
    expect([number.value, asked]).toEqual(["7", []]);
  });

  it("tells the two sources apart if there are two", () => {
    expect(scene().source.hidden).toBe(true);
    const { source, number, asked } = scene({ has_two_sources: true, item: 2, row: 1, held_out: true });
    expect([source.hidden, source.value]).toEqual([false, "held-out"]);
    number.value = "0";
    number.dispatchEvent(new Event("change"));
    source.value = "training";
    source.dispatchEvent(new Event("change"));
    expect(asked).toEqual([
      { row: 0, held_out: true },
      { row: 0, held_out: false },
    ]);
  });

  it("shows a refusal until the next report", async () => {
    const { control, number, press, refuse } = scene({ item: 1, row: 7 });
    refuse("there is no such row");
    number.value = "99";
    press("Enter");
    await settled();
    const alert = control.element.querySelector("[role=alert]");
    expect(alert?.textContent).toBe("there is no such row");
    control.show({ ...REPORT, item: 1, row: 7 });
    expect(alert?.textContent).toBe("");
    control.dispose();
    refuse("");
    number.value = "3";
    press("Enter");
    await settled();
    expect(alert?.textContent).toBe("");
  });
});
