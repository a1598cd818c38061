// @vitest-environment jsdom
import { describe, expect, it } from "vitest";
import { typeset } from "../src/controls/formula";
import { layouts } from "../src/controls/formula_lines";

const last = (formula: string) => layouts(formula).at(-1);

describe("a formula's layouts", () => {
  it("begin with one line, and go on with a line for each definition", () => {
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
    ["what is out of balance", "(a, b"],
    ["what closes too much", "a), b + c"],
    ["comments", "a % b, c"],
    ["what has too many terms", "a + ".repeat(500)],
    ["nothing", ""],
  ])("leave %s alone", (_, formula) => {
    expect(layouts(formula)).toEqual([[[formula]]]);
  });
});

describe("typeset", () => {
  const element = document.createElement("div");

  it("sets a formula as one piece of MathML", () => {
    typeset(element, String.raw`a + b,\quad c`);
    expect(element.querySelectorAll("math")).toHaveLength(1);
    expect(element.dataset.lines).toBeUndefined();
  });

  it("draws the stroke over several letters as wide as they are", () => {
    typeset(element, String.raw`\overline{\log p} + \bar s`);
    expect([...element.querySelectorAll(".ml-overlined")].map((over) => over.textContent)).toEqual([
      "log\u2061p\u203e",
    ]);
  });

  it("shows as text what is no LaTeX, and what would lead out of the page stays out", () => {
    typeset(element, String.raw`\frac{`);
    expect(element.textContent).toBe(String.raw`\frac{`);
    expect(element.dataset.lines).toBe("text");
    typeset(element, String.raw`\href{javascript:window.hacked=1}{x}, \htmlData{a=b}{y}, \includegraphics{x.png}`);
    expect(element.querySelector("a, img, [data-a]")).toBeNull();
    typeset(element, "");
    expect(element.childNodes).toHaveLength(0);
    expect(element.dataset.lines).toBeUndefined();
  });
});
