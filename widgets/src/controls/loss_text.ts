/** How a loss is written on the page. All of it may come from a person's own cell: text nodes only. */

import { h } from "../dom";
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
