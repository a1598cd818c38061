/** Everything known about one token, beside it. It lies in the browser's top layer, where nothing cuts it off. */

import { type Dispose, h, listen } from "../dom";
import type { Table } from "./table";
import { exact, spelled } from "./text";

const GAP = 6;
/** How far below its token a tooltip may stand, pixels. */
const NEAR = 90;

let counter = 0;

export class Tooltip {
  readonly element: HTMLElement;
  readonly id: string;
  private readonly disposers: Dispose[] = [];
  private cell: HTMLElement | null = null;
  private at = { top: 0, left: 0 };

  constructor() {
    counter += 1;
    this.id = `ml-token-${counter}`;
    this.element = h("div", { class: "ml-tip", id: this.id, role: "tooltip", popover: "manual", hidden: true });
    // The news of a scroll may come after the mouse has reached a token: what counts is whether that one has moved.
    const hide = () => {
      const now = this.cell?.getBoundingClientRect();
      if (!now || Math.abs(now.top - this.at.top) + Math.abs(now.left - this.at.left) > 2) this.hide();
    };
    document.addEventListener("scroll", hide, true);
    this.disposers.push(
      () => document.removeEventListener("scroll", hide, true),
      listen(this.element, "click", (event) => event.stopPropagation()),
    );
  }

  dispose(): void {
    for (const dispose of this.disposers.splice(0)) dispose();
    this.element.remove();
  }

  get open(): boolean {
    return !this.element.hidden;
  }

  show(cell: HTMLElement, table: Table, place: number, by: number): void {
    const numbers = table.columns.flatMap((column, i) => {
      const value = table.value(i, place);
      if (Number.isNaN(value)) return [];
      const mark = i === by ? { class: "ml-tip-by" } : {};
      return [h("dt", mark, column.name), h("dd", mark, exact(value)), h("dd", { class: "ml-tip-unit" }, column.unit)];
    });
    const text = h("bdi", { class: "ml-tip-text", dir: "auto" }, spelled(table.text(place)));
    const first = numbers.length ? "" : " · the first token: nothing predicts it";
    const idle = first || table.counts(place) ? "" : " · does not count";
    const id = table.id(place);
    const clipped = table.clipped(place) ? "clipped" : "";
    // An id below 0 is one that nobody kept.
    const facts = [id < 0 ? clipped : `token ${id}`, first, idle].join("");
    const about = h("span", { class: "ml-tip-id" }, facts);
    this.element.replaceChildren(text, ...(facts ? [about] : []), h("dl", {}, ...numbers));
    this.element.hidden = false;
    this.element.showPopover?.();
    this.move(cell);
  }

  hide(): void {
    if (!this.open) return;
    if (this.element.matches(":popover-open")) this.element.hidePopover();
    this.element.hidden = true;
    this.cell = null;
  }

  /** Below the token, or above where there is no room; never beyond the window, nor on the other side of a short pair. */
  private move(cell: HTMLElement): void {
    const box = cell.getBoundingClientRect();
    this.cell = cell;
    this.at = box;
    const own = this.element.getBoundingClientRect();
    const item = cell.closest(".ml-tokens-item, tr")?.getBoundingClientRect().bottom ?? box.bottom;
    const left = Math.max(8, Math.min(box.left, window.innerWidth - own.width - 8));
    const below = (item - box.bottom < NEAR ? Math.max(item - 8, box.bottom) : box.bottom) + GAP;
    const top = below + own.height > window.innerHeight - 8 ? Math.max(8, box.top - GAP - own.height) : below;
    this.element.style.left = `${left}px`;
    this.element.style.top = `${top}px`;
  }
}
