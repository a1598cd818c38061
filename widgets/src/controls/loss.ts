/** How a loss is written on the page. All of it may come from a person's own cell: text nodes only. */

import katex from "katex";
import { h, setText } from "../dom";
import type { LossEntry } from "../protocol";

export const FAMILIES: Record<string, string> = {
  preference: "Preference",
  supervised: "Supervised",
  policy: "Policy",
  custom: "Yours",
};

/** The name, with its version where it can have another one. */
export function nameOf(entry: LossEntry): string {
  const version = entry.label.startsWith(`${entry.name} `) ? entry.label.slice(entry.name.length) : "";
  return entry.family === "custom" || version !== " v1" ? entry.label : entry.name;
}

/** What the loss reads besides tokens and weights, and whether the data at hand has it. */
export function inputsOf(entry: LossEntry): Node[] {
  const read = entry.inputs.filter(({ name }) => name !== "weights");
  if (read.length === 0) return [document.createTextNode("Reads tokens and weights.")];
  const fields = read.map(({ name, here }) =>
    h("span", { class: "ml-input", "data-here": String(here) }, name, here ? " ✓" : " – not in this data"),
  );
  return [document.createTextNode("Reads "), ...fields];
}

/** MathML, which needs no fonts and no style sheet of KaTeX's. */
export function typeset(element: HTMLElement, formula: string): void {
  element.replaceChildren();
  if (!formula) return;
  const math = h("span", { class: "ml-math" });
  try {
    katex.render(formula, math, { output: "mathml", displayMode: true, throwOnError: true, trust: false });
  } catch {
    setText(math, formula);
  }
  element.append(math);
}

/** A formula that is wider than its place is set smaller, as long as it can be read. */
export function fitFormula(formula: HTMLElement): void {
  const math = formula.firstElementChild as HTMLElement | null;
  if (!math) return;
  math.style.fontSize = "";
  const room = formula.clientWidth;
  const wanted = math.scrollWidth;
  const size =
    Number.parseFloat(getComputedStyle(math).fontSize) / Number.parseFloat(getComputedStyle(formula).fontSize);
  if (room > 0 && wanted > room) math.style.fontSize = `${Math.max(0.7, (0.98 * size * room) / wanted)}em`;
}
