/**
 * Sequences of tokens, each coloured by a number: a grid whose rows are prompts and completions.
 *
 * A thousand tokens are a thousand elements, so at first only some of many are drawn; the rest comes on request. New
 * numbers about the same tokens repaint what stands there and move nothing.
 */

import { type Dispose, h, listen, setText } from "../dom";
import type { Tokens } from "../protocol";
import type { Theme } from "../theme";
import { TokenCells } from "./cells";
import { Legend } from "./legend";
import { type Item, type Line, part, Table } from "./table";
import { visible } from "./text";

/** Items drawn at once, and tokens of a line drawn at first. */
export const ITEMS = 8;
export const ROOM = 600;
const PROMPT_ROOM = 160;

export class TokenStrip {
  readonly element: HTMLElement;
  private readonly select = h("select", { class: "ml-select", "aria-label": "coloured by" });
  private readonly legend = new Legend();
  private readonly about = h("span", { class: "ml-tokens-about" });
  private readonly grid = h("div", { class: "ml-tokens-grid", role: "grid", "aria-label": "Tokens" });
  private readonly more = h("button", { class: "ml-button ml-tokens-more", type: "button" });
  private readonly tokens: TokenCells;
  private readonly disposers: Dispose[] = [];
  private table: Table | null = null;
  private drawn = 0;

  constructor(
    private readonly theme: () => Theme,
    by = "",
    private readonly chosen: (by: string) => void = () => {},
  ) {
    this.tokens = new TokenCells(this.grid, theme, () => this.paint());
    this.tokens.by = by;
    this.element = h(
      "div",
      { class: "ml-tokens" },
      h(
        "div",
        { class: "ml-tokens-head" },
        h("label", {}, "coloured by", this.select),
        this.legend.element,
        this.about,
      ),
      this.grid,
      this.more,
      this.tokens.tip.element,
    );
    this.disposers.push(
      listen(this.select, "change", () => this.choose()),
      listen(this.more, "click", () => this.drawMore()),
    );
  }

  dispose(): void {
    for (const dispose of this.disposers.splice(0)) dispose();
    this.tokens.dispose();
    this.element.remove();
  }

  show(tokens: Tokens): void {
    const table = new Table(tokens);
    const same = this.table?.sameText(table) ?? false;
    const names = table.columns.map((column) => column.name);
    if (names.join("\n") !== [...this.select.options].map((option) => option.value).join("\n")) {
      this.select.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
    }
    if (!names.includes(this.tokens.by)) this.tokens.by = tokens.by;
    this.select.value = this.tokens.by;
    this.table = this.tokens.table = table;
    setText(this.about, [tokens.about, tokens.step === null ? "" : `step ${tokens.step}`].filter(Boolean).join(" · "));
    this.tokens.tip.hide();
    if (!same) {
      this.drawn = 0;
      this.tokens.forget();
      this.grid.replaceChildren();
      this.drawMore();
    }
    this.paint();
  }

  private choose(): void {
    this.tokens.by = this.select.value;
    this.chosen(this.tokens.by);
    this.paint();
  }

  private drawMore(): void {
    const items = this.table?.items ?? [];
    const end = Math.min(items.length, this.drawn + ITEMS);
    const fresh = items.slice(this.drawn, end).map((item) => this.item(item));
    this.grid.append(...fresh);
    this.drawn = end;
    this.more.hidden = end === items.length;
    setText(this.more, `Show ${Math.min(ITEMS, items.length - end)} more of ${items.length}`);
    for (const group of fresh) this.tokens.paint(group);
    this.tokens.keepOne();
  }

  private item(item: Item): HTMLElement {
    const heading = h("div", { class: "ml-tokens-title", dir: "auto" });
    setText(heading, visible(item.title));
    return h(
      "div",
      { class: "ml-tokens-item", role: "rowgroup", "aria-label": item.title },
      heading,
      ...item.lines.map((line) => this.line(line)),
    );
  }

  private line(line: Line): HTMLElement {
    const shown = part(line, line.role === "prompt" ? PROMPT_ROOM : ROOM);
    const cells = h("div", { class: "ml-tokens-cells", role: "presentation" });
    cells.append(...this.tokens.range(shown.start, shown.end));
    const left = line.end - line.start - (shown.end - shown.start);
    if (left > 0) {
      const rest = h("button", { class: "ml-tokens-rest", type: "button" }, `… ${left} more`);
      rest.addEventListener("click", () => {
        const whole = [...this.tokens.range(line.start, shown.start), ...this.tokens.range(shown.end, line.end)];
        rest.before(...whole);
        rest.remove();
        this.tokens.paint(cells);
        whole[0]?.focus();
      });
      if (line.role === "prompt") cells.prepend(rest);
      else cells.append(rest);
    }
    const label = h("span", { class: "ml-tokens-label", role: "rowheader" }, line.label);
    return h("div", { class: "ml-tokens-row", role: "row", "data-role": line.role }, label, cells);
  }

  private paint(): void {
    const { column } = this.tokens;
    if (column) this.legend.draw(column, this.theme().dark);
    this.tokens.paint();
  }
}
