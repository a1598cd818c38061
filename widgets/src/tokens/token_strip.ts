/**
 * Sequences of tokens, each coloured by a number: a grid whose rows are prompts and completions.
 *
 * Every token is an element, so a long message is drawn in parts, the rest on request. New numbers for the same tokens
 * only change colours; nothing moves.
 */

import { type Dispose, h, listen, setText } from "../lib/dom";
import { visible } from "../lib/text";
import type { Theme } from "../lib/theme";
import type { Tokens } from "../messages";
import { ColourScale } from "./colour_scale";
import { TokenCells } from "./token_cells";
import { type TokenItem, type TokenLine, TokenTable, visiblePart } from "./token_table";

/** Items drawn at once. */
const ITEMS_AT_ONCE = 8;
/** Tokens of a line drawn at first. */
const MAX_LINE_TOKENS = 600;
const MAX_PROMPT_TOKENS = 160;

export class TokenStrip {
  readonly element: HTMLElement;
  private readonly select = h("select", { class: "ml-select", "aria-label": "coloured by" });
  private readonly by = h("label", {}, "coloured by", this.select);
  private readonly scale = new ColourScale();
  private readonly about = h("span", { class: "ml-tokens-about" });
  private readonly grid = h("div", { class: "ml-tokens-grid", role: "grid", "aria-label": "Tokens" });
  private readonly more = h("button", { class: "ml-button ml-tokens-more", type: "button" });
  private readonly cells: TokenCells;
  private readonly disposers: Dispose[] = [];
  private table: TokenTable | null = null;
  private drawnItems = 0;

  /**
   * @param by Column that colours; empty for the message's own.
   * @param onChoose Called with the column that a person chose.
   */
  constructor(
    private readonly theme: () => Theme,
    by = "",
    private readonly onChoose: (by: string) => void = () => {},
  ) {
    this.cells = new TokenCells(this.grid, theme, () => this.paint());
    this.cells.by = by;
    this.element = h(
      "div",
      { class: "ml-tokens" },
      h("div", { class: "ml-tokens-head" }, this.by, this.scale.element, this.about),
      this.grid,
      this.more,
      this.cells.tooltip.element,
    );
    this.disposers.push(
      listen(this.select, "change", () => this.chooseColumn()),
      listen(this.more, "click", () => this.drawMore()),
    );
  }

  dispose(): void {
    for (const dispose of this.disposers.splice(0)) dispose();
    this.cells.dispose();
    this.element.remove();
  }

  show(tokens: Tokens): void {
    const table = new TokenTable(tokens);
    const hasSameText = this.table?.hasSameText(table) ?? false;
    const names = table.columns.map((column) => column.name);
    if (names.join("\n") !== [...this.select.options].map((option) => option.value).join("\n")) {
      this.select.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
    }
    if (!names.includes(this.cells.by)) this.cells.by = tokens.by;
    this.select.value = this.cells.by;
    this.by.hidden = names.length < 2;
    this.table = this.cells.table = table;
    setText(this.about, [tokens.about, tokens.step === null ? "" : `step ${tokens.step}`].filter(Boolean).join(" · "));
    this.cells.tooltip.hide();
    if (!hasSameText) {
      this.drawnItems = 0;
      this.cells.reset();
      this.grid.replaceChildren();
      this.drawMore();
    }
    this.paint();
  }

  private chooseColumn(): void {
    this.cells.by = this.select.value;
    this.onChoose(this.cells.by);
    this.paint();
  }

  private drawMore(): void {
    const items = this.table?.items ?? [];
    const end = Math.min(items.length, this.drawnItems + ITEMS_AT_ONCE);
    const added = items.slice(this.drawnItems, end).map((item) => this.item(item));
    this.grid.append(...added);
    this.drawnItems = end;
    this.more.hidden = end === items.length;
    setText(this.more, `Show ${Math.min(ITEMS_AT_ONCE, items.length - end)} more of ${items.length}`);
    for (const element of added) this.cells.paint(element);
    this.cells.makeOneReachable();
  }

  private item(item: TokenItem): HTMLElement {
    const heading = h("div", { class: "ml-tokens-title", dir: "auto" });
    setText(heading, visible(item.title));
    return h(
      "div",
      { class: "ml-tokens-item", role: "rowgroup", "aria-label": item.title },
      heading,
      ...item.lines.map((line) => this.line(line)),
    );
  }

  private line(line: TokenLine): HTMLElement {
    const shown = visiblePart(line, line.role === "prompt" ? MAX_PROMPT_TOKENS : MAX_LINE_TOKENS);
    const cells = h("div", { class: "ml-tokens-cells", role: "presentation" });
    cells.append(...this.cells.create(shown.start, shown.end));
    const remaining = line.end - line.start - (shown.end - shown.start);
    if (remaining > 0) {
      const showAll = h("button", { class: "ml-tokens-rest", type: "button" }, `… ${remaining} more`);
      showAll.addEventListener("click", () => {
        const added = [...this.cells.create(line.start, shown.start), ...this.cells.create(shown.end, line.end)];
        showAll.before(...added);
        showAll.remove();
        this.cells.paint(cells);
        added[0]?.focus();
      });
      if (line.role === "prompt") cells.prepend(showAll);
      else cells.append(showAll);
    }
    const label = h("span", { class: "ml-tokens-label", role: "rowheader" }, line.label);
    return h("div", { class: "ml-tokens-row", role: "row", "data-role": line.role }, label, cells);
  }

  private paint(): void {
    const { column } = this.cells;
    if (column) this.scale.draw(column, this.theme().dark);
    this.cells.paint();
  }
}
