/** The runs of a folder, a row each. */

import { h, setAttributes } from "../dom";
import { short, thousands } from "../format";
import { sample } from "../overlay/styles";
import type { RunRow } from "../protocol_runs";
import type { Theme } from "../theme";
import { visible } from "../tokens/text";
import { sparkline } from "./spark";
import type { TableStore } from "./store";

const COLUMNS = ["", "run", "steps", "held-out data", "last written", "note", ""];
/** A narrow page leaves one column out. */
const NARROW = COLUMNS.length - 1;

export class RunRows {
  readonly element: HTMLElement;
  private readonly body = h("tbody");
  private drawn = "";

  constructor(
    private readonly store: TableStore,
    private readonly theme: () => Theme,
  ) {
    const heads = COLUMNS.map((name, i) => h("th", { scope: "col", "data-column": i }, name));
    const table = h("table", { class: "ml-table", "aria-label": "Runs" }, h("thead", {}, h("tr", {}, ...heads)));
    table.append(this.body);
    this.element = h("div", { class: "ml-table-room", tabindex: 0, role: "group", "aria-label": "Runs" }, table);
  }

  draw(): void {
    const { listing, ticked, opened, asking } = this.store;
    const key = JSON.stringify([this.theme().dark, listing, ticked, opened?.label, asking]);
    if (key === this.drawn) return;
    this.drawn = key;
    const focus = this.focused();
    this.body.replaceChildren(...listing.rows.flatMap((row) => this.rows(row, ticked.indexOf(row.name))));
    const again =
      focus && [...this.body.querySelectorAll<HTMLElement>("[data-key]")].find((e) => e.dataset.key === focus);
    if (again) again.focus();
    this.body.querySelector<HTMLElement>("[data-first]")?.focus();
  }

  /** Which control has the focus, so that drawing the rows anew does not take it from the person. */
  private focused(): string | null {
    const { activeElement } = document;
    return activeElement instanceof HTMLElement && this.body.contains(activeElement)
      ? (activeElement.dataset.key ?? null)
      : null;
  }

  private rows(row: RunRow, place: number): HTMLElement[] {
    const { asking } = this.store;
    const main = row.problem ? this.unreadable(row) : this.row(row, place);
    if (asking?.name !== row.name) return [main];
    const content = asking.what === "note" ? this.noteForm(row) : this.deleteForm(row);
    return [main, h("tr", { class: "ml-table-form" }, h("td", { colspan: NARROW }, content), wide())];
  }

  private row(row: RunRow, place: number): HTMLElement {
    const tick = h("input", {
      ...{ type: "checkbox", "data-key": `tick ${row.name}`, "aria-label": `Overlay ${visible(row.name)}` },
    });
    tick.checked = place >= 0;
    tick.addEventListener("change", () => this.store.tick(row.name, tick.checked));
    const mark = place >= 0 ? [sample(place, this.theme().dark)] : [];
    const steps = `${thousands(row.steps)} / ${thousands(row.steps_total)}`;
    const open = this.store.opened?.label === row.name;
    const cells: (Node | string)[][] = [
      [tick, ...mark],
      [text(row.name, "ml-table-name"), text(about(row), "ml-quiet")],
      [h("span", {}, steps), h("span", { class: "ml-quiet", "data-status": row.status }, visible(row.status || "–"))],
      this.outcome(row),
      [h("span", {}, when(row.changed))],
      [this.noteOf(row)],
      [
        this.action(open ? "Close" : "Open", row, () =>
          this.store.request({ type: "open", name: open ? "" : row.name }),
        ),
        this.action("Delete", row, () => this.store.ask({ name: row.name, what: "delete" })),
      ],
    ];
    const line = h("tr", { "data-run": row.name, "data-open": open });
    line.append(...cells.map((cell, i) => h("td", { "data-column": i }, ...cell)));
    return line;
  }

