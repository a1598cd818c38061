// @vitest-environment jsdom
import { describe, expect, it } from "vitest";
import { layouts, typeset } from "../../src/controls/formula";

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
    expect(element.querySelector("a, img, [data-a]")).toBeNull();
    typeset(element, "");
    expect(element.childNodes).toHaveLength(0);
    expect(element.dataset.lines).toBeUndefined();
  });
});
