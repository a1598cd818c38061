/** All numbers of one token, beside it. The tooltip is in the browser's top layer, where no other element clips it. */

import { type Dispose, h, listen } from "../lib/dom";
import { exact } from "../lib/format";
import { spelled } from "../lib/text";
import type { TokenTable } from "./token_table";

const GAP_PX = 6;
const MARGIN_PX = 8;
/** If its item ends within this distance, the tooltip stands below the item instead of below the token. */
const MAX_DISTANCE_PX = 90;
/** A token that moved farther has been scrolled. */
const SCROLLED_PX = 2;

let counter = 0;

export class Tooltip {
  readonly element: HTMLElement;
  readonly id: string;
  private readonly disposers: Dispose[] = [];
  private cell: HTMLElement | null = null;
  private shownAt = { top: 0, left: 0 };

  constructor() {
    counter += 1;
    this.id = `ml-token-${counter}`;
    this.element = h("div", { class: "ml-tip", id: this.id, role: "tooltip", popover: "manual", hidden: true });
    // A scroll event may arrive after the pointer reached the next token, so hide only if that token has moved.
    const onScroll = () => {
      const now = this.cell?.getBoundingClientRect();
      const movedPx = now ? Math.abs(now.top - this.shownAt.top) + Math.abs(now.left - this.shownAt.left) : 0;
      if (!now || movedPx > SCROLLED_PX) this.hide();
    };
    document.addEventListener("scroll", onScroll, true);
    this.disposers.push(
      () => document.removeEventListener("scroll", onScroll, true),
      listen(this.element, "click", (event) => event.stopPropagation()),
    );
  }

  dispose(): void {
    for (const dispose of this.disposers.splice(0)) dispose();
    this.element.remove();
  }

  get isOpen(): boolean {
    return !this.element.hidden;
  }

  /** Show the numbers of token `index`, with that of column `by` emphasized. */
  show(cell: HTMLElement, table: TokenTable, index: number, by: number): void {
    const numbers = table.columns.flatMap((column, i) => {
      const value = table.value(i, index);
      if (Number.isNaN(value)) return [];
      const emphasis = i === by ? { class: "ml-tip-by" } : {};
      return [
        h("dt", emphasis, column.name),
        h("dd", emphasis, exact(value)),
        h("dd", { class: "ml-tip-unit" }, column.unit),
      ];
    });
    const text = h("bdi", { class: "ml-tip-text", dir: "auto" }, spelled(table.text(index)));
    const first = numbers.length ? "" : " · the first token: nothing predicts it";
    const notCounted = first || table.isCounted(index) ? "" : " · does not count";
    const id = table.id(index);
    // An id below 0 was not stored.
    const idText = id < 0 ? (table.isClipped(index) ? "clipped" : "") : `token ${id}`;
    const facts = [idText, first, notCounted].join("");
    const about = h("span", { class: "ml-tip-id" }, facts);
    this.element.replaceChildren(text, ...(facts ? [about] : []), h("dl", {}, ...numbers));
    this.element.hidden = false;
    this.element.showPopover?.();
    this.place(cell);
  }

  hide(): void {
    if (!this.isOpen) return;
    if (this.element.matches(":popover-open")) this.element.hidePopover();
    this.element.hidden = true;
    this.cell = null;
  }

  /** Place the tooltip below the token, or above it without enough room; inside the window, and not over a short item. */
  private place(cell: HTMLElement): void {
    const box = cell.getBoundingClientRect();
    this.cell = cell;
    this.shownAt = box;
    const own = this.element.getBoundingClientRect();
    const itemBottom = cell.closest(".ml-tokens-item, tr")?.getBoundingClientRect().bottom ?? box.bottom;
    const left = Math.max(MARGIN_PX, Math.min(box.left, window.innerWidth - own.width - MARGIN_PX));
    const isShortItem = itemBottom - box.bottom < MAX_DISTANCE_PX;
    const below = (isShortItem ? Math.max(itemBottom - MARGIN_PX, box.bottom) : box.bottom) + GAP_PX;
    const hasRoomBelow = below + own.height <= window.innerHeight - MARGIN_PX;
    const top = hasRoomBelow ? below : Math.max(MARGIN_PX, box.top - GAP_PX - own.height);
    this.element.style.left = `${left}px`;
    this.element.style.top = `${top}px`;
  }
}
