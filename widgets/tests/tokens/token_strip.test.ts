// @vitest-environment jsdom
import { afterEach, describe, expect, it, vi } from "vitest";
import "../page_stubs";
import type { TokenRow } from "../../src/messages";
import { TokenStrip } from "../../src/tokens/token_strip";
import { THEME, tokensOf } from "../support";

const strips: TokenStrip[] = [];

afterEach(() => {
  for (const strip of strips.splice(0)) strip.dispose();
});

function scene(by?: string) {
  const onChoose = vi.fn();
  const strip = new TokenStrip(() => THEME, by, onChoose);
  strips.push(strip);
  document.body.append(strip.element);
  const find = (selector: string) => strip.element.querySelector(selector) as HTMLElement;
  const all = (selector: string) => [...strip.element.querySelectorAll<HTMLElement>(selector)];
  const tokens = () => all(".ml-token");
  const texts = (selector: string) => all(selector).map(({ textContent }) => textContent);
  const select = find("select") as HTMLSelectElement;
  return { strip, onChoose, find, all, tokens, texts, select, more: find(".ml-tokens-more") as HTMLButtonElement };
}

const row = (
  item: number,
  role: TokenRow["role"],
  start: number,
  length: number,
  shared: number,
  title = "",
): TokenRow => ({
  ...{ item, title: title || `pair ${item + 1}`, role, start, length, shared },
});
const zeros = (count: number) => Array<number>(count).fill(0);

