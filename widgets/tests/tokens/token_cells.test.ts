// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Tokens } from "../../src/messages";
import { colourAt, css, inkOn } from "../../src/tokens/colour";
import { TokenCells } from "../../src/tokens/token_cells";
import { TokenTable } from "../../src/tokens/token_table";
import { media, openPopovers } from "../page_stubs";
import { float32Buffer, THEME, tokensOf } from "../support";

let theme = THEME;
const disposers: (() => void)[] = [];

beforeEach(() => {
  theme = THEME;
});
afterEach(() => {
  for (const dispose of disposers.splice(0)) dispose();
  document.body.replaceChildren();
  vi.restoreAllMocks();
  vi.useRealTimers();
});

function scene(
  tokens: Tokens = tokensOf([0.5, -1, 0, 2]),
  rows = [
    [0, 2],
    [2, 4],
  ],
) {
  const root = document.createElement("div");
  const onThemeChange = vi.fn();
  const cells = new TokenCells(root, () => theme, onThemeChange);
  document.body.append(root, cells.tooltip.element);
  cells.table = new TokenTable(tokens);
  cells.by = "gradient";
  for (const [start, end] of rows as [number, number][]) {
    const row = document.createElement("div");
    row.append(...cells.create(start, end));
    root.append(row);
  }
  cells.paint();
  cells.makeOneReachable();
  const all = () => [...root.querySelectorAll<HTMLElement>(".ml-token")];
  const at = (index: number) => all()[index] as HTMLElement;
  const key = (from: number, name: string, change: KeyboardEventInit = {}) => {
    const event = new KeyboardEvent("keydown", { key: name, bubbles: true, cancelable: true, ...change });
    at(from).dispatchEvent(event);
    return { moved: event.defaultPrevented, focused: all().indexOf(document.activeElement as HTMLElement) };
  };
  disposers.push(() => cells.dispose());
  return { root, cells, onThemeChange, all, at, key };
}

const labels = (all: HTMLElement[]) => all.map((cell) => cell.getAttribute("aria-label"));

describe("the cells of tokens", () => {
  it("have text, place and role, and are not reachable by themselves", () => {
    const { cells } = scene();
    const created = cells.create(1, 3);
    expect(
      created.map((cell) => [cell.localName, cell.className, cell.textContent, cell.dataset.place, cell.tabIndex]),
    ).toEqual([
      ["bdi", "ml-token", "b", "1", -1],
      ["bdi", "ml-token", "c", "2", -1],
    ]);
    expect(created[0]?.getAttribute("role")).toBe("gridcell");
    expect(cells.create(2, 2)).toEqual([]);
  });

  it("show their text, made visible and truncated", () => {
    const { all } = scene(tokensOf([1, 1], { texts: ["\n<b>", "w".repeat(50)] }), [[0, 2]]);
    expect(all().map(({ textContent }) => textContent)).toEqual(["↵<b>", `${"w".repeat(32)}…`]);
  });

  it("have the colour of their number, and a legible text", () => {
    const { all } = scene();
    const style = (position: number, dark: boolean) => {
      const colour = colourAt(position, "diverging", dark);
      return [css(colour), css(inkOn(colour, dark))];
    };
    const drawn = () =>
      all().map((cell) => [cell.style.background, cell.style.color].map((text) => text.replaceAll(" ", "")));
    expect(drawn()).toEqual([0.5, -1, 0, 1].map((position) => style(position, false)));
    expect(labels(all())).toEqual(["a, gradient 0.5", "b, gradient −1", "c, gradient 0", "d, gradient 2"]);
  });

  it("have the colours of a dark page", () => {
    const { all, cells } = scene();
    theme = { ...THEME, dark: true };
    cells.paint();
    expect(all()[1]?.style.background.replaceAll(" ", "")).toBe(css(colourAt(-1, "diverging", true)));
  });

  it("have no colour if the loss does not count them, except for a gradient that must be 0", () => {
    // Weights 0, 0 and nan; the gradient at the second one is an error of the loss.
    const values = float32Buffer([0, 0.5, Number.NaN, 0, 0, Number.NaN]);
    const { all, cells } = scene(tokensOf([0, 0, 0], { values }), [[0, 3]]);
    const coloured = () => all().map((cell) => cell.style.background !== "");
    expect(coloured()).toEqual([false, true, false]);
    expect(all().map((cell) => cell.classList.contains("ml-token-off"))).toEqual([true, true, true]);
    expect(labels(all())).toEqual([
      "a, gradient 0, does not count",
      "b, gradient 0.5, does not count",
      "c, no number, does not count",
    ]);
    cells.by = "weight";
    cells.paint();
    expect(coloured()).toEqual([false, false, false]);
    expect(cells.column?.name).toBe("weight");
  });

  it("mark the tokens that the loss clips", () => {
    const columns = ["ratio", "clipped"].map((name) => ({
      ...{ name, unit: "", note: "", scale: "ratio" as const, low: 0.5, high: 2 },
    }));
    const { all } = scene(tokensOf([1, 2], { columns, values: float32Buffer([1, 2, 0, 1]) }), [[0, 2]]);
    expect(all().map((cell) => cell.classList.contains("ml-token-clipped"))).toEqual([false, true]);
    expect(labels(all())).toEqual(["a, ratio 1", "b, ratio 2, clipped"]);
  });

  it("are painted within one part only if asked, and not without tokens", () => {
    const { cells, root, all } = scene();
    cells.by = "weight";
    cells.paint(root.lastElementChild as HTMLElement);
    expect(labels(all())).toEqual(["a, gradient 0.5", "b, gradient −1", "c, weight 1", "d, weight 1"]);
    cells.table = null;
    cells.paint();
    expect([cells.column, labels(all())[0]]).toEqual([undefined, "a, gradient 0.5"]);
  });

  it("are painted again when the theme changes, until dispose", () => {
    vi.useFakeTimers();
    const { onThemeChange, cells } = scene();
    for (const listener of media.listeners) listener();
    vi.runAllTimers();
    expect(onThemeChange).toHaveBeenCalledTimes(1);
    cells.dispose();
    expect(media.listeners.size).toBe(0);
  });
});

