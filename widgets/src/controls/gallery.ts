/** Every loss as a card, by family: formula, summary, inputs, and the reason if it cannot be used. */

import { type Dispose, h, listen } from "../lib/dom";
import type { LossEntry } from "../messages";
import type { RunStore } from "../run_store";
import { fitFormula, typeset } from "./formula";
import { FAMILIES, inputsOf, nameOf } from "./loss_text";

interface GalleryEvents {
  onUse: (name: string) => void;
  onEdit: (name: string) => void;
  onOpen: (isOpen: boolean) => void;
}

export class Gallery {
  readonly element = h("section", { class: "ml-gallery", "aria-label": "All losses", hidden: true });
  private readonly disposers: Dispose[] = [];
  private drawnKey = "";

  constructor(
    private readonly store: RunStore,
    private readonly events: GalleryEvents,
  ) {
    const onLayout = new ResizeObserver(() => this.fitFormulas());
    onLayout.observe(this.element);
    this.disposers.push(
      store.subscribe(() => this.draw()),
      () => onLayout.disconnect(),
      listen(this.element, "click", (event) => this.onClick(event)),
      listen(this.element, "keydown", (event) => {
        if (event.key === "Escape") this.toggle(false);
      }),
    );
    if (store.view.losses) this.show(true);
  }

  dispose(): void {
    for (const dispose of this.disposers.splice(0)) dispose();
    this.element.remove();
  }

  toggle(isOpen = Boolean(this.element.hidden)): void {
    this.store.view.losses = isOpen;
    this.show(isOpen);
    if (isOpen) this.focusOn("[aria-current='true'] button");
  }

  /** Focus what `selector` names, if it can be pressed; otherwise a button of the loss in use, or the first of all. */
  private focusOn(selector: string): void {
    const choices = [selector, "[aria-current='true'] button", "button"].map((each) => `${each}:enabled`);
    const found = choices
      .map((each) => this.element.querySelector<HTMLElement>(each))
      .find((button) => button !== null);
    found?.focus({ preventScroll: true });
  }

  private show(isOpen: boolean): void {
    this.element.hidden = !isOpen;
    this.events.onOpen(isOpen);
    this.draw();
  }

  private fitFormulas(): void {
    for (const formula of this.element.querySelectorAll<HTMLElement>(".ml-formula")) fitFormula(formula);
  }

  private onClick(event: Event): void {
    const button = (event.target as Element).closest<HTMLElement>("button[data-loss]");
    if (!button) return;
    const name = button.dataset.loss ?? "";
    if (button.dataset.action === "use") {
      this.events.onUse(name);
      this.toggle(false);
    } else this.events.onEdit(name);
  }

  private draw(): void {
    if (this.element.hidden) return;
    const { losses, state } = this.store;
    const key = JSON.stringify([losses, state?.loss]);
    if (key === this.drawnKey) return;
    this.drawnKey = key;
    // The kernel sends usable losses first; that order is kept within and between the families.
    const families = [...new Set(losses.map(({ family }) => family))];
    const groups = families.flatMap((family) => {
      const entries = losses.filter((entry) => entry.family === family);
      const cards = entries.map((entry) => card(entry, entry.name === state?.loss));
      return [h("h3", {}, FAMILIES[family] ?? family), h("div", { class: "ml-cards" }, ...cards)];
    });
    const held = document.activeElement;
    const hadFocus = held instanceof HTMLElement && this.element.contains(held);
    this.element.replaceChildren(...groups);
    this.fitFormulas();
    // New cards take the place of the button that had the focus; without it, Escape would reach nobody.
    if (hadFocus) this.focusOn(`button[data-loss='${held.dataset.loss}'][data-action='${held.dataset.action}']`);
  }
}

function card(entry: LossEntry, isCurrent: boolean): HTMLElement {
  const formula = h("div", { class: "ml-formula" });
  typeset(formula, entry.formula);
  const use = h("button", { type: "button", class: "ml-slim", "data-loss": entry.name, "data-action": "use" }, "Use");
  use.disabled = entry.reason !== "" || isCurrent;
  if (isCurrent) use.textContent = "In use";
  const edit = h("button", { type: "button", class: "ml-slim", "data-loss": entry.name, "data-action": "edit" });
  edit.append("Edit as a cell");
  const settings = entry.params.map(({ name, default: value }) => `${name} ${value}`).join(", ");
  return h(
    "article",
    { class: "ml-card", "aria-current": isCurrent ? "true" : null, "data-usable": String(entry.reason === "") },
    h("h4", {}, nameOf(entry)),
    ...(entry.formula ? [formula] : []),
    h("p", { class: "ml-summary" }, entry.summary),
    h("p", { class: "ml-inputs" }, ...inputsOf(entry), settings ? ` Settings: ${settings}.` : ""),
    ...(entry.reason ? [h("p", { class: "ml-reason" }, `Not here: ${entry.reason}.`)] : []),
    h("div", { class: "ml-picker-buttons" }, use, edit),
  );
}
