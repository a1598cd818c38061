/**
 * Formulas as MathML: in one line if it fits, else broken into lines, never truncated. A formula may come from a person's
 * own cell.
 *
 * The line breaks follow from the text alone. A formula whose structure is unclear stays in one piece.
 */

import katex from "katex";
import { h, setAttributes, setText } from "../lib/dom";

/** Smallest font size of a formula, relative to the text around it. */
const MIN_SIZE_EM = 0.75;

interface Typeset {
  latex: string;
  /** Width and text size of the last fit. */
  fittedTo: string;
}

const typesetFormulas = new WeakMap<HTMLElement, Typeset>();

/** Write a formula as MathML, which needs no fonts and no style sheet of KaTeX. Invalid LaTeX is written as text. */
export function typeset(element: HTMLElement, latex: string): void {
  typesetFormulas.set(element, { latex, fittedTo: "" });
  element.replaceChildren();
  setAttributes(element, { "data-lines": null });
  if (!latex) return;
  const math = h("span", { class: "ml-math" });
  element.append(math);
  if (!render(math, [[latex]])) {
    setText(math, latex);
    setAttributes(element, { "data-lines": "text" });
  }
}

/**
 * Choose the first layout that fits at a legible size, as large as possible. If none fits, the narrowest one can be
 * scrolled from its start.
 */
export function fitFormula(element: HTMLElement): void {
  const math = element.firstElementChild as HTMLElement | null;
  const formula = typesetFormulas.get(element);
  const widthPx = element.clientWidth;
  if (!math || !formula || widthPx === 0 || element.dataset.lines === "text") return;
  const textSizePx = Number.parseFloat(getComputedStyle(element).fontSize);
  const fittedTo = `${widthPx} ${textSizePx}`;
  if (formula.fittedTo === fittedTo) return; // only the height changed, which fitting itself does
  formula.fittedTo = fittedTo;
  math.style.fontSize = "";
  const sizeEm = Number.parseFloat(getComputedStyle(math).fontSize) / textSizePx;
  for (const [i, lines] of layouts(formula.latex).entries()) {
    // A part may be no valid formula because it was broken at a wrong place: keep the layout before.
    if (!render(math, lines)) return;
    setAttributes(element, { "data-lines": String(i) });
    math.style.fontSize = "";
    const maxSizeEm = (0.98 * sizeEm * widthPx) / widestTermPx(math);
    if (maxSizeEm < sizeEm) math.style.fontSize = `${Math.max(MIN_SIZE_EM, maxSizeEm)}em`;
    if (maxSizeEm >= MIN_SIZE_EM) return;
  }
}

function widestTermPx(math: HTMLElement): number {
  const terms = [...math.querySelectorAll<HTMLElement>(".ml-term")];
  return Math.max(1, ...terms.map((term) => Math.max(term.scrollWidth, term.offsetWidth)));
}

/** Write a formula into `math`, each term separately. Returns false and changes nothing if KaTeX refuses a term. */
function render(math: HTMLElement, lines: Lines): boolean {
  try {
    const elements = lines.map((terms) => h("span", { class: "ml-math-line" }, ...terms.map(renderTerm)));
    math.replaceChildren(...elements);
    return true;
  } catch {
    return false;
  }
}

function renderTerm(latex: string): HTMLElement {
  const element = h("span", { class: "ml-term" });
  katex.render(latex, element, { output: "mathml", displayMode: true, throwOnError: true, trust: false });
  // Without a font for mathematics, an overline is only as wide as one letter, and over a minus it looks like "=". The
  // style sheet draws it as a border.
  for (const stroke of element.querySelectorAll("mover > mo[stretchy='true']")) {
    if (stroke.textContent === "\u203e") stroke.parentElement?.classList.add("ml-overlined");
  }
  return element;
}

/** One layout: its lines, and for each line the terms between which it may be broken further. */
export type Lines = string[][];

interface Break {
  index: number;
  isComma: boolean;
}

/** A formula of more terms stays in one line: KaTeX takes time for each term. */
const MAX_TERMS = 40;

