/** Every loss as a card, by family: formula, sentence, what it reads, and why it cannot be used where it cannot. */

import { type Dispose, h, listen } from "../dom";
import type { LossEntry } from "../protocol";
import type { Store } from "../store";
import { fitFormula, typeset } from "./formula";
import { FAMILIES, inputsOf, nameOf } from "./loss";

interface Actions {
  use: (name: string) => void;
  edit: (name: string) => void;
  opened: (open: boolean) => void;
}

export class Gallery {
  readonly element = h("section", { class: "ml-gallery", "aria-label": "All losses", hidden: true });
  private readonly disposers: Dispose[] = [];
  private drawn = "";

  constructor(
    private readonly store: Store,
    private readonly actions: Actions,
  ) {
    const observer = new ResizeObserver(() => this.fit());
    observer.observe(this.element);
    this.disposers.push(
      store.subscribe(() => this.draw()),
      () => observer.disconnect(),
      listen(this.element, "click", (event) => this.click(event)),
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

  toggle(open = Boolean(this.element.hidden)): void {
    this.store.view.losses = open;
    this.show(open);
    if (!open) return;
    const first = (within: string) => this.element.querySelector<HTMLElement>(`${within} button:enabled`);
    (first("[aria-current='true']") ?? first(""))?.focus({ preventScroll: true });
  }

  private show(open: boolean): void {
    this.element.hidden = !open;
    this.actions.opened(open);
    this.draw();
  }

  private fit(): void {
    for (const formula of this.element.querySelectorAll<HTMLElement>(".ml-formula")) fitFormula(formula);
  }

  private click(event: Event): void {
    const button = (event.target as Element).closest<HTMLElement>("button[data-loss]");
    if (!button) return;
    const name = button.dataset.loss ?? "";
    if (button.dataset.action === "use") {
      this.actions.use(name);
      this.toggle(false);
    } else this.actions.edit(name);
  }

  private draw(): void {
    if (this.element.hidden) return;
    const { losses, state } = this.store;
    const key = JSON.stringify([losses, state?.loss]);
    if (key === this.drawn) return;
    this.drawn = key;
    // What can be used here comes first, within and between the families.
    const families = [...new Set(losses.map(({ family }) => family))];
    const groups = families.flatMap((family) => {
      const entries = losses.filter((entry) => entry.family === family);
      if (entries.length === 0) return [];
      const cards = entries.map((entry) => card(entry, entry.name === state?.loss));
      return [h("h3", {}, FAMILIES[family] ?? family), h("div", { class: "ml-cards" }, ...cards)];
    });
    this.element.replaceChildren(...groups);
    this.fit();
  }
}

function card(entry: LossEntry, current: boolean): HTMLElement {
  const formula = h("div", { class: "ml-formula" });
  typeset(formula, entry.formula);
  const use = h("button", { type: "button", class: "ml-slim", "data-loss": entry.name, "data-action": "use" }, "Use");
  use.disabled = entry.reason !== "" || current;
  if (current) use.textContent = "In use";
  const edit = h("button", { type: "button", class: "ml-slim", "data-loss": entry.name, "data-action": "edit" });
  edit.append("Edit as a cell");
  const settings = entry.params.map(({ name, default: value }) => `${name} ${value}`).join(", ");
  return h(
    "article",
    { class: "ml-card", "aria-current": current ? "true" : null, "data-usable": String(entry.reason === "") },
    h("h4", {}, nameOf(entry)),
    ...(entry.formula ? [formula] : []),
    h("p", { class: "ml-summary" }, entry.summary),
    h("p", { class: "ml-inputs" }, ...inputsOf(entry), settings ? ` Settings: ${settings}.` : ""),
    ...(entry.reason ? [h("p", { class: "ml-reason" }, `Not here: ${entry.reason}.`)] : []),
    h("div", { class: "ml-picker-buttons" }, use, edit),
  );
}
