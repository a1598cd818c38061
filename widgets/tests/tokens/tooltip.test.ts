// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { TokenTable } from "../../src/tokens/token_table";
import { Tooltip } from "../../src/tokens/tooltip";
import { openPopovers } from "../page_stubs";
import { float32Buffer, int32Buffer, tokensOf } from "../support";

type Box = { left: number; top: number; bottom: number; width: number; height: number };
const box = (left: number, top: number, width: number, height: number): Box => ({
  ...{ left, top, bottom: top + height, width, height },
});

const boxes = new Map<Element, Box>();
let tooltip: Tooltip;
let cell: HTMLElement;
let item: HTMLElement;

beforeEach(() => {
  boxes.clear();
  vi.spyOn(Element.prototype, "getBoundingClientRect").mockImplementation(function (this: Element) {
    return (boxes.get(this) ?? box(0, 0, 0, 0)) as DOMRect;
  });
  vi.stubGlobal("innerWidth", 1000);
  vi.stubGlobal("innerHeight", 600);
  tooltip = new Tooltip();
  cell = document.createElement("bdi");
  item = document.createElement("div");
  item.className = "ml-tokens-item";
  item.append(cell);
  document.body.append(item, tooltip.element);
  boxes.set(tooltip.element, box(0, 0, 200, 100));
  boxes.set(cell, box(300, 200, 30, 20));
  boxes.set(item, box(0, 150, 900, 300));
});
afterEach(() => {
  tooltip.dispose();
  document.body.replaceChildren();
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
});

const show = (tokens = tokensOf([0.5, -1]), index = 1, by = 0) => tooltip.show(cell, new TokenTable(tokens), index, by);
const parts = () => [...tooltip.element.children].map((part) => `${part.localName}: ${part.textContent}`);
const place = () => [tooltip.element.style.left, tooltip.element.style.top];

describe("the text of the tooltip", () => {
  it("has every number with its unit, and emphasizes the column that colours", () => {
    show();
    expect(parts()).toEqual(["bdi: b", "span: token 101", "dl: gradient−1natsweight1"]);
    const classes = () => [...tooltip.element.querySelectorAll("dt, dd")].map(({ className }) => className);
    expect(classes()).toEqual(["ml-tip-by", "ml-tip-by", "ml-tip-unit", "", "", "ml-tip-unit"]);
    show(undefined, 0, 1);
    expect(parts()[2]).toBe("dl: gradient0.5natsweight1");
    expect(classes()).toEqual(["", "", "ml-tip-unit", "ml-tip-by", "ml-tip-by", "ml-tip-unit"]);
  });

  it("spells the token as text", () => {
    show(tokensOf([1, 1], { texts: ["", " <b>\n"] }));
    expect(parts()[0]).toBe("bdi: ␣<b>↵");
  });

  it("leaves out numbers that a token does not have, and says why the first one has none", () => {
    show(tokensOf([1, Number.NaN]));
    expect(parts()).toEqual(["bdi: b", "span: token 101", "dl: weight1"]);
    const nothing = tokensOf([Number.NaN], { values: float32Buffer([Number.NaN, Number.NaN]) });
    show(nothing, 0);
    expect(parts()).toEqual(["bdi: a", "span: token 100 · the first token: nothing predicts it", "dl: "]);
  });

  it("says that a token does not count", () => {
    show(tokensOf([1, 1], { values: float32Buffer([1, 1, 1, 0]) }));
    expect(parts()[1]).toBe("span: token 101 · does not count");
  });

  it("says that a token without an id is clipped, and nothing if it is not", () => {
    const columns = [{ name: "clipped", unit: "", note: "", scale: "sequential" as const, low: 0, high: 1 }];
    const tokens = (clipped: number, id: number) =>
      tokensOf([clipped, clipped], { columns, ids: int32Buffer([0, id]), values: float32Buffer([clipped, clipped]) });
    show(tokens(1, -1));
    expect(parts()).toEqual(["bdi: b", "span: clipped", "dl: clipped1"]);
    show(tokens(0, -1));
    expect(parts()).toEqual(["bdi: b", "dl: clipped0"]);
    show(tokens(1, 0));
    expect(parts()[1]).toBe("span: token 0");
  });
});

