/** The runs of a folder, one row each. */

import { h, setAttributes } from "../lib/dom";
import { dateTime, short, thousands } from "../lib/format";
import { visible } from "../lib/text";
import type { Theme } from "../lib/theme";
import type { MultiRunStore } from "../multi_run_store";
import { lineSample } from "../overlay/run_style";
import type { RunRow } from "../run_messages";
import { sparkline } from "./sparkline";
import type { TableState } from "./table_state";

const COLUMNS = ["", "run", "steps", "held-out data", "last written", "note", ""];
/** Columns of a narrow page, which hides "last written". */
const NARROW_COLUMNS = COLUMNS.length - 1;

export class RunRows {
  readonly element: HTMLElement;
  private readonly body = h("tbody");
  private drawnKey = "";

  constructor(
    private readonly store: MultiRunStore,
    private readonly table: TableState,
    private readonly theme: () => Theme,
  ) {
    const heads = COLUMNS.map((name, i) => h("th", { scope: "col", "data-column": i }, name));
    const tableElement = h("table", { class: "ml-table", "aria-label": "Runs" }, h("thead", {}, h("tr", {}, ...heads)));
    tableElement.append(this.body);
    this.element = h("div", { class: "ml-table-room", tabindex: 0, role: "group", "aria-label": "Runs" }, tableElement);
  }

  draw(): void {
    const { listing, ticked, openForm } = this.table;
    const key = JSON.stringify([this.theme().dark, listing, ticked, this.store.opened?.label, openForm]);
    if (key === this.drawnKey) return;
    this.drawnKey = key;
    const focusedKey = this.focusedKey();
    this.body.replaceChildren(...listing.rows.flatMap((row) => this.rows(row, ticked.indexOf(row.name))));
    const keyed = [...this.body.querySelectorAll<HTMLElement>("[data-key]")];
    if (focusedKey) keyed.find((element) => element.dataset.key === focusedKey)?.focus();
    this.body.querySelector<HTMLElement>("[data-first]")?.focus();
  }

  /** Identifies the focused control, so that it gets the focus back after the rows were replaced. */
  private focusedKey(): string | null {
    const { activeElement } = document;
    return activeElement instanceof HTMLElement && this.body.contains(activeElement)
      ? (activeElement.dataset.key ?? null)
      : null;
  }

  /** The row of a run, and the form below it if it is open. */
  private rows(row: RunRow, tickIndex: number): HTMLElement[] {
    const { openForm } = this.table;
    const main = row.problem ? this.unreadable(row) : this.row(row, tickIndex);
    if (openForm?.name !== row.name) return [main];
    const form = openForm.kind === "note" ? this.noteForm(row) : this.deleteForm(row);
    return [main, h("tr", { class: "ml-table-form" }, h("td", { colspan: NARROW_COLUMNS }, form), wideCell())];
  }

  private row(row: RunRow, tickIndex: number): HTMLElement {
    const tick = h("input", {
      ...{ type: "checkbox", "data-key": `tick ${row.name}`, "aria-label": `Overlay ${visible(row.name)}` },
    });
    tick.checked = tickIndex >= 0;
    tick.addEventListener("change", () => this.table.tick(row.name, tick.checked));
    const sample = tickIndex >= 0 ? [lineSample(tickIndex, this.theme().dark)] : [];
    const steps = `${thousands(row.steps)} / ${thousands(row.steps_total)}`;
    const isOpen = this.store.opened?.label === row.name;
    const cells: (Node | string)[][] = [
      [tick, ...sample],
      [text(row.name, "ml-table-name"), text(description(row), "ml-quiet")],
      [h("span", {}, steps), h("span", { class: "ml-quiet", "data-status": row.status }, visible(row.status || "–"))],
      this.outcome(row),
      [h("span", {}, dateTime(row.changed))],
      [this.noteButton(row)],
      [
        this.actionButton(isOpen ? "Close" : "Open", row, () =>
          this.store.request({ type: "open", name: isOpen ? "" : row.name }),
        ),
        this.actionButton("Delete", row, () => this.table.setForm({ name: row.name, kind: "delete" })),
      ],
    ];
    const element = h("tr", { "data-run": row.name, "data-open": isOpen });
    element.append(...cells.map((cell, i) => h("td", { "data-column": i }, ...cell)));
    return element;
  }

