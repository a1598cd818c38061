/**
 * Tokens as cells of a grid: painted by a number, told about on hover, and walked through with the keys.
 *
 * Whoever lays them out owns `root`; this class makes the cells, paints them, and keeps one of them in reach of the tab
 * key.
 */

import { type Dispose, h, listen } from "../dom";
import type { Theme } from "../theme";
import { watchTheme } from "../theme";
import { colourAt, css, inkOn, place as placeOn } from "./colour";
import type { Table } from "./table";
import { exact, shortened, visible } from "./text";
import { Tooltip } from "./tooltip";

export class TokenCells {
  table: Table | null = null;
  /** Which number colours. */
  by = "";
  readonly tip = new Tooltip();
  private current: HTMLElement | null = null;
  private readonly disposers: Dispose[] = [];

  constructor(
    private readonly root: HTMLElement,
    private readonly theme: () => Theme,
    repaint: () => void,
  ) {
    this.disposers.push(
      watchTheme(repaint),
      listen(root, "mouseover", (event) => this.point(event.target)),
      listen(root, "mouseleave", (event) => this.leave(event, this.tip.element)),
      listen(this.tip.element, "mouseleave", (event) => this.leave(event, root)),
      listen(root, "focusin", (event) => this.focused(event.target)),
      listen(root, "focusout", () => this.tip.hide()),
      listen(root, "keydown", (event) => this.key(event)),
    );
  }

  dispose(): void {
    for (const dispose of this.disposers.splice(0)) dispose();
    this.tip.dispose();
  }

  /** Cells for the tokens from place `start` to `end - 1`; they get their colour from `paint`. */
  range(start: number, end: number): HTMLElement[] {
    const table = this.table as Table;
    return Array.from({ length: end - start }, (_, i) => {
      const cell = h("bdi", { class: "ml-token", role: "gridcell", tabindex: -1, "data-place": start + i });
      cell.textContent = shortened(visible(table.text(start + i)));
      return cell;
    });
  }

  all(): HTMLElement[] {
    return [...this.root.querySelectorAll<HTMLElement>(".ml-token")];
  }

  /** The column that colours. */
  get column() {
    return this.table?.columns[this.table.column(this.by)];
  }

  paint(within: HTMLElement = this.root): void {
    const { table, column } = this;
    if (!table || !column) return;
    const index = table.column(this.by);
    const { dark } = this.theme();
    for (const cell of within.querySelectorAll<HTMLElement>(".ml-token")) {
      const at = Number(cell.dataset.place);
      const value = table.value(index, at);
      const live = table.counts(at);
      const clipped = table.clipped(at);
      // Numbers about a token that does not count are no part of the loss, but a gradient there is news.
      const share = live || (column.name === "gradient" && value !== 0) ? placeOn(value, column) : null;
      const ground = share === null ? null : colourAt(share, column.scale, dark);
      const look = ground ? `background:${css(ground)};color:${css(inkOn(ground, dark))}` : "";
      cell.style.cssText = look;
      cell.classList.toggle("ml-token-off", !live);
      cell.classList.toggle("ml-token-clipped", clipped);
      const number = Number.isNaN(value) ? "no number" : `${column.name} ${exact(value)}`;
      const rest = `${live ? "" : ", does not count"}${clipped ? ", clipped" : ""}`;
      cell.setAttribute("aria-label", `${cell.textContent}, ${number}${rest}`);
    }
  }

  /** Makes `cell` the one that the tab key reaches. JupyterLab looks at the focused element itself before it takes a key. */
  rove(cell: HTMLElement | null): void {
    this.current?.setAttribute("tabindex", "-1");
    this.current?.removeAttribute("aria-describedby");
    this.current = cell;
    cell?.setAttribute("tabindex", "0");
    cell?.setAttribute("aria-describedby", this.tip.id);
    cell?.setAttribute("data-lm-suppress-shortcuts", "true");
  }

  /** After cells were added: one of them must be in reach. */
  keepOne(): void {
    if (!this.current?.isConnected) this.rove(this.all()[0] ?? null);
  }

  forget(): void {
    this.tip.hide();
    this.current = null;
  }

  /** A long tooltip can be entered, to read and to scroll it. */
  private leave(event: MouseEvent, kept: HTMLElement): void {
    if (!(event.relatedTarget instanceof Node && kept.contains(event.relatedTarget))) this.tip.hide();
  }

  private point(target: EventTarget | null): void {
    const cell = cellOf(target);
    if (cell) this.tell(cell);
  }

  private focused(target: EventTarget | null): void {
    const cell = cellOf(target);
    if (!cell) return;
    this.rove(cell);
    this.tell(cell);
  }

  private tell(cell: HTMLElement): void {
    const { table } = this;
    if (table) this.tip.show(cell, table, Number(cell.dataset.place), table.column(this.by));
  }

  private key(event: KeyboardEvent): void {
    if (event.key === "Escape" && this.tip.open) {
      this.tip.hide();
      event.stopPropagation();
      return;
    }
    const from = cellOf(event.target);
    if (!from || event.ctrlKey || event.metaKey || event.altKey) return;
    const to = step(this.all(), from, event.key);
    if (to === null) return;
    event.preventDefault();
    event.stopPropagation();
    to.focus();
  }
}

function cellOf(target: EventTarget | null): HTMLElement | null {
  return target instanceof Element ? target.closest<HTMLElement>(".ml-token") : null;
}

/** The cell that a key leads to, or null for a key that leads nowhere. */
function step(cells: HTMLElement[], from: HTMLElement, key: string): HTMLElement | null {
  const at = cells.indexOf(from);
  if (key === "ArrowRight") return cells[at + 1] ?? from;
  if (key === "ArrowLeft") return cells[at - 1] ?? from;
  const row = [...(from.parentElement?.querySelectorAll<HTMLElement>(".ml-token") ?? [])];
  if (key === "Home") return row[0] ?? from;
  if (key === "End") return row.at(-1) ?? from;
  if (key !== "ArrowDown" && key !== "ArrowUp") return null;
  const way = key === "ArrowDown" ? 1 : -1;
  let next = at + way;
  while (cells[next] && cells[next]?.offsetTop === from.offsetTop) next += way;
  const height = cells[next]?.offsetTop;
  let best: HTMLElement | null = null;
  const middle = from.offsetLeft + from.offsetWidth / 2;
  const away = (cell: HTMLElement) => Math.abs(cell.offsetLeft + cell.offsetWidth / 2 - middle);
  for (let cell = cells[next]; cell && cell.offsetTop === height; next += way, cell = cells[next]) {
    if (!best || away(cell) < away(best)) best = cell;
  }
  return best ?? from;
}