describe("the place of the tooltip", () => {
  it("is below the token of a long item", () => {
    show();
    expect(place()).toEqual(["300px", "226px"]); // 220, the bottom of the token, and a gap of 6
  });

  it("is below an item that ends within 90 pixels", () => {
    boxes.set(item, box(0, 150, 900, 159)); // 309, which is 89 below the token
    show();
    expect(place()).toEqual(["300px", "307px"]); // 309 - 8 + 6
    boxes.set(item, box(0, 150, 900, 160));
    show();
    expect(place()).toEqual(["300px", "226px"]);
    boxes.set(item, box(0, 150, 900, 71)); // the item ends 1 below the token
    show();
    expect(place()).toEqual(["300px", "226px"]);
  });

  it("is below the token where there is no item", () => {
    document.body.append(cell);
    show();
    expect(place()).toEqual(["300px", "226px"]);
  });

  it("is above the token without room below, and in the window", () => {
    boxes.set(cell, box(300, 466, 30, 20)); // 486 + 6 + 100 = 592 = 600 - 8: it fits exactly
    show();
    expect(place()[1]).toBe("492px");
    boxes.set(cell, box(300, 467, 30, 20));
    show();
    expect(place()[1]).toBe("361px"); // 467 - 6 - 100
    boxes.set(tooltip.element, box(0, 0, 200, 500));
    show();
    expect(place()[1]).toBe("8px");
  });

  it("is inside the window at both sides", () => {
    boxes.set(cell, box(950, 200, 30, 20));
    show();
    expect(place()[0]).toBe("792px"); // 1000 - 200 - 8
    boxes.set(cell, box(3, 200, 30, 20));
    show();
    expect(place()[0]).toBe("8px");
  });
});

describe("the tooltip", () => {
  it("is hidden at first, in the top layer while it is open, and has an id of its own", () => {
    expect([tooltip.isOpen, tooltip.element.getAttribute("role")]).toEqual([false, "tooltip"]);
    show();
    expect([tooltip.isOpen, openPopovers.has(tooltip.element)]).toEqual([true, true]);
    tooltip.hide();
    expect([tooltip.isOpen, openPopovers.has(tooltip.element)]).toEqual([false, false]);
    tooltip.hide();
    expect(tooltip.isOpen).toBe(false);
    const other = new Tooltip();
    expect(other.id).not.toBe(tooltip.id);
    expect([other.element.id, tooltip.element.getAttribute("popover")]).toEqual([other.id, "manual"]);
    other.dispose();
  });

  it("hides when its token is scrolled away by more than 2 pixels", () => {
    show();
    const scroll = () => document.body.dispatchEvent(new Event("scroll"));
    boxes.set(cell, box(299, 201, 30, 20));
    scroll();
    expect(tooltip.isOpen).toBe(true);
    boxes.set(cell, box(300, 197, 30, 20));
    scroll();
    expect(tooltip.isOpen).toBe(false);
    show();
    boxes.set(cell, box(303, 197, 30, 20));
    scroll();
    expect(tooltip.isOpen).toBe(false);
    show();
    tooltip.dispose();
    boxes.set(cell, box(0, 0, 30, 20));
    scroll();
    expect([tooltip.isOpen, tooltip.element.isConnected]).toEqual([true, false]);
  });

  it("keeps clicks to itself", () => {
    const onClick = vi.fn();
    document.body.addEventListener("click", onClick);
    tooltip.element.click();
    expect(onClick).not.toHaveBeenCalled();
    item.click();
    expect(onClick).toHaveBeenCalledTimes(1);
    document.body.removeEventListener("click", onClick);
  });
});
