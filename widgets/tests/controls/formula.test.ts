// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { fitFormula, layouts, typeset } from "../../src/controls/formula";

const last = (formula: string) => layouts(formula).at(-1);

describe("a formula's layouts", () => {
  it("start with one line, then have a line for each definition", () => {
    const dpo = String.raw`-\tfrac1n \sum \log \sigma\left(\beta\,(h_c - h_r)\right),\quad h = s - s_{ref}`;
    expect(layouts(dpo)).toEqual([
      [[dpo]],
      [[String.raw`-\tfrac1n \sum \log \sigma\left(\beta\,(h_c - h_r)\right),`], ["h = s - s_{ref}"]],
      [[String.raw`-\tfrac1n \sum \log \sigma\left(\beta\,(h_c - h_r)\right),`], ["h = s", "{}- s_{ref}"]],
    ]);
  });

  it("end with the terms of its sums", () => {
    const kto = String.raw`\tfrac1n \sum \lambda_+\left(1 - \sigma(x)\right) + \lambda_-\left(1 - y\right), z = \max(0, h)`;
    expect(last(kto)).toEqual([
      [String.raw`\tfrac1n \sum \lambda_+\left(1 - \sigma(x)\right)`, String.raw`{}+ \lambda_-\left(1 - y\right),`],
      [String.raw`z = \max(0, h)`],
    ]);
  });

  it.each([
    ["signs", "-a = -b"],
    ["a sign after an operator with an index", String.raw`\sum_t -\min(r_t A_t, b)`],
    ["commas and sums in brackets", String.raw`f(a, b + c)^{d, e + f}\left[a, b\right]`],
    ["signs in an index", String.raw`\lambda_+ x^-`],
    ["infix commands", String.raw`a + b \over c, d`],
    ["environments", String.raw`\begin{matrix} a, b \end{matrix}, c`],
    ["an unclosed bracket", "(a, b"],
    ["an unopened bracket", "a), b + c"],
    ["comments", "a % b, c"],
    ["too many terms", "a + ".repeat(500)],
    ["an empty formula", ""],
  ])("do not break %s", (_, formula) => {
    expect(layouts(formula)).toEqual([[[formula]]]);
  });
});

describe("typeset", () => {
  const element = document.createElement("div");

  it("writes a formula as one MathML element", () => {
    typeset(element, String.raw`a + b,\quad c`);
    expect(element.querySelectorAll("math")).toHaveLength(1);
    expect(element.dataset.lines).toBeUndefined();
  });

  it("marks an overline over several letters, which the style sheet draws", () => {
    typeset(element, String.raw`\overline{\log p} + \bar s`);
    expect([...element.querySelectorAll(".ml-overlined")].map((over) => over.textContent)).toEqual([
      "log\u2061p\u203e",
    ]);
  });

  it("shows invalid LaTeX as text, and removes links and images", () => {
    typeset(element, String.raw`\frac{`);
    expect(element.textContent).toBe(String.raw`\frac{`);
    expect(element.dataset.lines).toBe("text");
    typeset(element, String.raw`\href{javascript:window.hacked=1}{x}, \htmlData{a=b}{y}, \includegraphics{x.png}`);
    expect(element.querySelector("a, img, mglyph, [href], [src], [data-a]")).toBeNull();
    expect(element.querySelector("math")).not.toBeNull();
    typeset(element, "");
    expect(element.childNodes).toHaveLength(0);
    expect(element.dataset.lines).toBeUndefined();
  });
});

describe("breaks", () => {
  it.each([
    ["a, b", [["a,"], ["b"]]],
    ["a + b - c", [["a", "{}+ b", "{}- c"]]],
    ["a = - b + c", [["a = - b", "{}+ c"]]],
    ["a^2 + b_+ - c", [["a^2", "{}+ b_+", "{}- c"]]],
    [String.raw`\{a, b\} + c`, [[String.raw`\{a, b\}`, "{}+ c"]]],
    [String.raw`\langle a, b \rangle - c`, [[String.raw`\langle a, b \rangle`, "{}- c"]]],
    [String.raw`\left. a, b \right| + c`, [[String.raw`\left. a, b \right|`, "{}+ c"]]],
    [String.raw`a,\quad b`, [["a,"], ["b"]]],
    ["a,~ b", [["a,"], ["b"]]],
    ["a * -b + c", [["a * -b", "{}+ c"]]],
  ])("of %s are %j", (formula, expected) => {
    expect(last(formula)).toEqual(expected);
  });

  it("are at most forty", () => {
    const sum = (terms: number) => Array(terms).fill("a").join(" + ");
    expect(last(sum(40))?.[0]).toHaveLength(40);
    expect(layouts(sum(41))).toHaveLength(1);
  });

  it.each(["a & b, c", "$a, b", "a + b [, c", String.raw`a, b \\ c`])("are none in %s", (formula) => {
    expect(layouts(formula)).toEqual([[[formula]]]);
  });
});

