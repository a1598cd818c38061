// @vitest-environment jsdom
import { describe, expect, it } from "vitest";
import { Warnings } from "../../src/controls/warnings";
import { RunStore } from "../../src/run_store";
import { FakeKernel, SNAPSHOT, STATE } from "../support";

function scene(warnings: string[], isAlwaysShown?: boolean) {
  const store = new RunStore(new FakeKernel({ snapshot: { ...SNAPSHOT, state: { ...STATE, warnings } } }));
  const list = new Warnings(store, isAlwaysShown);
  const change = (next: string[]) => {
    store.state = { ...STATE, warnings: next };
    store.viewChanged();
  };
  const items = () => [...list.element.querySelectorAll("li")].map(({ textContent }) => textContent);
  return { list, change, items, element: list.element };
}

describe("Warnings", () => {
  it("shows advice as text, in its order, and hides without any", () => {
    const { element, items, change } = scene(["<b>first</b>", "second"]);
    expect([element.hidden, items()]).toEqual([false, ["<b>first</b>", "second"]]);
    expect([element.firstElementChild?.textContent, element.getAttribute("aria-live")]).toEqual([
      ...["Worth knowing", "polite"],
    ]);
    change([]);
    expect(element.hidden).toBe(true);
    change(["third"]);
    expect([element.hidden, items()]).toEqual([false, ["third"]]);
  });

  it("is hidden at first if there is none, but not as a widget of its own", () => {
    const { element } = scene([]);
    expect(element.hidden).toBe(true);
    const alone = scene([], true);
    expect([alone.element.hidden, alone.items()]).toEqual([false, ["Nothing so far."]]);
    alone.change(["now"]);
    expect(alone.items()).toEqual(["now"]);
    alone.change([]);
    expect([alone.element.hidden, alone.items()]).toEqual([false, ["Nothing so far."]]);
  });

  it("redraws only when the advice changes, and not after dispose", () => {
    const { list, change, items, element } = scene(["one"]);
    const { firstChild } = element.querySelector("ul") as HTMLElement;
    change(["one"]);
    expect(element.querySelector("ul")?.firstChild).toBe(firstChild);
    document.body.append(element);
    list.dispose();
    change(["two"]);
    expect([items(), element.isConnected]).toEqual([["one"], false]);
  });
});
