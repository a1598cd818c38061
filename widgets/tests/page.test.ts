// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { paletteStyles } from "../src/lib/theme";
import { page } from "../src/page";
import { media, ResizeObserverStub } from "./page_stubs";

const disposers: (() => void)[] = [];

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  for (const dispose of disposers.splice(0)) dispose();
  vi.useRealTimers();
  document.body.replaceChildren();
});

function scene(isConnected = true) {
  const el = document.createElement("div");
  const background = (value: string) => {
    el.style.background = value;
  };
  background("rgb(255, 255, 255)");
  if (isConnected) document.body.append(el);
  const one = page(el, "Loss <b>");
  disposers.push(one.dispose);
  return { el, background, ...one };
}

describe("page", () => {
  it("is a labelled region with its own style sheet", () => {
    const { el, root } = scene();
    expect([...el.children]).toEqual([root]);
    expect([root.className, root.getAttribute("role"), root.getAttribute("aria-label")]).toEqual([
      ...["mint-lab", "region", "Loss <b>"],
    ]);
    expect(root.querySelector("style")?.textContent?.startsWith(paletteStyles())).toBe(true);
  });

  it("reads the theme once, and again when it changes", async () => {
    const { theme, background, root } = scene();
    const first = theme();
    background("rgb(0, 0, 0)");
    expect([first.dark, theme() === first]).toEqual([false, true]);
    for (const listener of media.listeners) listener();
    await vi.advanceTimersByTimeAsync(10);
    expect([root.dataset.theme, theme().dark]).toEqual(["dark", true]);
  });

  it("does not keep a theme from before it was in the document", () => {
    const { theme, background, el, root } = scene(false);
    expect(theme().dark).toBe(false);
    background("rgb(0, 0, 0)");
    expect(theme().dark).toBe(true);
    document.body.append(el);
    background("rgb(255, 255, 255)");
    ResizeObserverStub.resize(root);
    expect(root.dataset.theme).toBe("light");
    background("rgb(0, 0, 0)");
    expect(theme().dark).toBe(false);
  });

  it("leaves nothing behind", () => {
    const { dispose, el } = scene();
    dispose();
    expect([el.children.length, media.listeners.size, ResizeObserverStub.active.size]).toEqual([0, 0, 0]);
  });
});