describe("TokenStrip", () => {
  it("has a row for each line of an item, with its label and role", () => {
    const { strip, all, texts, find } = scene();
    strip.show(tokensOf(zeros(7), { rows: [row(0, "chosen", 0, 4, 2, "<b>\n"), row(0, "rejected", 4, 3, 2)] }));
    expect(texts(".ml-tokens-title")).toEqual(["<b>↵"]);
    expect(all(".ml-tokens-row").map(({ dataset }) => dataset.role)).toEqual(["prompt", "chosen", "rejected"]);
    expect(texts(".ml-tokens-label")).toEqual(["prompt", "chosen", "rejected"]);
    expect(texts(".ml-tokens-cells")).toEqual(["ab", "cd", "g"]);
    expect([
      find("[role='grid']").getAttribute("aria-label"),
      find(".ml-tokens-item").getAttribute("aria-label"),
    ]).toEqual([...["Tokens", "<b>\n"]]);
  });

  it("says what the numbers are about, and the step if it is known", () => {
    const { strip, find } = scene();
    strip.show(tokensOf([1]));
    expect(find(".ml-tokens-about").textContent).toBe("dpo v1 · step 3");
    strip.show(tokensOf([1], { step: 0 }));
    expect(find(".ml-tokens-about").textContent).toBe("dpo v1 · step 0");
    strip.show(tokensOf([1], { step: null }));
    expect(find(".ml-tokens-about").textContent).toBe("dpo v1");
    strip.show(tokensOf([1], { about: "" }));
    expect(find(".ml-tokens-about").textContent).toBe("step 3");
  });

  it("colours by the message's column, the given one if there is such a column, or the chosen one", () => {
    const colours = (by?: string) => {
      const { strip, select, tokens, find } = scene(by);
      strip.show(tokensOf([0.5]));
      return [select.value, tokens()[0]?.getAttribute("aria-label"), find(".ml-scale-note").textContent];
    };
    expect(colours()).toEqual(["gradient", "a, gradient 0.5", "nats · blue lowers"]);
    expect(colours("weight")).toEqual(["weight", "a, weight 1", ""]);
    expect(colours("gone")).toEqual(["gradient", "a, gradient 0.5", "nats · blue lowers"]);
    const { strip, select, tokens, onChoose, find } = scene();
    strip.show(tokensOf([0.5]));
    expect([...select.options].map(({ value, text }) => [value, text])).toEqual([
      ["gradient", "gradient"],
      ["weight", "weight"],
    ]);
    select.value = "weight";
    select.dispatchEvent(new Event("change"));
    expect([tokens()[0]?.getAttribute("aria-label"), onChoose.mock.calls, find(".ml-scale-note").textContent]).toEqual([
      ...["a, weight 1", [["weight"]], ""],
    ]);
    strip.show(tokensOf([0.25]));
    expect([select.value, tokens()[0]?.getAttribute("aria-label")]).toEqual(["weight", "a, weight 1"]);
    const [column] = tokensOf([1]).columns;
    strip.show(tokensOf([0.25], { columns: [{ ...column, name: "other" } as never], by: "other" }));
    expect([[...select.options].map(({ value }) => value), select.value]).toEqual([["other"], "other"]);
  });

  it("only changes colours if the tokens are the same, and closes the tooltip", () => {
    const { strip, tokens } = scene();
    strip.show(tokensOf([0.5, 1]));
    const [first] = tokens();
    first?.focus();
    const tip = strip.element.querySelector("[role='tooltip']") as HTMLElement;
    expect(tip.hidden).toBe(false);
    strip.show(tokensOf([-0.5, 1]));
    expect([tokens()[0], first?.getAttribute("aria-label"), tip.hidden]).toEqual([first, "a, gradient −0.5", true]);
    strip.show(tokensOf([0.5, 1], { texts: ["x", "y"], ids: tokensOf([0, 0]).ids }));
    expect(tokens()[0]).toBe(first);
    strip.show(tokensOf([0.5, 1, 2]));
    expect([tokens()[0] === first, tokens().length, tokens()[0]?.tabIndex]).toEqual([false, 3, 0]);
  });

  it("draws eight items at once, and the others on request", () => {
    const rows = (count: number) => Array.from({ length: count }, (_, i) => row(i, "", i, 1, 0));
    const { strip, all, more } = scene();
    strip.show(tokensOf(zeros(19), { rows: rows(19) }));
    const state = () => [all(".ml-tokens-item").length, more.hidden, more.textContent];
    expect(state()).toEqual([8, false, "Show 8 more of 19"]);
    more.click();
    expect(state()).toEqual([16, false, "Show 3 more of 19"]);
    more.click();
    expect(state().slice(0, 2)).toEqual([19, true]);
    expect(all(".ml-token").every((cell) => cell.getAttribute("aria-label")?.includes("gradient 0"))).toBe(true);
    strip.show(tokensOf(zeros(8), { rows: rows(8) }));
    expect(state().slice(0, 2)).toEqual([8, true]);
  });

  it("draws the end of a long prompt and the start of a long completion, the rest on request", () => {
    const { strip, all, tokens, texts } = scene();
    // Without numbers the many cells have no colours, which take most of the time.
    strip.show(tokensOf(Array(161 + 602).fill(Number.NaN), { rows: [row(0, "chosen", 0, 161 + 602, 161)] }));
    const lines = () => all(".ml-tokens-cells");
    const places = (line: number) =>
      [...(lines()[line]?.children ?? [])].map((cell) => (cell as HTMLElement).dataset.place ?? cell.textContent);
    expect(texts(".ml-tokens-rest")).toEqual(["… 1 more", "… 2 more"]);
    expect([places(0).slice(0, 2), places(0).length]).toEqual([["… 1 more", "1"], 161]);
    expect([places(1).at(0), places(1).at(-2), places(1).at(-1)]).toEqual(["161", "760", "… 2 more"]);
    const [ofPrompt, ofCompletion] = all(".ml-tokens-rest");
    ofPrompt?.click();
    expect([places(0).slice(0, 2), document.activeElement]).toEqual([["0", "1"], tokens()[0]]);
    ofCompletion?.click();
    expect([places(1).slice(-3), (document.activeElement as HTMLElement).dataset.place]).toEqual([
      ["760", "761", "762"],
      "761",
    ]);
    expect(texts(".ml-tokens-rest")).toEqual([]);
    expect(tokens().at(-1)?.getAttribute("aria-label")).toContain("no number");
  });

  it("has a select only if there is more than one number", () => {
    const { strip, select } = scene();
    const [gradient] = tokensOf([1]).columns;
    strip.show(tokensOf([1]));
    expect(select.closest("label")?.hidden).toBe(false);
    strip.show(tokensOf([1], { columns: gradient ? [gradient] : [] }));
    expect(select.closest("label")?.hidden).toBe(true);
  });

  it("draws a prompt of exactly the limit whole", () => {
    const { strip, texts } = scene();
    strip.show(tokensOf(zeros(161), { rows: [row(0, "chosen", 0, 161, 160)] }));
    expect(texts(".ml-tokens-rest")).toEqual([]);
  });

  it("is silent after dispose", () => {
    const { strip, select, onChoose, more, all } = scene();
    strip.show(tokensOf(zeros(9), { rows: Array.from({ length: 9 }, (_, i) => row(i, "", i, 1, 0)) }));
    strip.dispose();
    select.dispatchEvent(new Event("change"));
    more.click();
    expect([onChoose.mock.calls, all(".ml-tokens-item").length, strip.element.isConnected]).toEqual([[], 8, false]);
    expect(document.querySelector("[role='tooltip']")).toBeNull();
  });
});
