// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Settings } from "../../src/controls/settings";
import type { ParamEntry, State } from "../../src/messages";
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

describe("the slider of a setting", () => {
  const BETA: ParamEntry = {
    ...{ name: "beta", low: 0, high: 2, default: 1, minimum: 0, scale: "linear", doc: "Strength of <b>" },
  };

  beforeEach(() => {
    vi.useFakeTimers();
  });
  afterEach(() => {
    vi.useRealTimers();
    document.body.replaceChildren();
  });

  function slider(controls: ParamEntry[] = [BETA], settings: Record<string, number> = { beta: 1 }) {
    const kernel = new FakeKernel({ snapshot: { ...SNAPSHOT, state: { ...STATE, settings, controls } } });
    const store = new RunStore(kernel);
    const panel = new Settings(store);
    document.body.append(panel.element);
    const find = (selector: string) => panel.element.querySelector(selector) as HTMLInputElement;
    const range = () => find("[data-setting='beta']");
    const entry = () => find("[data-entry='beta']");
    const sent = () => kernel.asked.filter(({ type }) => type === "set").map(({ name, value }) => [name, value]);
    const move = (position: number) => {
      range().value = String(position);
      range().dispatchEvent(new Event("input"));
    };
    const release = () => range().dispatchEvent(new Event("change"));
    const kernelSets = (change: Partial<State>) => {
      store.state = { ...(store.state as State), ...change };
      store.viewChanged();
    };
    const type = (text: string, key = "Enter") => {
      entry().value = text;
      entry().dispatchEvent(new KeyboardEvent("keydown", { key }));
    };
    const answer = async (error: string) => {
      kernel.reply(error);
      await vi.advanceTimersByTimeAsync(0);
    };
    const shown = () => [range().value, entry().value, range().getAttribute("aria-valuetext")];
    const position = () => range().style.getPropertyValue("--ml-position");
    const note = () => panel.element.querySelector(".ml-note")?.textContent;
    return {
      ...{ kernel, store, panel, find, range, entry, sent, move, release, kernelSets, type },
      answer,
      shown,
      position,
      note,
    };
  }

  it("shows the run's value at its place", () => {
    const { shown, position, range, entry, panel } = slider();
    expect([shown(), position()]).toEqual([["100", "1", "1"], "50%"]);
    expect([range().min, range().max, range().step, entry().getAttribute("aria-label")]).toEqual([
      ...["0", "200", "1", "beta, typed"],
    ]);
    const label = panel.element.querySelector("label[for]") as HTMLLabelElement;
    expect([label.textContent, label.title, label.htmlFor]).toEqual(["beta", "Strength of <b>", range().id]);
    expect(panel.element.querySelector<HTMLElement>(".ml-setting")?.title).toBe("Strength of <b>");
    expect(entry().dataset.lmSuppressShortcuts).toBe("true");
  });

  it("shows a chosen value at once, and sends the last one after a quarter of a second, once", () => {
    const { move, release, shown, position, sent, store } = slider();
    move(50);
    expect([shown(), position(), store.setting("beta"), sent()]).toEqual([["50", "0.5", "0.5"], "25%", 0.5, []]);
    release();
    vi.advanceTimersByTime(200);
    move(60);
    release();
    vi.advanceTimersByTime(249);
    expect(sent()).toEqual([]);
    vi.advanceTimersByTime(1);
    expect(sent()).toEqual([["beta", 0.6]]);
    vi.advanceTimersByTime(5000);
    expect(sent()).toHaveLength(1);
  });

  it("keeps the chosen value until the next state has it", async () => {
    const { move, release, kernelSets, shown, store, answer } = slider();
    move(50);
    kernelSets({ settings: { beta: 2 } });
    expect(shown()).toEqual(["50", "0.5", "0.5"]);
    release();
    vi.advanceTimersByTime(250);
    kernelSets({ settings: { beta: 1.5 } });
    expect([shown()[1], store.setting("beta")]).toEqual(["0.5", 0.5]);
    await answer("");
    expect([shown()[1], store.setting("beta")]).toEqual(["0.5", 0.5]);
    kernelSets({ settings: { beta: 0.5 } });
    kernelSets({ settings: { beta: 1.25 } });
    expect(shown()).toEqual(["125", "1.25", "1.25"]);
  });

  it("returns to the run's value if the kernel refuses, and says why until a value is accepted", async () => {
    const { move, release, shown, store, answer, note, type } = slider();
    move(50);
    release();
    vi.advanceTimersByTime(250);
    await answer("too small");
    expect([shown(), store.setting("beta"), note()]).toEqual([["100", "1", "1"], 1, "too small"]);
    type("1.5");
    await answer("");
    expect([note(), shown()[1]]).toEqual(["", "1.5"]);
  });

  it("sends nothing when it is moved back, and follows the run again", () => {
    const { move, release, sent, store, kernelSets, shown } = slider();
    move(50);
    move(100);
    release();
    vi.advanceTimersByTime(250);
    expect([sent(), store.setting("beta")]).toEqual([[], 1]);
    kernelSets({ settings: { beta: 2 } });
    expect([shown()[0], store.setting("beta")]).toEqual(["200", 2]);
  });

  it("accepts a typed number with spaces or a comma, beyond the slider too", () => {
    const { type, sent, shown, position } = slider();
    type(" 0,25 ");
    expect([sent(), shown()]).toEqual([[["beta", 0.25]], ["25", "0.25", "0.25"]]);
    type("7");
    expect([sent().at(-1), shown(), position()]).toEqual([["beta", 7], ["200", "7", "7"], "100%"]);
  });

  it.each(["", "  ", "x", "1e999"])("refuses %j, and shows the run's value", (text) => {
    const { type, sent, shown, note } = slider();
    type(text);
    expect([sent(), shown()[1], note()]).toEqual([[], "1", "expected a number"]);
  });

  it("sends 0", () => {
    const { type, sent } = slider();
    type("0");
    expect(sent()).toEqual([["beta", 0]]);
  });

  it("drops what was typed on Escape, and sends only on Enter or when the field is left", () => {
    const { type, sent, shown, entry } = slider();
    type("0.3", "Escape");
    expect([sent(), shown()[1]]).toEqual([[], "1"]);
    type("0.3", "a");
    expect([sent(), shown()[1]]).toEqual([[], "0.3"]);
    entry().dispatchEvent(new Event("change"));
    expect(sent()).toEqual([["beta", 0.3]]);
  });

  it("leaves the field alone while a person types in it", () => {
    const { entry, kernelSets, range } = slider();
    entry().focus();
    entry().value = "0.";
    kernelSets({ settings: { beta: 2 } });
    expect([entry().value, range().value]).toEqual(["0.", "100"]);
    entry().blur();
    kernelSets({ settings: { beta: 0.5 } });
    expect([entry().value, range().value]).toEqual(["0.5", "50"]);
  });

  it("has a logarithmic scale if the setting has", () => {
    const { shown, move } = slider([{ ...BETA, low: 0.01, high: 1, scale: "log" }], { beta: 0.1 });
    expect(shown()).toEqual(["100", "0.1", "0.1"]);
    move(0);
    expect(shown()[1]).toBe("0.01");
  });

  it("is created again if it changed, and not for another default", () => {
    const { kernelSets, range, panel } = slider();
    const before = range();
    kernelSets({ controls: [{ ...BETA, default: 3 }] });
    expect(range()).toBe(before);
    kernelSets({
      controls: [
        { ...BETA, high: 4 },
        { ...BETA, name: "eps" },
      ],
      settings: { beta: 1, eps: 2 },
    });
    expect(range()).not.toBe(before);
    const names = [...panel.element.querySelectorAll<HTMLElement>("[data-setting]")].map(
      ({ dataset }) => dataset.setting,
    );
    expect([names, range().value]).toEqual([["beta", "eps"], "50"]);
    expect(panel.element.lastElementChild?.className).toBe("ml-options");
    kernelSets({ controls: [] });
    expect(panel.element.querySelectorAll("[data-setting]")).toHaveLength(0);
  });

  it("sends nothing and forgets the choice after dispose", () => {
    const { move, release, panel, sent, store, kernelSets, shown } = slider();
    move(50);
    release();
    panel.dispose();
    vi.advanceTimersByTime(1000);
    expect([sent(), store.setting("beta"), panel.element.isConnected]).toEqual([[], 1, false]);
    expect(() => kernelSets({ controls: [{ ...BETA, name: "later" }] })).not.toThrow();
    expect(panel.element.querySelector("[data-setting='later']")).toBeNull();
    expect(shown).toThrow();
  });

  it("has no value before the run has one", () => {
    const { shown } = slider([BETA], {});
    expect(shown().slice(1)).toEqual(["", null]);
  });
});

describe("the options of a recipe in detail", () => {
  it("are open up to four, and redrawn only if they changed", () => {
    const options = Array.from({ length: 4 }, (_, i) => ({ name: `o${i}`, value: "1", doc: "" }));
    const store = new RunStore(new FakeKernel({ snapshot: { ...SNAPSHOT, state: { ...STATE, options } } }));
    const { element } = new Settings(store);
    const details = element.querySelector("details") as HTMLDetailsElement;
    expect(details.open).toBe(true);
    const first = details.querySelector("[data-option]");
    details.open = false;
    store.viewChanged();
    expect([details.open, details.querySelector("[data-option]")]).toEqual([false, first]);
    store.state = { ...STATE, options: options.slice(1) };
    store.viewChanged();
    expect([...details.querySelectorAll("dt")].map(({ textContent }) => textContent)).toEqual(["o1", "o2", "o3"]);
  });

  it("are nothing without a run", () => {
    const { element } = new Settings(new RunStore(new FakeKernel({})));
    expect(element.textContent).toBe("Settings");
  });
});
