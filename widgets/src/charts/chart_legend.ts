/** The legend of a chart, with the latest numbers. An entry that stands for a curve hides and shows it. */

import { h, setAttributes, setText } from "../lib/dom";

export interface LegendEntry {
  label: string;
  colour: string;
  value: string;
  /** Identifies the curve to hide; an entry without a key is no button. */
  key?: string;
  hidden?: boolean;
}

export class ChartLegend {
  readonly element = h("div", { class: "ml-legend" });
  /** Called with the key of the curve to hide or show. */
  onToggle: (key: string) => void = () => {};
  private readonly onClick = (event: Event) => {
    const key = (event.target as Element).closest<HTMLElement>("button.ml-key")?.dataset.key;
    if (key !== undefined) this.onToggle(key);
  };

  constructor() {
    this.element.addEventListener("click", this.onClick);
  }

  dispose(): void {
    this.element.removeEventListener("click", this.onClick);
  }

  draw(entries: LegendEntry[]): void {
    while (this.element.children.length > entries.length) this.element.lastElementChild?.remove();
    entries.forEach((entry, i) => {
      const row = this.rowAt(i, entry.key !== undefined);
      const [swatch, label, value] = row.children as unknown as [HTMLElement, HTMLElement, HTMLElement];
      swatch.style.background = entry.colour;
      setText(label, entry.label);
      setText(value, entry.hidden ? "off" : entry.value);
      if (entry.key === undefined) return;
      row.dataset.key = entry.key;
      setAttributes(row, { "aria-pressed": String(!entry.hidden), title: entry.hidden ? "Show" : "Hide" });
    });
  }

  /** The element at index `i`, reused if it is of the right kind. */
  private rowAt(i: number, isButton: boolean): HTMLElement {
    const tag = isButton ? "button" : "span";
    const old = this.element.children[i] as HTMLElement | undefined;
    if (old?.localName === tag) return old;
    const row = h(tag, { class: "ml-key", ...(isButton ? { type: "button" } : {}) });
    row.append(h("i"), h("span", { class: "ml-key-label" }), h("b", { class: "ml-value" }));
    if (old) old.replaceWith(row);
    else this.element.append(row);
    return row;
  }
}

/** The entries as text, for a screen reader. */
export function legendText(entries: LegendEntry[]): string {
  return entries.map((entry) => `${entry.label} ${entry.hidden ? "off" : entry.value}`).join(", ");
}
