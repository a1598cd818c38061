// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { BASE, ROLES } from "../../src/lib/palette";
import { paletteStyles, readTheme, watchTheme } from "../../src/lib/theme";
import { media } from "../page_stubs";

describe("paletteStyles", () => {
  it("has a variable for every colour, and lets the host page replace text and surface", () => {
    const [light, dark] = paletteStyles().split("\n") as [string, string];
    expect(light).toContain(`--ml-held-out: ${ROLES.light.held_out};`);
    expect(light).toContain(`--ml-bad-ground: ${BASE.light.bad_ground};`);
    expect(light).toContain(
      `--ml-text: var(--jp-content-font-color1, var(--vscode-editor-foreground, ${BASE.light.text}));`,
    );
    expect(dark.startsWith('.mint-lab[data-theme="dark"] {')).toBe(true);
    expect(dark).toContain(`--ml-chosen: ${ROLES.dark.chosen};`);
  });
});

describe("readTheme", () => {
  const page = (...backgrounds: string[]) => {
    let parent: HTMLElement = document.body;
    for (const background of backgrounds) {
      const element = document.createElement("div");
      element.style.background = background;
      parent.append(element);
      parent = element;
    }
    const root = document.createElement("div");
    root.style.cssText =
      "font-family: serif; --ml-text: black; --ml-muted: grey ; --ml-grid: silver; --ml-surface: white";
    root.style.background = "black"; // its own background does not count
    parent.append(root);
    return root;
  };

  afterEach(() => {
    document.body.replaceChildren();
    media.matches = false;
  });

  it("has the variables of the style sheet, and the curves' colours", () => {
    const root = page("white");
    expect(readTheme(root)).toEqual({
      ...{ dark: false, text: "black", muted: "grey", grid: "silver", surface: "white", font: "serif" },
      roles: ROLES.light,
    });
    expect(root.dataset.theme).toBe("light");
    const dark = page("rgb(0, 0, 0)");
    expect(readTheme(dark)).toMatchObject({ dark: true, roles: ROLES.dark });
    expect(dark.dataset.theme).toBe("dark");
  });

  it.each<[string[], boolean]>([
    [["rgb(0, 0, 0)", "rgb(255, 255, 255)"], false],
    [["rgb(255, 255, 255)", "rgb(0, 0, 0)"], true],
    [["rgb(0, 0, 0)", "rgba(255, 255, 255, 0.5)"], true],
    [["rgb(0, 0, 0)", "rgba(255, 255, 255, 0.51)"], false],
    [["rgb(0, 0, 0)", "transparent"], true],
    // A luminance of 0.4 is 102 of 255.
    [["rgb(103, 103, 103)"], false],
    [["rgb(101, 101, 101)"], true],
    // Green is lightest: 0.7152 of white. Red has 0.2126, blue 0.0722.
    [["rgb(0, 255, 0)"], false],
    [["rgb(255, 0, 0)"], true],
    [["rgb(255, 0, 255)"], true],
    [["rgb(255, 70, 255)"], false],
  ])("of backgrounds %j is dark: %s", (backgrounds, dark) => {
    expect(readTheme(page(...backgrounds)).dark).toBe(dark);
  });

  it("follows the system if no background is opaque", () => {
    expect(readTheme(page("transparent")).dark).toBe(false);
    media.matches = true;
    expect(readTheme(page("transparent")).dark).toBe(true);
    expect(media.query).toBe("(prefers-color-scheme: dark)");
  });
});

describe("watchTheme", () => {
  beforeEach(() => {
    vi.useFakeTimers();
  });
  afterEach(() => {
    vi.useRealTimers();
    for (const element of [document.body, document.documentElement]) {
      for (const { name } of [...element.attributes]) element.removeAttribute(name);
    }
  });

  /** Number of calls after an action, of which a MutationObserver hears in a microtask. */
  async function callsAfter(action: () => void): Promise<number> {
    const changed = vi.fn();
    const dispose = watchTheme(changed);
    action();
    await vi.advanceTimersByTimeAsync(10);
    const { length } = changed.mock.calls;
    dispose();
    action();
    await vi.advanceTimersByTimeAsync(10);
    expect(changed).toHaveBeenCalledTimes(length); // silent after dispose
    return length;
  }

  let value = 0;
  const attribute = (element: Element, name: string) => () => {
    value += 1;
    element.setAttribute(name, String(value));
  };

  it.each(["class", "data-jp-theme-name", "data-jp-theme-light", "style", "theme"])("hears of %s", async (name) => {
    expect(await callsAfter(attribute(document.body, name))).toBe(1);
    expect(await callsAfter(attribute(document.documentElement, name))).toBe(1);
  });

  it("hears of the system, and of a style sheet that has loaded", async () => {
    const onSystem = () => {
      for (const listener of media.listeners) listener();
    };
    expect(await callsAfter(onSystem)).toBe(1);
    const link = document.createElement("link");
    document.head.append(link);
    expect(await callsAfter(() => link.dispatchEvent(new Event("load")))).toBe(1);
    link.remove();
  });

  it("hears of nothing else, and of many changes once", async () => {
    expect(await callsAfter(attribute(document.body, "title"))).toBe(0);
    const image = document.createElement("img");
    document.head.append(image);
    expect(await callsAfter(() => image.dispatchEvent(new Event("load")))).toBe(0);
    image.remove();
    const both = () => {
      attribute(document.body, "class")();
      attribute(document.documentElement, "class")();
      for (const listener of media.listeners) listener();
    };
    expect(await callsAfter(both)).toBe(1);
  });

  it("forgets a change when it is disposed of", async () => {
    const changed = vi.fn();
    const dispose = watchTheme(changed);
    for (const listener of media.listeners) listener();
    dispose();
    await vi.advanceTimersByTimeAsync(10);
    expect(changed).not.toHaveBeenCalled();
  });
});