const TOKEN = /\\[a-zA-Z]+|\\[\s\S]|\s+|[\s\S]/gu;
/** Commands that affect more than their arguments: a formula with one of them changes its meaning if it is split. */
const UNSPLITTABLE =
  /^\\(over|above|atop|choose|brace|brack|begin|end|def|gdef|edef|xdef|let|global|newcommand|renewcommand|providecommand|color|verb|middle|tag|[\\&])$/;
const SPACE = /^(\s+|~|\\([,:;!> ]|quad|qquad|enspace|thinspace|space))$/;
const OPENING = /^([([{]|\\(\{|l(angle|brace|brack|ceil|floor|group|vert|Vert)))$/;
const CLOSING = /^([)\]}]|\\(\}|r(angle|brace|brack|ceil|floor|group|vert|Vert)))$/;
/** After these, a plus or minus is a sign: operators that take an operand, and relations. */
const BEFORE_SIGN =
  /^([-+*/=<>:,;|]|\\(sum|prod|i?int|log|ln|exp|min|max|sup|inf|lim|cdot|times|pm|mp|le|leq|ge|geq|ne|neq|approx|sim|equiv|propto|in|to|mid|mathbb|operatorname))$/;

/** The ways to break a formula, from one line to the most lines; each is narrower than the one before. */
export function layouts(formula: string): Lines[] {
  const result: Lines[] = [[[formula]]];
  const breaks = breaksOf(formula);
  if (breaks.length >= MAX_TERMS) return result;
  const lines = splitAt(
    formula,
    breaks.filter(({ isComma }) => isComma),
  );
  if (lines.length > 1) result.push(lines.map((line) => [line]));
  const terms = lines.map((line) =>
    splitAt(
      line,
      breaksOf(line).filter(({ isComma }) => !isComma),
    ),
  );
  // An empty group in front keeps the space around the sign at the start of a term.
  if (terms.some((line) => line.length > 1)) {
    result.push(terms.map(([first, ...others]) => [first as string, ...others.map((term) => `{}${term}`)]));
  }
  return result;
}

/** The text between the breaks, without surrounding space. */
function splitAt(formula: string, breaks: Break[]): string[] {
  const bounds = [0, ...breaks.map(({ index }) => index), formula.length];
  const parts = bounds.slice(1).map((end, i) => withoutSpace(formula.slice(bounds[i], end)));
  return parts.filter((part) => part !== "");
}

function withoutSpace(part: string): string {
  const tokens = part.match(TOKEN) ?? [];
  while (tokens.length > 0 && SPACE.test(tokens[0] as string)) tokens.shift();
  return tokens.join("").trimEnd();
}

/**
 * Where a formula may be broken: after each comma and before each binary plus or minus, outside of all brackets. Nowhere
 * if brackets do not match.
 */
function breaksOf(formula: string): Break[] {
  const breaks: Break[] = [];
  const tokens = formula.match(TOKEN) ?? [];
  let end = 0;
  let depth = 0;
  // Whether an operand precedes, so that a plus or minus is binary. An index or exponent does not change that.
  let followsOperand = false;
  let isScript = false;
  // Whether the next token is the bracket that belongs to \left or \right.
  let isDelimiter = false;
  for (const token of tokens) {
    const start = end;
    end += token.length;
    if (SPACE.test(token)) continue;
    if (token === "%" || token === "&" || token === "$" || UNSPLITTABLE.test(token)) return [];
    if (isDelimiter) {
      isDelimiter = false;
      continue;
    }
    const [opens, closes] = [OPENING.test(token) || token === "\\left", CLOSING.test(token) || token === "\\right"];
    isDelimiter = token === "\\left" || token === "\\right";
    if (opens) depth += 1;
    else if (closes) depth -= 1;
    if (depth < 0) return [];
    if (depth > 0) continue;
    if (token === "_" || token === "^") {
      isScript = true;
      continue;
    }
    if (isScript) {
      isScript = false;
      continue;
    }
    if (token === ",") breaks.push({ index: end, isComma: true });
    else if (followsOperand && (token === "+" || token === "-")) breaks.push({ index: start, isComma: false });
    followsOperand = !BEFORE_SIGN.test(token);
  }
  return depth === 0 ? breaks : [];
}
