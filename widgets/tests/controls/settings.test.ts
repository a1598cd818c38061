// @vitest-environment jsdom
import { describe, expect, it } from "vitest";
import { Settings } from "../../src/controls/settings";
import { RunStore } from "../../src/run_store";
import { FakeKernel, SNAPSHOT, STATE, settled } from "../support";

/** A slider of a run whose kernel answers on request. */
function scene() {
  const control = { name: "beta", low: 0, high: 2, default: 1, minimum: 0, scale: "linear" as const, doc: "" };
  const state = { ...STATE, settings: { beta: 1 }, controls: [control] };
  const kernel = new FakeKernel({ snapshot: { ...SNAPSHOT, state } });
  const { element } = new Settings(new RunStore(kernel));
  const entry = element.querySelector("[data-entry='beta']") as HTMLInputElement;
  const sent = () => kernel.asked.filter(({ type }) => type === "set");
  const answer = (index: number, error: string) => {
    kernel.reply(error, sent()[index]);
    return settled();
  };
  const type = (text: string) => {
    entry.value = text;
    entry.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter" }));
    entry.dispatchEvent(new Event("change"));
  };
  return { element, entry, sent, answer, type };
}

describe("a setting", () => {
  it("is sent once by Enter and the change that follows", () => {
    const { type, sent } = scene();
    type("0.5");
    expect(sent().map(({ value }) => value)).toEqual([0.5]);
  });

  it("returns to the last accepted value if a later one is refused", async () => {
    const { type, sent, answer, entry, element } = scene();
    type("0.5");
    type("7");
    expect(sent().map(({ value }) => value)).toEqual([0.5, 7]);
    await answer(0, "");
    expect(entry.value).toBe("7");
    await answer(1, "beta is 7, expected at most 2");
    expect(entry.value).toBe("0.5");
    expect(element.querySelector(".ml-note")?.textContent).toBe("beta is 7, expected at most 2");
  });

  it("must be a number", () => {
    const { type, sent, entry, element } = scene();
    type("many");
    expect([sent(), entry.value]).toEqual([[], "1"]);
    expect(element.querySelector(".ml-note")?.textContent).toBe("expected a number");
  });
});

describe("the options of a recipe", () => {
  const shown = (count: number) => {
    const options = Array.from({ length: count }, (_, i) => ({ name: `o${i}`, value: `<b>${i}</b>`, doc: "per step" }));
    const state = { ...STATE, recipe: "spell", options };
    const { element } = new Settings(new RunStore(new FakeKernel({ snapshot: { ...SNAPSHOT, state } })));
    return element.querySelector("details") as HTMLDetailsElement;
  };

  it("are listed with their values and descriptions, as text", () => {
    const details = shown(2);
    const rows = [...details.querySelectorAll<HTMLElement>("[data-option]")];
    expect(rows.map((row) => row.textContent)).toEqual(["o0<b>0</b>", "o1<b>1</b>"]);
    expect(rows.map(({ title }) => title)).toEqual(["per step", "per step"]);
    expect(details.querySelector("summary")?.textContent).toBe("Options of spell");
    expect([details.hidden, details.open]).toEqual([false, true]);
  });

  it("are folded if there are many, and hidden if there are none", () => {
    expect(shown(5).open).toBe(false);
    expect(shown(0).hidden).toBe(true);
  });
});
