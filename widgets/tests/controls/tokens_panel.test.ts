// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import "../page_stubs";
import { TokensPanel } from "../../src/controls/tokens_panel";
import type { State } from "../../src/messages";
import { RunStore } from "../../src/run_store";
import { FakeKernel, SNAPSHOT, STATE, THEME, tokensOf } from "../support";

function scene(state: Partial<typeof STATE> = {}) {
  const kernel = new FakeKernel({ snapshot: { ...SNAPSHOT, state: { ...STATE, ...state } } });
  const panel = new TokensPanel(new RunStore(kernel), () => THEME);
  const requests = () => kernel.asked.filter(({ type }) => type === "tokens").length;
  return { panel, requests };
}

describe("TokensPanel", () => {
  it("says which examples it shows in the kernel's words", () => {
    const { panel } = scene({ tokens_about: "responses of the last rollout" });
    expect(panel.element.querySelector("summary")?.textContent).toContain("responses of the last rollout, with");
  });

  it("requests tokens only while it is open, and once there is a step", () => {
    const folded = scene({ steps_done: 3 });
    expect(folded.requests()).toBe(0);
    folded.panel.element.open = true;
    folded.panel.element.dispatchEvent(new Event("toggle"));
    expect(folded.requests()).toBe(1);
    folded.panel.dispose();
    const early = scene();
    early.panel.element.open = true;
    early.panel.element.dispatchEvent(new Event("toggle"));
    expect(early.requests()).toBe(0);
  });
});

describe("the requests of TokensPanel", () => {
  beforeEach(() => {
    vi.useFakeTimers();
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  function open(state: Partial<State> = {}, traits: Record<string, unknown> = {}) {
    const snapshot = { ...SNAPSHOT, state: { ...STATE, steps_done: 3, ...state } };
    const kernel = new FakeKernel({ snapshot, ...traits });
    const store = new RunStore(kernel);
    store.view.tokens = true;
    const panel = new TokensPanel(store, () => THEME);
    const requests = () => kernel.asked.filter(({ type }) => type === "tokens").length;
    const change = (next: Partial<State>) => {
      store.state = { ...(store.state as State), ...next };
      store.viewChanged();
    };
    /** Evaluate at a step. */
    const evaluate = (step: number) => {
      store.history.add(step, "held_out/loss", 1);
      store.viewChanged();
    };
    return { kernel, store, panel, requests, change, evaluate };
  }

  it("follow an evaluation, an edit, a pause and another run, and nothing else", () => {
    const { requests, change, evaluate, store, panel } = open();
    expect([requests(), panel.element.open]).toEqual([1, true]);
    const countAfter = (action: () => void) => {
      vi.advanceTimersByTime(500);
      action();
      return requests();
    };
    expect(countAfter(() => evaluate(3))).toBe(2);
    expect(countAfter(() => change({ steps_done: 4 }))).toBe(2);
    expect(countAfter(() => store.history.add(4, "loss", 1))).toBe(2);
    expect(countAfter(() => store.viewChanged())).toBe(2);
    expect(countAfter(() => change({ loss_label: "dpo v2" }))).toBe(3);
    expect(countAfter(() => change({ settings: { beta: 2 } }))).toBe(4);
    expect(countAfter(() => change({ status: "paused" }))).toBe(5);
    expect(countAfter(() => change({ steps_done: 5 }))).toBe(6); // the Step button
    expect(countAfter(() => change({ status: "running" }))).toBe(7);
    store.epoch = "another";
    expect(countAfter(() => store.viewChanged())).toBe(8);
    panel.dispose();
  });

  it("are half a second apart at least, and the last change is not forgotten", () => {
    const { requests, evaluate, panel } = open();
    evaluate(3);
    vi.advanceTimersByTime(100);
    evaluate(4);
    vi.advanceTimersByTime(399);
    expect(requests()).toBe(1);
    vi.advanceTimersByTime(1);
    expect(requests()).toBe(2);
    vi.advanceTimersByTime(5000);
    expect(requests()).toBe(2);
    panel.dispose();
  });

  it("are made again if the kernel refuses", async () => {
    const { requests, kernel, store, panel } = open();
    kernel.reply("the model is busy");
    await vi.advanceTimersByTimeAsync(500);
    store.viewChanged();
    expect(requests()).toBe(2);
    kernel.reply("");
    await vi.advanceTimersByTimeAsync(500);
    store.viewChanged();
    expect(requests()).toBe(2);
    panel.dispose();
  });

  it("end with the panel", () => {
    const { requests, evaluate, panel } = open();
    evaluate(3);
    panel.dispose();
    vi.advanceTimersByTime(5000);
    evaluate(9);
    expect(requests()).toBe(1);
  });

  it("stop while it is folded, which is stored for other views", () => {
    const { requests, evaluate, panel, store } = open();
    panel.element.open = false;
    panel.element.dispatchEvent(new Event("toggle"));
    vi.advanceTimersByTime(600);
    evaluate(7);
    expect([requests(), store.view.tokens]).toEqual([1, false]);
    panel.dispose();
  });

  it("say what is awaited, then show the tokens", () => {
    const early = open({ steps_done: 0 });
    const note = (panel: TokensPanel) => panel.element.querySelector(".ml-tokens-note") as HTMLElement;
    expect([note(early.panel).textContent, early.requests()]).toEqual(["The tokens appear after the first step.", 0]);
    early.panel.dispose();
    const { panel, kernel, store } = open();
    const strip = panel.element.querySelector(".ml-tokens") as HTMLElement;
    expect([note(panel).textContent, note(panel).hidden, strip.hidden]).toEqual([
      "Waiting for the model …",
      false,
      true,
    ]);
    kernel.set("tokens", tokensOf([0.5, 1]));
    expect([note(panel).hidden, strip.hidden, strip.querySelectorAll(".ml-token").length]).toEqual([true, false, 2]);
    const [first] = strip.querySelectorAll(".ml-token");
    store.viewChanged();
    expect(strip.querySelector(".ml-token")).toBe(first);
    const select = strip.querySelector("select") as HTMLSelectElement;
    select.value = "weight";
    select.dispatchEvent(new Event("change"));
    expect(store.view.by).toBe("weight");
    panel.dispose();
  });

  it("colours by the column that another view chose", () => {
    const snapshot = { ...SNAPSHOT, state: { ...STATE, steps_done: 3 } };
    const store = new RunStore(new FakeKernel({ snapshot, tokens: tokensOf([0.5, 1]) }));
    Object.assign(store.view, { tokens: true, by: "weight" });
    const panel = new TokensPanel(store, () => THEME);
    expect(panel.element.querySelector("select")?.value).toBe("weight");
    panel.dispose();
  });
});
