/** Which loss: a list by family, the formula, a sentence, what it reads; all of them as cards; any of them as a cell. */

import { type Dispose, h, listen, setText } from "../dom";
import type { LossEntry } from "../protocol";
import type { Store } from "../store";
import { CellSource } from "./cell";
import { fitFormula, typeset } from "./formula";
import { Gallery } from "./gallery";
import { FAMILIES, inputsOf, nameOf } from "./loss";

let counter = 0;

export class LossPicker {
  readonly element: HTMLElement;
  /** All losses as cards, and a loss as a cell: wider than the picker, so that they stand elsewhere. */
  readonly wide: HTMLElement;
  private readonly select = h("select", { class: "ml-select" });
  private readonly formula = h("div", { class: "ml-formula", "data-formula": "" });
  private readonly summary = h("p", { class: "ml-summary" });
  private readonly inputs = h("p", { class: "ml-inputs" });
  private readonly source = h("a", { class: "ml-link", target: "_blank", rel: "noopener noreferrer" }, "paper");
  private readonly cell: CellSource;
  private readonly disposers: Dispose[] = [];
  private listed = "";
  private shown = "";
  private pending = "";

  constructor(
    private readonly store: Store,
    private readonly failed: (message: string) => void,
  ) {
    counter += 1;
    const id = `ml-loss-${counter}`;
    this.select.id = id;
    this.cell = new CellSource(store, failed);
    const all = h("button", { type: "button", class: "ml-slim", "aria-expanded": "false" }, "All losses");
    const edit = h("button", { type: "button", class: "ml-slim" }, "Edit as a cell");
    edit.title = "A %%loss cell that does the same, to be changed";
    const gallery = new Gallery(store, {
      use: (name) => this.choose(name),
      edit: (name) => this.cell.open(name, this.element),
      opened: (open) => {
        all.setAttribute("aria-expanded", String(open));
        if (!open) all.focus({ preventScroll: true });
      },
    });
    this.element = h(
      "section",
      { class: "ml-card ml-picker" },
      h("label", { class: "ml-label", for: id }, "Loss"),
      this.select,
      this.formula,
      this.summary,
      this.inputs,
      h("div", { class: "ml-picker-buttons" }, all, edit),
    );
    this.wide = h("div", {}, this.cell.element, gallery.element);
    const observer = new ResizeObserver(() => fitFormula(this.formula));
    observer.observe(this.element);
    this.disposers.push(
      listen(this.select, "change", () => this.choose(this.select.value)),
      listen(all, "click", () => gallery.toggle()),
      listen(edit, "click", () => this.cell.open(store.state?.loss ?? "", this.element)),
      store.subscribe(() => this.draw()),
      () => observer.disconnect(),
      () => gallery.dispose(),
      () => this.cell.dispose(),
    );
    this.draw();
  }

  dispose(): void {
    for (const dispose of this.disposers.splice(0)) dispose();
    this.element.remove();
    this.wide.remove();
  }

  private choose(name: string): void {
    this.pending = name;
    this.draw();
    void this.store.request({ type: "set_loss", name }).then((error) => {
      this.pending = "";
      this.failed(error);
      this.draw();
    });
  }

  private draw(): void {
    const { losses, state } = this.store;
    const current = this.pending || state?.loss || "";
    const listed = JSON.stringify(losses.map((entry) => [entry.label, entry.reason]));
    if (listed !== this.listed) {
      this.listed = listed;
      this.select.replaceChildren(...grouped(losses));
    }
    const entry = losses.find((candidate) => candidate.name === current);
    if (!entry && current && ![...this.select.options].some((option) => option.value === current)) {
      this.select.append(h("option", { value: current }, state?.loss_label ?? current));
    }
    if (this.select.value !== current) this.select.value = current;
    this.select.disabled = !state;
    const key = entry ? JSON.stringify(entry) : current;
    if (key === this.shown) return;
    this.shown = key;
    typeset(this.formula, entry?.formula ?? "");
    this.formula.hidden = !entry?.formula;
    setText(this.summary, entry?.summary ?? "");
    if (entry && /^https:\/\//.test(entry.paper)) {
      this.source.href = entry.paper;
      this.summary.append(" ", this.source);
    }
    this.inputs.replaceChildren(...(entry ? inputsOf(entry) : []));
    fitFormula(this.formula);
  }
}

function grouped(losses: LossEntry[]): HTMLOptGroupElement[] {
  const families = new Map<string, LossEntry[]>();
  for (const entry of losses) families.set(entry.family, [...(families.get(entry.family) ?? []), entry]);
  return [...families].map(([family, entries]) =>
    h(
      "optgroup",
      { label: FAMILIES[family] ?? family },
      ...entries.map((entry) => {
        const text = entry.reason ? `${nameOf(entry)} – ${entry.reason}` : nameOf(entry);
        return h("option", { value: entry.name, disabled: entry.reason !== "" }, text);
      }),
    ),
  );
}