  private outcome(row: RunRow): Node[] {
    const { main, before, final, curve } = row;
    if (!main || !(main in final || main in before)) return [h("span", { class: "ml-quiet" }, "not evaluated")];
    const numbers = h("span", { class: "ml-table-numbers" });
    numbers.append(h("span", { class: "ml-quiet" }, `${short(before[main])} → `), h("b", {}, short(final[main])));
    const spark = sparkline(curve);
    spark.setAttribute("aria-label", `${visible(main)} over the run`);
    return [spark, h("span", {}, text(main, "ml-quiet"), numbers)];
  }

  private noteOf(row: RunRow): HTMLElement {
    const button = h("button", { type: "button", class: "ml-table-note", "data-key": `note ${row.name}` });
    if (row.note.trim()) button.append(h("bdi", {}, row.note));
    else button.append(h("span", { class: "ml-quiet" }, "add a note"));
    setAttributes(button, { "aria-label": `Note of ${visible(row.name)}`, title: row.note });
    button.addEventListener("click", () => this.store.ask({ name: row.name, what: "note" }));
    return button;
  }

  private action(label: string, row: RunRow, act: () => unknown): HTMLElement {
    const button = h("button", { type: "button", class: "ml-small", "data-key": `${label} ${row.name}` }, label);
    button.setAttribute("aria-label", `${label} ${visible(row.name)}`);
    button.addEventListener("click", act);
    return button;
  }

  private unreadable(row: RunRow): HTMLElement {
    const why = h("span", { class: "ml-table-problem" }, visible(row.problem));
    const line = h("tr", { "data-run": row.name, "data-problem": true });
    const name = h("td", { "data-column": 1 }, text(row.name, "ml-table-name"));
    line.append(h("td", { "data-column": 0 }), name, h("td", { colspan: NARROW - 2 }, why), wide());
    return line;
  }

  private noteForm(row: RunRow): HTMLElement {
    const area = h("textarea", {
      ...{ class: "ml-table-text", rows: 3, maxlength: 10000, "data-first": true, dir: "auto" },
      ...{ "aria-label": `Note of ${visible(row.name)}`, "data-lm-suppress-shortcuts": "true" },
    });
    area.value = row.note;
    const save = h("button", { type: "button", class: "ml-button ml-primary" }, "Save note");
    save.addEventListener("click", () => {
      this.store.asking = null;
      void this.store.request({ type: "note", name: row.name, text: area.value });
    });
    return h("div", { class: "ml-table-ask" }, area, h("div", { class: "ml-buttons" }, save, this.cancel("Cancel")));
  }

  private deleteForm(row: RunRow): HTMLElement {
    const sure = h("button", { type: "button", class: "ml-button ml-danger", "data-first": true }, "Delete for good");
    sure.addEventListener("click", () => {
      this.store.asking = null;
      void this.store.request({ type: "delete", name: row.name });
    });
    const question = h("span", {}, "Delete ", text(row.name, "ml-table-name"), " with its records and loss sources?");
    return h("div", { class: "ml-table-ask ml-table-row" }, question, sure, this.cancel("Keep it"));
  }

  private cancel(label: string): HTMLElement {
    const button = h("button", { type: "button", class: "ml-button" }, label);
    button.addEventListener("click", () => this.store.ask(null));
    return button;
  }
}

/** The cell of the column that a narrow page leaves out. */
function wide(): HTMLElement {
  return h("td", { "data-column": 4 });
}

function text(content: string, kind: string): HTMLElement {
  const shown = visible(content);
  return h("bdi", { class: `ml-table-cell ${kind}`, title: shown }, shown);
}

/** What a run was: its own name where the folder has another, its recipe and its losses. */
function about({ name, title, recipe, losses }: RunRow): string {
  const words = [title === name ? "" : title, recipe, losses.join(", ")];
  return words.filter(Boolean).join(" · ") || "–";
}

/** Local time to the minute; the same in every language. */
export function when(seconds: number): string {
  if (!(seconds > 0)) return "–";
  const date = new Date(1000 * seconds);
  const two = (value: number) => String(value).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}`;
}