describe("the tab key", () => {
  const tabIndices = (all: HTMLElement[]) => all.map(({ tabIndex }) => tabIndex);

  it("reaches exactly one token, the last focused one", () => {
    const { all, at, cells } = scene();
    expect(tabIndices(all())).toEqual([0, -1, -1, -1]);
    expect([at(0).getAttribute("aria-describedby"), at(0).dataset.lmSuppressShortcuts]).toEqual([
      cells.tooltip.id,
      "true",
    ]);
    at(2).focus();
    expect(tabIndices(all())).toEqual([-1, -1, 0, -1]);
    expect([at(0).getAttribute("aria-describedby"), at(2).getAttribute("aria-describedby")]).toEqual([
      null,
      cells.tooltip.id,
    ]);
    cells.makeOneReachable();
    expect(tabIndices(all())).toEqual([-1, -1, 0, -1]);
  });

  it("reaches the first token again after the cells were replaced", () => {
    const { all, at, cells, root } = scene();
    at(2).focus();
    cells.reset();
    expect(cells.tooltip.isOpen).toBe(false);
    root.replaceChildren(...cells.create(0, 2));
    cells.makeOneReachable();
    expect(tabIndices(all())).toEqual([0, -1]);
  });
});

describe("the keys of a token", () => {
  it("move the focus by one token, and not beyond the ends", () => {
    const { key } = scene();
    expect([key(0, "ArrowRight"), key(1, "ArrowRight"), key(3, "ArrowRight")].map(({ focused }) => focused)).toEqual([
      1, 2, 3,
    ]);
    expect([key(2, "ArrowLeft"), key(0, "ArrowLeft")].map(({ focused }) => focused)).toEqual([1, 0]);
  });

  it("move it to the ends of a row", () => {
    const { key } = scene(undefined, [
      [0, 3],
      [3, 4],
    ]);
    expect([key(1, "Home"), key(1, "End"), key(3, "Home"), key(3, "End")].map(({ focused }) => focused)).toEqual([
      0, 2, 3, 3,
    ]);
  });

  it("move it to the nearest token of the next or previous line", () => {
    const { key, at } = scene(tokensOf([0, 0, 0, 0, 0]), [[0, 5]]);
    const places = [
      [0, 0],
      [40, 0],
      [0, 20],
      [30, 20],
      [70, 20],
    ] as const;
    places.forEach(([left, top], i) => {
      Object.defineProperties(at(i), {
        offsetLeft: { value: left },
        offsetTop: { value: top },
        offsetWidth: { value: 20 },
      });
    });
    expect(
      [key(0, "ArrowDown"), key(1, "ArrowDown"), key(4, "ArrowUp"), key(2, "ArrowUp"), key(3, "ArrowUp")].map(
        ({ focused }) => focused,
      ),
    ).toEqual([...[2, 3, 1, 0, 1]]);
    expect([key(1, "ArrowUp"), key(4, "ArrowDown"), key(3, "ArrowDown")].map(({ focused }) => focused)).toEqual([
      1, 4, 3,
    ]);
  });

  it("measure from the middle of a token", () => {
    const { key, at } = scene(tokensOf([0, 0, 0]), [[0, 3]]);
    const places = [
      [0, 0, 100],
      [0, 20, 10],
      [60, 20, 10],
    ] as const;
    places.forEach(([left, top, width], i) => {
      Object.defineProperties(at(i), {
        offsetLeft: { value: left },
        offsetTop: { value: top },
        offsetWidth: { value: width },
      });
    });
    expect(key(0, "ArrowDown").focused).toBe(2); // 50 is 15 from the middle of the third token, 45 from the second
  });

  it("keep the page from scrolling, and leave other keys to it", () => {
    const { key, at, root } = scene();
    at(1).focus();
    const onKey = vi.fn();
    document.body.addEventListener("keydown", onKey);
    expect(key(1, "ArrowRight").moved).toBe(true);
    expect(onKey).not.toHaveBeenCalled();
    for (const modifier of ["ctrlKey", "metaKey", "altKey"])
      expect(key(1, "ArrowRight", { [modifier]: true }).moved).toBe(false);
    expect([key(1, "a").moved, onKey.mock.calls.length]).toEqual([false, 4]);
    root.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
    expect(onKey).toHaveBeenCalledTimes(5);
    document.body.removeEventListener("keydown", onKey);
  });

  it("close the tooltip first", () => {
    const { key, at, cells } = scene();
    const onKey = vi.fn();
    document.body.addEventListener("keydown", onKey);
    at(1).focus();
    key(1, "Escape");
    expect([cells.tooltip.isOpen, onKey.mock.calls.length]).toEqual([false, 0]);
    key(1, "Escape");
    expect(onKey).toHaveBeenCalledTimes(1);
    document.body.removeEventListener("keydown", onKey);
  });
});

