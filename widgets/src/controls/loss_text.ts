/** Names and inputs of a loss as text nodes. All of it may come from a person's own cell. */

import { h } from "../lib/dom";
import type { LossEntry } from "../messages";

/** Headings of the families of losses. */
export const FAMILIES: Record<string, string> = {
  preference: "Preference",
  supervised: "Supervised",
  policy: "Policy",
  custom: "Yours",
};

/** The name, with its version if the loss can have several. */
export function nameOf(entry: LossEntry): string {
  const version = entry.label.startsWith(`${entry.name} `) ? entry.label.slice(entry.name.length) : "";
  return entry.family === "custom" || version !== " v1" ? entry.label : entry.name;
}

/** The inputs of a loss besides tokens and weights, and whether the data has them. */
export function inputsOf(entry: LossEntry): Node[] {
  const inputs = entry.inputs.filter(({ name }) => name !== "weights");
  if (inputs.length === 0) return [document.createTextNode("Reads tokens and weights.")];
  const fields = inputs.map(({ name, here }) =>
    h("span", { class: "ml-input", "data-here": String(here) }, name, here ? " ✓" : " – not in this data"),
  );
  return [document.createTextNode("Reads "), ...fields];
}
