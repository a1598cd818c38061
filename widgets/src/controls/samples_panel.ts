/** What the model answered at the last evaluation: prompt, response token by token, reward and advantage. */

import { type Dispose, h, listen, setText } from "../dom";
import type { SampleRow, Samples } from "../protocol";
import type { Store } from "../store";
import type { Theme } from "../theme";
import { TokenCells } from "../tokens/cells";
import { Legend } from "../tokens/legend";
import { Table } from "../tokens/table";
import { exact, visible } from "../tokens/text";

const HEADINGS = ["from", "prompt", "response", "reward", "advantage"];

export class SamplesPanel {
  readonly element: HTMLDetailsElement;
  private readonly step = h("span", { class: "ml-quiet ml-samples-step" });
  private readonly note = h("p", { class: "ml-quiet ml-tokens-note" });
  private readonly select = h("select", { class: "ml-select", "aria-label": "responses coloured by" });
  private readonly legend = new Legend();
  private readonly head: HTMLElement;
  private readonly body = h("tbody");
  private readonly table: HTMLElement;
  private readonly tokens: TokenCells;
  private readonly disposers: Dispose[] = [];
  private shown: Samples | null = null;

  constructor(
    private readonly store: Store,
    private readonly theme: () => Theme,
  ) {
    const { view } = store;
    this.tokens = new TokenCells(this.body, theme, () => this.paint());
    this.tokens.by = view.samplesBy;
    const mark = h("span", { class: "ml-token ml-token-clipped ml-samples-mark", "aria-hidden": "true" }, "abc");
    this.head = h(
      "div",
      { class: "ml-tokens-head" },
      h("label", {}, "coloured by", this.select),
      this.legend.element,
      h("span", { class: "ml-samples-clip" }, mark, "clipped"),
    );
    const headings = HEADINGS.map((name) => h("th", { scope: "col", "data-column": name }, name));
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
      this.tokens.tip.element,
    );
    this.disposers.push(
      store.subscribe(() => this.draw()),
      listen(this.element, "toggle", () => {
        view.samples = this.element.open;
        this.draw();
      }),
      listen(this.select, "change", () => {
        this.tokens.by = view.samplesBy = this.select.value;
        this.paint();
      }),
    );
    this.draw();
  }

  dispose(): void {
    for (const dispose of this.disposers.splice(0)) dispose();
    this.tokens.dispose();
    this.element.remove();
  }

  private draw(): void {
    const { state, samples } = this.store;
    this.element.hidden = state?.recipe !== "rl";
    if (this.element.hidden || !this.element.open) return;
    this.note.hidden = samples !== null;
    this.head.hidden = !samples?.tokens;
    this.table.hidden = samples === null;
    setText(this.note, "A few responses are kept at each evaluation.");
    setText(this.step, samples ? `of step ${samples.step}: best and worst of two groups, and held-out answers` : "");
    if (samples === this.shown) return;
    this.shown = samples;
    if (samples) this.show(samples);
    else this.body.replaceChildren();
  }

  private show({ rows, tokens }: Samples): void {
    const table = tokens ? new Table(tokens) : null;
    this.tokens.table = table;
    const names = table?.columns.map((column) => column.name) ?? [];
    if (names.join("\n") !== [...this.select.options].map((option) => option.value).join("\n")) {
      this.select.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
    }
    if (tokens && !names.includes(this.tokens.by)) this.tokens.by = tokens.by;
    this.select.value = this.tokens.by;
    const place = focusedPlace(this.body);
    this.tokens.forget();
    this.body.replaceChildren(...rows.map((row) => this.row(row)));
    this.paint();
    this.tokens.keepOne();
    if (place !== null) this.body.querySelector<HTMLElement>(`.ml-token[data-place="${place}"]`)?.focus();
  }

  private row(row: SampleRow): HTMLElement {
    const words = h("bdi", { class: "ml-samples-text", dir: "auto" }, lines(row.prompt));
    const response = row.length
      ? h("div", { role: "grid", "aria-label": "response, token by token" }, this.line(row))
      : h("bdi", { class: "ml-samples-text", dir: "auto" }, lines(row.response));
    const sign = row.advantage === null ? "" : row.advantage > 0 ? "positive" : row.advantage < 0 ? "negative" : "zero";
    const cells: [string, Node | string][] = [
      ["from", row.source],
      ["prompt", words],
      ["response", response],
      ["reward", exact(row.reward)],
      ["advantage", row.advantage === null ? "" : `${row.advantage > 0 ? "+" : ""}${exact(row.advantage)}`],
    ];
    return h(
      "tr",
      { "data-source": row.source, "data-sign": sign },
      ...cells.map(([name, content]) => h("td", { "data-column": name }, content)),
    );
  }

  private line({ start, length }: SampleRow): HTMLElement {
    return h("div", { class: "ml-tokens-cells", role: "row" }, ...this.tokens.range(start, start + length));
  }

  private paint(): void {
    const { column } = this.tokens;
    if (column) this.legend.draw(column, this.theme().dark);
    this.tokens.paint();
  }
}

/** Text of several lines, each with every invisible character shown. */
function lines(text: string): string {
  return text === "" ? "⟨empty⟩" : text.split("\n").map(shownLine).join("↵\n");
}

function shownLine(line: string): string {
  return line === "" ? "" : visible(line);
}

/** Where the focus stands among the tokens, so that new ones do not take it from the person. */
function focusedPlace(body: HTMLElement): string | null {
  const focused = body.getRootNode() instanceof Document ? document.activeElement : null;
  return focused instanceof HTMLElement && body.contains(focused) ? (focused.dataset.place ?? null) : null;
}