  /** The most important metric: its curve, and its value before training and at the last evaluation. */
  private outcome(row: RunRow): Node[] {
    const { main, before, final, curve } = row;
    if (!main || !(main in final || main in before)) return [h("span", { class: "ml-quiet" }, "not evaluated")];
    const numbers = h("span", { class: "ml-table-numbers" });
    numbers.append(h("span", { class: "ml-quiet" }, `${short(before[main])} → `), h("b", {}, short(final[main])));
    const spark = sparkline(curve);
    spark.setAttribute("aria-label", `${visible(main)} over the run`);
    return [spark, h("span", {}, text(main, "ml-quiet"), numbers)];
  }

  private noteButton(row: RunRow): HTMLElement {
    const button = h("button", { type: "button", class: "ml-table-note", "data-key": `note ${row.name}` });
    if (row.note.trim()) button.append(h("bdi", {}, row.note));
    else button.append(h("span", { class: "ml-quiet" }, "add a note"));
    setAttributes(button, { "aria-label": `Note of ${visible(row.name)}`, title: row.note });
    button.addEventListener("click", () => this.table.setForm({ name: row.name, kind: "note" }));
    return button;
  }

  private actionButton(label: string, row: RunRow, action: () => unknown): HTMLElement {
    const button = h("button", { type: "button", class: "ml-small", "data-key": `${label} ${row.name}` }, label);
    button.setAttribute("aria-label", `${label} ${visible(row.name)}`);
    button.addEventListener("click", action);
    return button;
  }

  private unreadable(row: RunRow): HTMLElement {
    const problem = h("span", { class: "ml-table-problem" }, visible(row.problem));
    const element = h("tr", { "data-run": row.name, "data-problem": true });
    const name = h("td", { "data-column": 1 }, text(row.name, "ml-table-name"));
    element.append(h("td", { "data-column": 0 }), name, h("td", { colspan: NARROW_COLUMNS - 2 }, problem), wideCell());
    return element;
  }

  private noteForm(row: RunRow): HTMLElement {
    const area = h("textarea", {
      ...{ class: "ml-table-text", rows: 3, maxlength: 10000, "data-first": true, dir: "auto" },
      ...{ "aria-label": `Note of ${visible(row.name)}`, "data-lm-suppress-shortcuts": "true" },
    });
    area.value = row.note;
    const save = h("button", { type: "button", class: "ml-button ml-primary" }, "Save note");
    save.addEventListener("click", () => {
      this.table.submit({ type: "note", name: row.name, text: area.value });
    });
    const buttons = h("div", { class: "ml-buttons" }, save, this.closeButton("Cancel"));
    return h("div", { class: "ml-table-ask" }, area, buttons);
  }

  private deleteForm(row: RunRow): HTMLElement {
    const confirm = h(
      "button",
      { type: "button", class: "ml-button ml-danger", "data-first": true },
      "Delete for good",
    );
    confirm.addEventListener("click", () => {
      this.table.submit({ type: "delete", name: row.name });
    });
    const question = h("span", {}, "Delete ", text(row.name, "ml-table-name"), " with its records and loss sources?");
    return h("div", { class: "ml-table-ask ml-table-row" }, question, confirm, this.closeButton("Keep it"));
  }

  private closeButton(label: string): HTMLElement {
    const button = h("button", { type: "button", class: "ml-button" }, label);
    button.addEventListener("click", () => this.table.setForm(null));
    return button;
  }
}

/** An empty cell of the column that a narrow page hides. */
function wideCell(): HTMLElement {
  return h("td", { "data-column": 4 });
}

function text(content: string, className: string): HTMLElement {
  const shown = visible(content);
  return h("bdi", { class: `ml-table-cell ${className}`, title: shown }, shown);
}

/** Title of the run if it differs from the name of its folder, recipe and losses. */
function description({ name, title, recipe, losses }: RunRow): string {
  const parts = [title === name ? "" : title, recipe, losses.join(", ")];
  return parts.filter(Boolean).join(" · ") || "–";
}
