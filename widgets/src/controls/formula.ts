/** How a formula is set: whole where it fits, else in lines, and never cut off. It may come from a person's own cell. */

import katex from "katex";
import { h, setAttributes, setText } from "../dom";
import { type Lines, layouts } from "./formula_lines";

/** Smaller than this it cannot be read, em of the text around it. */
const LEGIBLE = 0.75;

interface Typeset {
  latex: string;
  /** The room and text size that it was fitted to last. */
  fitted: string;
}

const shown = new WeakMap<HTMLElement, Typeset>();

/** MathML, which needs no fonts and no style sheet of KaTeX's. Text where it is no LaTeX. */
export function typeset(element: HTMLElement, latex: string): void {
  shown.set(element, { latex, fitted: "" });
  element.replaceChildren();
  setAttributes(element, { "data-lines": null });
  if (!latex) return;
  const math = h("span", { class: "ml-math" });
  element.append(math);
  if (!set(math, [[latex]])) {
    setText(math, latex);
    setAttributes(element, { "data-lines": "text" });
  }
}

/**
 * The first layout that fits at a legible size, as large as it can be. Where none does, the narrowest can be scrolled,
 * from its beginning.
 */
export function fitFormula(element: HTMLElement): void {
  const math = element.firstElementChild as HTMLElement | null;
  const known = shown.get(element);
  const room = element.clientWidth;
  if (!math || !known || room === 0 || element.dataset.lines === "text") return;
  const text = Number.parseFloat(getComputedStyle(element).fontSize);
  const fitted = `${room} ${text}`;
  if (known.fitted === fitted) return; // it is only taller than before, which also changes what it stands in
  known.fitted = fitted;
  math.style.fontSize = "";
  const size = Number.parseFloat(getComputedStyle(math).fontSize) / text;
  for (const [i, lines] of layouts(known.latex).entries()) {
    // A part may be no formula by itself: broken where it must not be. Then the layout before stays.
    if (!set(math, lines)) return;
    setAttributes(element, { "data-lines": String(i) });
    math.style.fontSize = "";
    const most = (0.98 * size * room) / widest(math);
    if (most < size) math.style.fontSize = `${Math.max(LEGIBLE, most)}em`;
    if (most >= LEGIBLE) return;
  }
}

/** Width of what cannot be broken any more. */
function widest(math: HTMLElement): number {
  const terms = [...math.querySelectorAll<HTMLElement>(".ml-term")];
  return Math.max(1, ...terms.map((term) => Math.max(term.scrollWidth, term.offsetWidth)));
}

/** Puts a formula into `math`, each term by itself; false, and nothing changed, where KaTeX does not take one. */
function set(math: HTMLElement, lines: Lines): boolean {
  try {
    const made = lines.map((terms) => h("span", { class: "ml-math-line" }, ...terms.map(term)));
    math.replaceChildren(...made);
    return true;
  } catch {
    return false;
  }
}

function term(latex: string): HTMLElement {
  const element = h("span", { class: "ml-term" });
  katex.render(latex, element, { output: "mathml", displayMode: true, throwOnError: true, trust: false });
  // Without a font for mathematics this stroke stays as short as a letter, and over a minus reads as another sign.
  for (const stroke of element.querySelectorAll("mover > mo[stretchy='true']")) {
    if (stroke.textContent === "\u203e") stroke.parentElement?.classList.add("ml-overlined");
  }
  return element;
}
