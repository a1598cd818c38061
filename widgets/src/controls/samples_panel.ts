/** The model's responses at the last evaluation: prompt, response token by token, reward and advantage. */

import { type Dispose, h, listen, setText } from "../lib/dom";
import { exact } from "../lib/format";
import { visible } from "../lib/text";
import type { Theme } from "../lib/theme";
import type { SampleRow, Samples } from "../messages";
import type { RunStore } from "../run_store";
import { ColourScale } from "../tokens/colour_scale";
import { TokenCells } from "../tokens/token_cells";
import { TokenTable } from "../tokens/token_table";

const COLUMNS = ["from", "prompt", "response", "reward", "advantage"];

export class SamplesPanel {
  readonly element: HTMLDetailsElement;
  private readonly step = h("span", { class: "ml-quiet ml-samples-step" });
  private readonly note = h("p", { class: "ml-quiet ml-tokens-note" });
  private readonly select = h("select", { class: "ml-select", "aria-label": "responses coloured by" });
  private readonly scale = new ColourScale();
  private readonly head: HTMLElement;
  private readonly body = h("tbody");
  private readonly table: HTMLElement;
  private readonly cells: TokenCells;
  private readonly disposers: Dispose[] = [];
  private drawn: Samples | null = null;

  constructor(
    private readonly store: RunStore,
    private readonly theme: () => Theme,
  ) {
    const { view } = store;
    this.cells = new TokenCells(this.body, theme, () => this.paint());
    this.cells.by = view.samplesBy;
    const clippedToken = h(
      "span",
      { class: "ml-token ml-token-clipped ml-samples-mark", "aria-hidden": "true" },
      "abc",
    );
    this.head = h(
      "div",
      { class: "ml-tokens-head" },
      h("label", {}, "coloured by", this.select),
      this.scale.element,
      h("span", { class: "ml-samples-clip" }, clippedToken, "clipped"),
    );
    const headings = COLUMNS.map((name) => h("th", { scope: "col", "data-column": name }, name));
    this.table = h(
      "table",
      { class: "ml-samples", "aria-label": "Responses" },
      h("thead", {}, h("tr", {}, ...headings)),
      this.body,
    );
    this.element = h(
      "details",
      { class: "ml-card ml-samples-panel", open: view.samples, hidden: true },
      h("summary", {}, h("span", { class: "ml-title" }, "Responses"), this.step),
      this.note,
      this.head,
      h("div", { class: "ml-samples-room" }, this.table),
      this.cells.tooltip.element,
    );
    this.disposers.push(
      store.subscribe(() => this.draw()),
      listen(this.element, "toggle", () => {
        view.samples = this.element.open;
        this.draw();
      }),
      listen(this.select, "change", () => {
        this.cells.by = view.samplesBy = this.select.value;
        this.paint();
      }),
    );
    this.draw();
  }

  dispose(): void {
    for (const dispose of this.disposers.splice(0)) dispose();
    this.cells.dispose();
    this.element.remove();
  }

  private draw(): void {
    const { state, samples } = this.store;
    this.element.hidden = !state?.keeps_samples;
    if (this.element.hidden || !this.element.open) return;
    this.note.hidden = samples !== null;
    this.head.hidden = !samples?.tokens;
    this.table.hidden = samples === null;
    setText(this.note, "The run stores a few responses at each evaluation.");
    setText(this.step, samples ? `of step ${samples.step}: best and worst of two groups, and held-out answers` : "");
    if (samples === this.drawn) return;
    this.drawn = samples;
    if (samples) this.show(samples);
    else this.body.replaceChildren();
  }

  private show({ rows, tokens }: Samples): void {
    const table = tokens ? new TokenTable(tokens) : null;
    this.cells.table = table;
    const names = table?.columns.map((column) => column.name) ?? [];
    if (names.join("\n") !== [...this.select.options].map((option) => option.value).join("\n")) {
      this.select.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
    }
    if (tokens && !names.includes(this.cells.by)) this.cells.by = tokens.by;
    this.select.value = this.cells.by;
    const focusedIndex = focusedTokenIndex(this.body);
    this.cells.reset();
    this.body.replaceChildren(...rows.map((row) => this.row(row)));
    this.paint();
    this.cells.makeOneReachable();
    if (focusedIndex === null) return;
    this.body.querySelector<HTMLElement>(`.ml-token[data-place="${focusedIndex}"]`)?.focus();
  }

  private row(row: SampleRow): HTMLElement {
    const { start, length, advantage } = row;
    const prompt = h("bdi", { class: "ml-samples-text", dir: "auto" }, visibleLines(row.prompt));
    const tokenLine = () =>
      h("div", { class: "ml-tokens-cells", role: "row" }, ...this.cells.create(start, start + length));
    const response = length
      ? h("div", { role: "grid", "aria-label": "response, token by token" }, tokenLine())
      : h("bdi", { class: "ml-samples-text", dir: "auto" }, visibleLines(row.response));
    const sign = advantage === null ? "" : advantage > 0 ? "positive" : advantage < 0 ? "negative" : "zero";
    const cells: [string, Node | string][] = [
      ["from", row.source],
      ["prompt", prompt],
      ["response", response],
      ["reward", exact(row.reward)],
      ["advantage", advantage === null ? "" : `${advantage > 0 ? "+" : ""}${exact(advantage)}`],
    ];
    return h(
      "tr",
      { "data-source": row.source, "data-sign": sign },
      ...cells.map(([name, content]) => h("td", { "data-column": name }, content)),
    );
  }

  private paint(): void {
    const { column } = this.cells;
    if (column) this.scale.draw(column, this.theme().dark);
    this.cells.paint();
  }
}

/** Text of several lines, with a symbol for every invisible character. */
function visibleLines(text: string): string {
  if (text === "") return visible(text);
  return text
    .split("\n")
    .map((line) => (line === "" ? "" : visible(line)))
    .join("↵\n");
}

/** Index of the focused token, so that the new token at its place gets the focus. */
function focusedTokenIndex(body: HTMLElement): string | null {
  const focused = body.getRootNode() instanceof Document ? document.activeElement : null;
  return focused instanceof HTMLElement && body.contains(focused) ? (focused.dataset.place ?? null) : null;
}