describe("fitFormula", () => {
  /** Width of the element, width of a letter, and size of the text around a formula of 20 px. */
  let widthPx = 100;
  let letterPx = 50;
  let textPx = 20;

  beforeEach(() => {
    [widthPx, letterPx, textPx] = [100, 50, 20];
    vi.spyOn(HTMLElement.prototype, "clientWidth", "get").mockImplementation(() => widthPx);
    vi.spyOn(HTMLElement.prototype, "scrollWidth", "get").mockImplementation(function (this: HTMLElement) {
      return letterPx * (this.querySelector("annotation")?.textContent?.match(/[abc]/g)?.length ?? 0);
    });
    vi.spyOn(globalThis, "getComputedStyle").mockImplementation(
      (element) => ({ fontSize: element.className === "ml-math" ? "20px" : `${textPx}px` }) as CSSStyleDeclaration,
    );
  });
  afterEach(() => {
    vi.restoreAllMocks();
  });

  function fitted(formula: string) {
    const element = document.createElement("div");
    typeset(element, formula);
    fitFormula(element);
    const math = element.firstElementChild as HTMLElement | null;
    return { element, math, state: () => [element.dataset.lines, math?.style.fontSize] };
  }

  it("keeps one line that fits, and makes it smaller as far as it stays legible", () => {
    letterPx = 98;
    expect(fitted("a").state()).toEqual(["0", ""]);
    letterPx = 122.5;
    expect(fitted("a").state()).toEqual(["0", "0.8em"]); // 0.98 * 100 / 122.5
    letterPx = 140;
    expect(fitted("a").state()).toEqual(["0", "0.75em"]); // 0.7 is too small: it can be scrolled
  });

  it("breaks after commas first, then before signs", () => {
    letterPx = 49;
    expect(fitted("a, b").state()).toEqual(["0", ""]);
    letterPx = 70;
    expect(fitted("a, b").state()).toEqual(["1", ""]);
    expect(fitted("a + b").state()).toEqual(["1", ""]);
    expect(fitted("a + b, c").state()).toEqual(["2", ""]);
    letterPx = 200;
    expect(fitted("a, b").state()).toEqual(["1", "0.75em"]);
  });

  it("keeps a line at exactly the smallest legible size, relative to the text around it", () => {
    letterPx = 98 / 0.75 / 2;
    expect(fitted("a, b").state()).toEqual(["0", "0.75em"]);
    letterPx = 70;
    textPx = 10; // the formula is twice as large as the text, so it may shrink to three eighths
    expect(fitted("a, b").state()).toEqual(["0", "1.4em"]);
  });

  it("fits again only if the width or the text size changed", () => {
    letterPx = 70;
    const { element, state } = fitted("a, b");
    letterPx = 20;
    fitFormula(element);
    expect(state()[0]).toBe("1");
    widthPx = 101;
    fitFormula(element);
    expect(state()[0]).toBe("0");
    letterPx = 70;
    textPx = 19;
    fitFormula(element);
    expect(state()[0]).toBe("1");
    typeset(element, "a");
    fitFormula(element);
    expect(state()[0]).toBe("0");
  });

  it("leaves invalid LaTeX, an empty formula and an element without a width as they are", () => {
    expect(fitted(String.raw`\frac{`).state()).toEqual(["text", ""]);
    expect(fitted("").math).toBeNull();
    widthPx = 0;
    expect(fitted("a, b").state()[0]).toBeUndefined();
    const plain = document.createElement("div");
    plain.append(document.createElement("b"));
    widthPx = 100;
    fitFormula(plain);
    expect(plain.dataset.lines).toBeUndefined();
  });
});
