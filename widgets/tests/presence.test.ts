// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Presence, UNSEEN_AFTER_MS } from "../src/presence";
import { ResizeObserverStub } from "./page_stubs";
import { FakeKernel } from "./support";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => {
  vi.useRealTimers();
  document.body.replaceChildren();
});

/** A widget with outputs in a notebook. */
function scene(host = "jp-Notebook") {
  const kernel = new FakeKernel({});
  const presence = new Presence(kernel);
  const notebook = document.createElement("div");
  notebook.className = host;
  document.body.append(notebook);
  const show = () => {
    const el = document.createElement("div");
    const dispose = presence.addView(el);
    notebook.append(el);
    ResizeObserverStub.resize(el);
    return () => {
      el.remove();
      dispose();
    };
  };
  const pass = (ms = UNSEEN_AFTER_MS) => vi.advanceTimersByTime(ms);
  return { kernel, presence, notebook, show, pass, sent: () => kernel.asked.map(({ type }) => type) };
}

describe("Presence", () => {
  it("tells the kernel once the last output is gone for a while", () => {
    const { show, pass, sent } = scene();
    const [removeFirst, removeSecond] = [show(), show()];
    removeFirst();
    pass();
    expect(sent()).toEqual([]);
    removeSecond();
    pass(UNSEEN_AFTER_MS - 1);
    expect(sent()).toEqual([]);
    pass(1);
    expect(sent()).toEqual(["unseen"]);
    expect(ResizeObserverStub.active.size).toBe(0);
  });

  it("says nothing of a cell that is moved", () => {
    const { show, pass, sent } = scene();
    show()();
    pass(UNSEEN_AFTER_MS - 1);
    show();
    pass(10 * UNSEEN_AFTER_MS);
    expect(sent()).toEqual([]);
  });

  it("tells the kernel when an output is back", () => {
    const { show, pass, sent } = scene();
    show()();
    pass();
    const remove = show();
    expect(sent()).toEqual(["unseen", "seen"]);
    remove();
    pass();
    expect(sent()).toEqual(["unseen", "seen", "unseen"]);
  });

  it("says nothing if the whole notebook is closed", () => {
    const { notebook, show, pass, sent } = scene();
    const remove = show();
    notebook.remove();
    remove();
    pass();
    expect(sent()).toEqual([]);
  });

  it("says nothing in a program whose outputs it does not know", () => {
    const { show, pass, sent } = scene("output-of-another-program");
    show()();
    pass();
    expect(sent()).toEqual([]);
  });

  it("says nothing after the widget was closed, nor without a kernel", () => {
    const { presence, show, pass, sent } = scene();
    show()();
    presence.dispose();
    pass();
    expect(sent()).toEqual([]);
    const other = scene();
    vi.spyOn(other.kernel, "send").mockImplementation(() => {
      throw new Error("no kernel");
    });
    other.show()();
    expect(() => other.pass()).not.toThrow();
  });
});
