/** The losses as options of a select, by family; one that cannot be used says why. */

import { h } from "../lib/dom";
import type { LossEntry } from "../messages";
import { FAMILIES, nameOf } from "./loss_text";

export function optionGroups(losses: LossEntry[]): HTMLOptGroupElement[] {
  const families = new Map<string, LossEntry[]>();
  for (const entry of losses) families.set(entry.family, [...(families.get(entry.family) ?? []), entry]);
  return [...families].map(([family, entries]) =>
    h(
      "optgroup",
      { label: FAMILIES[family] ?? family },
      ...entries.map((entry) => {
        const text = entry.reason ? `${nameOf(entry)} – ${entry.reason}` : nameOf(entry);
        return h("option", { value: entry.name, disabled: entry.reason !== "" }, text);
      }),
    ),
  );
}
