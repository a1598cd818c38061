/**
 * Tokens as cells of a grid: coloured by a number, with a tooltip, and reachable with the keyboard.
 *
 * The caller owns `root` and arranges the cells. This class creates and colours them, and keeps exactly one of them
 * reachable by the tab key.
 */

import { type Dispose, h, listen } from "../lib/dom";
import { exact } from "../lib/format";
import { shortened, visible } from "../lib/text";
import { type Theme, watchTheme } from "../lib/theme";
import { colourAt, css, inkOn, scalePosition } from "./colour";
import type { TokenTable } from "./token_table";
import { Tooltip } from "./tooltip";

export class TokenCells {
  table: TokenTable | null = null;
  /** Name of the column that colours. */
  by = "";
  readonly tooltip = new Tooltip();
  private reachableCell: HTMLElement | null = null;
  private readonly disposers: Dispose[] = [];

  constructor(
    private readonly root: HTMLElement,
    private readonly theme: () => Theme,
    onThemeChange: () => void,
  ) {
    this.disposers.push(
      watchTheme(onThemeChange),
      listen(root, "mouseover", (event) => this.onMouseOver(event.target)),
      listen(root, "mouseleave", (event) => this.onMouseLeave(event, this.tooltip.element)),
      listen(this.tooltip.element, "mouseleave", (event) => this.onMouseLeave(event, root)),
      listen(root, "focusin", (event) => this.onFocus(event.target)),
      listen(root, "focusout", () => this.tooltip.hide()),
      listen(root, "keydown", (event) => this.onKey(event)),
    );
  }

  dispose(): void {
    for (const dispose of this.disposers.splice(0)) dispose();
    this.tooltip.dispose();
  }

  /** Create cells for tokens `start` to `end - 1`. They have no colour before `paint`. */
  create(start: number, end: number): HTMLElement[] {
    const table = this.table as TokenTable;
    return Array.from({ length: end - start }, (_, i) => {
      const cell = h("bdi", { class: "ml-token", role: "gridcell", tabindex: -1, "data-place": start + i });
      cell.textContent = shortened(visible(table.text(start + i)));
      return cell;
    });
  }

  /** The column that colours. */
  get column() {
    return this.table?.columns[this.table.columnIndex(this.by)];
  }

  paint(within: HTMLElement = this.root): void {
    const { table, column } = this;
    if (!table || !column) return;
    const columnIndex = table.columnIndex(this.by);
    const { dark } = this.theme();
    for (const cell of within.querySelectorAll<HTMLElement>(".ml-token")) {
      const index = Number(cell.dataset.place);
      const value = table.value(columnIndex, index);
      const isCounted = table.isCounted(index);
      const isClipped = table.isClipped(index);
      // A token that the loss does not count has no colour. A gradient there is an error of the loss and must be visible.
      const isColoured = isCounted || (column.name === "gradient" && value !== 0);
      const position = isColoured ? scalePosition(value, column) : null;
      const background = position === null ? null : colourAt(position, column.scale, dark);
      cell.style.cssText = background ? `background:${css(background)};color:${css(inkOn(background, dark))}` : "";
      cell.classList.toggle("ml-token-off", !isCounted);
      cell.classList.toggle("ml-token-clipped", isClipped);
      const number = Number.isNaN(value) ? "no number" : `${column.name} ${exact(value)}`;
      const state = `${isCounted ? "" : ", does not count"}${isClipped ? ", clipped" : ""}`;
      cell.setAttribute("aria-label", `${cell.textContent}, ${number}${state}`);
    }
  }

  /** After cells were added: make one reachable by the tab key if none is. */
  makeOneReachable(): void {
    if (!this.reachableCell?.isConnected) this.makeReachable(this.cells()[0] ?? null);
  }

  /** Before cells are replaced. */
  reset(): void {
    this.tooltip.hide();
    this.reachableCell = null;
  }

  private cells(): HTMLElement[] {
    return [...this.root.querySelectorAll<HTMLElement>(".ml-token")];
  }

  private makeReachable(cell: HTMLElement | null): void {
    this.reachableCell?.setAttribute("tabindex", "-1");
    this.reachableCell?.removeAttribute("aria-describedby");
    this.reachableCell = cell;
    cell?.setAttribute("tabindex", "0");
    cell?.setAttribute("aria-describedby", this.tooltip.id);
    // JupyterLab looks for this attribute on the focused element itself before it handles a key.
    cell?.setAttribute("data-lm-suppress-shortcuts", "true");
  }

  /** The pointer may enter the tooltip, to read and to scroll it. */
  private onMouseLeave(event: MouseEvent, other: HTMLElement): void {
    if (!(event.relatedTarget instanceof Node && other.contains(event.relatedTarget))) this.tooltip.hide();
  }

  private onMouseOver(target: EventTarget | null): void {
    const cell = cellAt(target);
    if (cell) this.showTooltip(cell);
  }

  private onFocus(target: EventTarget | null): void {
    const cell = cellAt(target);
    if (!cell) return;
    this.makeReachable(cell);
    this.showTooltip(cell);
  }

  private showTooltip(cell: HTMLElement): void {
    const { table } = this;
    if (table) this.tooltip.show(cell, table, Number(cell.dataset.place), table.columnIndex(this.by));
  }

  private onKey(event: KeyboardEvent): void {
    if (event.key === "Escape" && this.tooltip.isOpen) {
      this.tooltip.hide();
      event.stopPropagation();
      return;
    }
    const from = cellAt(event.target);
    if (!from || event.ctrlKey || event.metaKey || event.altKey) return;
    const to = cellAfterKey(this.cells(), from, event.key);
    if (to === null) return;
    event.preventDefault();
    event.stopPropagation();
    to.focus();
  }
}

function cellAt(target: EventTarget | null): HTMLElement | null {
  return target instanceof Element ? target.closest<HTMLElement>(".ml-token") : null;
}

/** The cell that a key moves the focus to; null for a key that does not move it. */
function cellAfterKey(cells: HTMLElement[], from: HTMLElement, key: string): HTMLElement | null {
  const index = cells.indexOf(from);
  if (key === "ArrowRight") return cells[index + 1] ?? from;
  if (key === "ArrowLeft") return cells[index - 1] ?? from;
  const row = [...(from.parentElement?.querySelectorAll<HTMLElement>(".ml-token") ?? [])];
  if (key === "Home") return row[0] ?? from;
  if (key === "End") return row.at(-1) ?? from;
  if (key !== "ArrowDown" && key !== "ArrowUp") return null;
  // Rows wrap, so the next visual line starts at the next cell with another vertical position.
  const direction = key === "ArrowDown" ? 1 : -1;
  let next = index + direction;
  while (cells[next] && cells[next]?.offsetTop === from.offsetTop) next += direction;
  const lineTop = cells[next]?.offsetTop;
  const middle = from.offsetLeft + from.offsetWidth / 2;
  const distance = (cell: HTMLElement) => Math.abs(cell.offsetLeft + cell.offsetWidth / 2 - middle);
  let nearest: HTMLElement | null = null;
  for (let cell = cells[next]; cell && cell.offsetTop === lineTop; next += direction, cell = cells[next]) {
    if (!nearest || distance(cell) < distance(nearest)) nearest = cell;
  }
  return nearest ?? from;
}
