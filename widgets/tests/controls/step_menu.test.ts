// @vitest-environment jsdom
import { afterEach, describe, expect, it } from "vitest";
import { StepMenu } from "../../src/controls/step_menu";
import type { State } from "../../src/messages";
import { RunStore } from "../../src/run_store";
import { openPopovers } from "../page_stubs";
import { FakeKernel, lossEntry, STATE, settled, snapshotOf } from "../support";

let clear = () => {};
afterEach(() => clear());

const PAUSED: Partial<State> = { status: "paused", steps_done: 10 };

function scene(state: Partial<State> = PAUSED, canFork = true) {
  const losses = [lossEntry("dpo"), lossEntry("ppo", { reason: "no rewards" })];
  const snapshot = snapshotOf({}, state, { losses });
  const tabs = { runs: [{ name: "my run", about: "" }], shown: 0 };
  const kernel = new FakeKernel({ snapshot, runs: tabs });
  const store = new RunStore(kernel);
  const menu = new StepMenu(store, canFork);
  const from = document.createElement("div");
  from.tabIndex = 0;
  document.body.append(from, menu.element);
  clear = () => {
    menu.dispose();
    store.dispose();
    from.remove();
  };
  const button = (text: string) =>
    [...menu.element.querySelectorAll("button")].find((found) => found.textContent === text) as HTMLButtonElement;
  const described = (text: string) =>
    document.getElementById(button(text).getAttribute("aria-describedby") ?? "")?.textContent;
  const change = (update: Partial<State>) =>
    kernel.say({
      ...{ type: "update", epoch: "a", number: 2, first: 0, count: 0, columns: [], full: true, histograms: [] },
      state: { ...STATE, ...state, ...update },
    });
  const key = (name: string) =>
    menu.element.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true, cancelable: true }));
  const open = (step = 4) => menu.open({ step, x: 20, y: 30, from });
  return { kernel, store, menu, from, button, described, change, key, open };
}

