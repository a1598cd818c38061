/** The current loss: a list by family, its formula, summary and inputs; all losses as cards; a loss as a cell. */

import { type Dispose, h, listen, setText } from "../lib/dom";
import type { RunStore } from "../run_store";
import { CellSource } from "./cell_source";
import { fitFormula, typeset } from "./formula";
import { Gallery } from "./gallery";
import { optionGroups } from "./loss_options";
import { inputsOf } from "./loss_text";

let counter = 0;

export class LossPicker {
  readonly element: HTMLElement;
  /** All losses as cards, and a loss as a cell. They are wider than the picker, so the caller places them elsewhere. */
  readonly wide: HTMLElement;
  private readonly select = h("select", { class: "ml-select" });
  private readonly formula = h("div", { class: "ml-formula", "data-formula": "" });
  private readonly summary = h("p", { class: "ml-summary" });
  private readonly inputs = h("p", { class: "ml-inputs" });
  private readonly paper = h("a", { class: "ml-link", target: "_blank", rel: "noopener noreferrer" }, "paper");
  private readonly cell: CellSource;
  private readonly disposers: Dispose[] = [];
  private drawnList = "";
  private drawnEntry = "";
  /** The loss that was requested and not confirmed yet. */
  private requested = "";

  /** @param onRefusal Called with the reason for each refusal, and with "" when a request was accepted. */
  constructor(
    private readonly store: RunStore,
    private readonly onRefusal: (message: string) => void,
  ) {
    counter += 1;
    const id = `ml-loss-${counter}`;
    this.select.id = id;
    this.cell = new CellSource(store, onRefusal);
    const all = h("button", { type: "button", class: "ml-slim", "aria-expanded": "false" }, "All losses");
    const edit = h("button", { type: "button", class: "ml-slim" }, "Edit as a cell");
    edit.title = "A %%loss cell with the same loss, for you to change";
    const gallery = new Gallery(store, {
      onUse: (name) => this.choose(name),
      onEdit: (name) => this.cell.open(name, this.element),
      onOpen: (isOpen) => {
        all.setAttribute("aria-expanded", String(isOpen));
        if (!isOpen) all.focus({ preventScroll: true });
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
    const onLayout = new ResizeObserver(() => fitFormula(this.formula));
    onLayout.observe(this.element);
    this.disposers.push(
      listen(this.select, "change", () => this.choose(this.select.value)),
      listen(all, "click", () => gallery.toggle()),
      listen(edit, "click", () => this.cell.open(store.state?.loss ?? "", this.element)),
      store.subscribe(() => this.draw()),
      () => onLayout.disconnect(),
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
    this.requested = name;
    this.draw();
    void this.store.request({ type: "set_loss", name }).then((error) => {
      this.requested = "";
      this.onRefusal(error);
      this.draw();
    });
  }

  private draw(): void {
    const { losses, state } = this.store;
    const current = this.requested || state?.loss || "";
    const list = JSON.stringify(losses.map((entry) => [entry.label, entry.reason]));
    if (list !== this.drawnList) {
      this.drawnList = list;
      this.select.replaceChildren(...optionGroups(losses));
    }
    const entry = losses.find((candidate) => candidate.name === current);
    if (!entry && current && ![...this.select.options].some((option) => option.value === current)) {
      this.select.append(h("option", { value: current }, state?.loss_label ?? current));
    }
    if (this.select.value !== current) this.select.value = current;
    this.select.disabled = !state;
    const key = entry ? JSON.stringify(entry) : current;
    if (key === this.drawnEntry) return;
    this.drawnEntry = key;
    typeset(this.formula, entry?.formula ?? "");
    this.formula.hidden = !entry?.formula;
    setText(this.summary, entry?.summary ?? "");
    if (entry && /^https:\/\//.test(entry.paper)) {
      this.paper.href = entry.paper;
      this.summary.append(" ", this.paper);
    }
    this.inputs.replaceChildren(...(entry ? inputsOf(entry) : []));
    fitFormula(this.formula);
  }
}
