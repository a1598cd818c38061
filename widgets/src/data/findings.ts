/** What a person should know about the data: warnings, then notes, each with what follows and what to do. */

import type { FindingEntry } from "../data_messages";
import { h } from "../lib/dom";

const SIGNS = { warning: "!", note: "i" };

export function findingsList(findings: readonly FindingEntry[]): HTMLElement {
  const items = findings.map(({ severity, message, meaning, advice }) =>
    h(
      "li",
      { class: "ml-finding", "data-severity": severity },
      h("span", { class: "ml-finding-sign", role: "img", "aria-label": severity }, SIGNS[severity]),
      h("div", {}, h("div", {}, `${message}: ${meaning}.`), h("div", { class: "ml-finding-advice" }, `→ ${advice}`)),
    ),
  );
  return h("ul", { class: "ml-findings", "aria-label": "Warnings and notes" }, ...items);
}
