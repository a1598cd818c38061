// @vitest-environment jsdom
import { describe, expect, it } from "vitest";
import { Settings } from "../../src/controls/settings";
import { RunStore } from "../../src/run_store";
import { FakeKernel, SNAPSHOT, STATE, settled } from "../support";

/** A slider of a run whose kernel answers when it is told to. */
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