describe("the tooltip of a token", () => {
  const text = ({ cells }: { cells: TokenCells }) =>
    cells.tooltip.isOpen ? cells.tooltip.element.querySelector("bdi")?.textContent : null;

  it("opens under the pointer and with the focus, and closes when both leave", () => {
    const one = scene();
    const { at, root } = one;
    at(1).dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
    expect(text(one)).toBe("b");
    root.dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
    expect(text(one)).toBe("b");
    root.dispatchEvent(new MouseEvent("mouseleave", { relatedTarget: document.body }));
    expect(text(one)).toBeNull();
    at(2).focus();
    expect(text(one)).toBe("c");
    at(2).blur();
    expect([text(one), openPopovers.has(one.cells.tooltip.element)]).toEqual([null, false]);
  });

  it("emphasizes the column that colours", () => {
    const { cells, at } = scene();
    cells.by = "weight";
    at(1).focus();
    expect([...cells.tooltip.element.querySelectorAll("dt.ml-tip-by")].map(({ textContent }) => textContent)).toEqual([
      "weight",
    ]);
  });

  it("stays open while the pointer is in it", () => {
    const one = scene();
    const { at, root, cells } = one;
    const { element } = cells.tooltip;
    at(1).dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
    root.dispatchEvent(new MouseEvent("mouseleave", { relatedTarget: element.querySelector("dl") }));
    expect(text(one)).toBe("b");
    element.dispatchEvent(new MouseEvent("mouseleave", { relatedTarget: at(0) }));
    expect(text(one)).toBe("b");
    element.dispatchEvent(new MouseEvent("mouseleave", { relatedTarget: null }));
    expect(text(one)).toBeNull();
  });

  it("does not open without tokens, nor after dispose", () => {
    const one = scene();
    const { at, cells, root } = one;
    cells.table = null;
    at(1).focus();
    expect(text(one)).toBeNull();
    cells.table = new TokenTable(tokensOf([1]));
    cells.dispose();
    root.querySelector("bdi")?.dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
    expect([text(one), cells.tooltip.element.isConnected]).toEqual([null, false]);
  });
});
