/** The keys of a chart with their numbers. A key that stands for a curve switches it off and on. */

import { h, setAttributes, setText } from "../dom";

export interface LegendEntry {
  label: string;
  colour: string;
  value: string;
  /** Under which it can be switched off; without one it cannot. */
  key?: string;
  hidden?: boolean;
}

export class Legend {
  readonly element = h("div", { class: "ml-legend" });
  /** Called with the key of a curve to be switched. */
  flip: (key: string) => void = () => {};
  private readonly onClick = (event: Event) => {
    const key = (event.target as Element).closest<HTMLElement>("button.ml-key")?.dataset.key;
    if (key !== undefined) this.flip(key);
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

  private rowAt(i: number, button: boolean): HTMLElement {
    const tag = button ? "button" : "span";
    const old = this.element.children[i] as HTMLElement | undefined;
    if (old?.localName === tag) return old;
    const row = h(tag, { class: "ml-key", ...(button ? { type: "button" } : {}) });
    row.append(h("i"), h("span", { class: "ml-key-label" }), h("b", { class: "ml-value" }));
    if (old) old.replaceWith(row);
    else this.element.append(row);
    return row;
  }
}

export function spoken(entries: LegendEntry[]): string {
  return entries.map((entry) => `${entry.label} ${entry.hidden ? "off" : entry.value}`).join(", ");
}