describe("the menu of a step", () => {
  it("is a dialog about the step, with the focus on its first action", () => {
    const { menu, open, button, described } = scene();
    expect([menu.isOpen, menu.element.hidden]).toEqual([false, true]);
    open();
    expect([menu.isOpen, menu.element.hidden, openPopovers.has(menu.element)]).toEqual([true, false, true]);
    expect(menu.element.getAttribute("aria-label")).toBe("Step 4");
    expect(document.activeElement).toBe(button("Rewind here"));
    expect(described("Rewind here")).toBe("The 6 later steps stay as faint curves; their snapshots are deleted.");
    expect(described("Fork from here")).toContain("this one stays as it is");
  });

  it("does not open at a step that is not complete", () => {
    const { menu, open } = scene();
    open(11);
    expect(menu.isOpen).toBe(false);
  });

  it("rewinds, and closes once the kernel has accepted", async () => {
    const { kernel, menu, from, open, button } = scene();
    open();
    button("Rewind here").click();
    expect(kernel.asked.at(-1)).toMatchObject({ type: "rewind", step: 4 });
    expect([menu.isOpen, button("Rewind here").disabled]).toEqual([true, true]);
    kernel.reply("");
    await settled();
    expect([menu.isOpen, document.activeElement]).toEqual([false, from]);
  });

  it("says why the kernel refused, and can be used again", async () => {
    const { kernel, menu, open, button } = scene();
    open();
    button("Rewind here").click();
    kernel.reply("another request is in progress");
    await settled();
    expect(menu.isOpen).toBe(true);
    expect(menu.element.querySelector("[role=status]")?.textContent).toBe("another request is in progress");
    expect(button("Rewind here").disabled).toBe(false);
  });

  it("forks with another loss and a name", async () => {
    const { kernel, menu, open, button } = scene();
    open();
    const form = menu.element.querySelector("form") as HTMLFormElement;
    const [select, input] = [form.querySelector("select"), form.querySelector("input")] as [
      HTMLSelectElement,
      HTMLInputElement,
    ];
    expect([form.hidden, button("Fork from here").getAttribute("aria-expanded")]).toEqual([true, "false"]);
    button("Fork from here").click();
    expect([form.hidden, button("Fork from here").getAttribute("aria-expanded")]).toEqual([false, "true"]);
    expect(document.activeElement).toBe(select);
    expect([...select.options].map(({ value, disabled }) => [value, disabled])).toEqual([
      ["", false],
      ["dpo", false],
      ["ppo", true],
    ]);
    expect(input.placeholder).toBe("my run@4");
    select.value = "dpo";
    input.value = "  mine ";
    button("Create fork").click();
    expect(kernel.asked.at(-1)).toMatchObject({ type: "fork", step: 4, loss: "dpo", name: "mine" });
    kernel.reply("");
    await settled();
    expect(menu.isOpen).toBe(false);
    open(5);
    expect([form.hidden, select.value, input.value]).toEqual([true, "", ""]);
  });

  it("closes with Escape, by its button, and by a press elsewhere", () => {
    const { menu, from, open, key, button } = scene();
    open();
    key("Escape");
    expect([menu.isOpen, document.activeElement]).toEqual([false, from]);
    open();
    button("✕").click();
    expect(menu.isOpen).toBe(false);
    open();
    menu.element.dispatchEvent(new Event("pointerdown", { bubbles: true, composed: true }));
    expect(menu.isOpen).toBe(true);
    document.body.dispatchEvent(new Event("pointerdown", { bubbles: true, composed: true }));
    expect([menu.isOpen, openPopovers.has(menu.element)]).toEqual([false, false]);
  });

  it("keeps its keys from the notebook around it", () => {
    const { menu, open, key } = scene();
    const keys: string[] = [];
    const onKey = (event: Event) => keys.push((event as KeyboardEvent).key);
    document.addEventListener("keydown", onKey);
    open();
    key("Enter");
    key("Escape");
    document.removeEventListener("keydown", onKey);
    expect([keys, menu.isOpen]).toEqual([[], false]);
  });

  it("is closed when its chart is scrolled away, not by other scrolling", () => {
    const { menu, from, open } = scene();
    open();
    document.dispatchEvent(new Event("scroll"));
    expect(menu.isOpen).toBe(true);
    from.getBoundingClientRect = () => ({ top: 30, left: 0 }) as DOMRect;
    document.dispatchEvent(new Event("scroll"));
    expect(menu.isOpen).toBe(false);
  });

  it("says why something is impossible", () => {
    const reasons = { no_rewind: "This run is stopped.", no_fork: "" };
    const { open, button, described } = scene({ ...PAUSED, ...reasons });
    open();
    expect([button("Rewind here").disabled, described("Rewind here")]).toEqual([true, "This run is stopped."]);
    expect([button("Fork from here").disabled, document.activeElement]).toEqual([false, button("Fork from here")]);
  });

  it("does not rewind to the step that the run is at, nor while the kernel is at something", () => {
    const { open, described, button, change, key } = scene();
    open(10);
    expect([button("Rewind here").disabled, described("Rewind here")]).toEqual([true, "The run is at this step."]);
    key("Escape");
    open(4);
    change({ activity: "Returning to step 2…" });
    expect([button("Rewind here").disabled, button("Create fork").disabled]).toEqual([true, true]);
    expect([described("Rewind here"), described("Fork from here")]).toEqual([
      "Returning to step 2…",
      "Returning to step 2…",
    ]);
  });

  it("says that a running run pauses, and one later step in the singular", () => {
    const { open, described } = scene({ ...PAUSED, status: "running" });
    open(9);
    expect(described("Rewind here")).toBe(
      "The later step stays as a faint curve; its snapshot is deleted. This run pauses.",
    );
    expect(described("Fork from here")).toContain("This run pauses.");
  });

  it("closes if the run returns to an earlier step meanwhile", () => {
    const { menu, open, change } = scene();
    open(8);
    change({ steps_done: 7 });
    expect(menu.isOpen).toBe(false);
  });

  it("offers no fork in a widget that cannot show one", () => {
    const { open, button } = scene(PAUSED, false);
    open();
    expect([button("Rewind here").isConnected, button("Fork from here")]).toEqual([true, undefined]);
  });

  it("is inside the window", () => {
    const { menu, from } = scene();
    menu.element.getBoundingClientRect = () => ({ width: 300, height: 200 }) as DOMRect;
    menu.open({ step: 4, x: window.innerWidth - 50, y: window.innerHeight - 20, from });
    // Left of the point by the gap of 10 pixels; 8 pixels above the lower edge.
    expect(menu.element.style.left).toBe(`${window.innerWidth - 50 - 10 - 300}px`);
    expect(menu.element.style.top).toBe(`${window.innerHeight - 8 - 200}px`);
    menu.close();
    menu.open({ step: 4, x: 100, y: 100, from });
    expect([menu.element.style.left, menu.element.style.top]).toEqual(["110px", "90px"]);
  });
});
