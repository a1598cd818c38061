/** Which loss: a list by family, the formula, a sentence. A loss that cannot be used is shown with the reason. */

import katex from "katex";
import { type Dispose, h, listen, setText } from "../dom";
import type { LossEntry } from "../protocol";
import type { Store } from "../store";

const FAMILIES: Record<string, string> = {
  preference: "Preference",
  supervised: "Supervised",
  policy: "Policy",
  custom: "Yours",
};

let counter = 0;

export class LossPicker {
  readonly element: HTMLElement;
  private readonly select = h("select", { class: "ml-select" });
  private readonly formula = h("div", { class: "ml-formula", "data-formula": "" });
  private readonly summary = h("p", { class: "ml-summary" });
  private readonly source = h("a", { class: "ml-link", target: "_blank", rel: "noopener noreferrer" }, "paper");
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
    this.element = h(
      "section",
      { class: "ml-card" },
      h("label", { class: "ml-label", for: id }, "Loss"),
      this.select,
      this.formula,
      this.summary,
    );
    const observer = new ResizeObserver(() => this.fit());
    observer.observe(this.element);
    this.disposers.push(
      listen(this.select, "change", () => this.choose()),
      store.subscribe(() => this.draw()),
      () => observer.disconnect(),
    );
    this.draw();
  }

  dispose(): void {
    for (const dispose of this.disposers.splice(0)) dispose();
    this.element.remove();
  }

  private choose(): void {
    this.pending = this.select.value;
    this.draw();
    void this.store.request({ type: "set_loss", name: this.pending }).then((error) => {
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
    setText(this.summary, entry?.summary ?? "");
    if (entry && /^https:\/\//.test(entry.paper)) {
      this.source.href = entry.paper;
      this.summary.append(" ", this.source);
    }
    this.fit();
  }

  /** A long formula is set smaller rather than cut off. */
  private fit(): void {
    const math = this.formula.firstElementChild as HTMLElement | null;
    if (!math) return;
    math.style.fontSize = "";
    const room = this.formula.clientWidth;
    const wanted = math.scrollWidth;
    if (room > 0 && wanted > room) math.style.fontSize = `${Math.max(0.6, (0.98 * room) / wanted)}em`;
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
        const version = entry.label.startsWith(`${entry.name} `) ? entry.label.slice(entry.name.length) : "";
        const name = entry.family === "custom" || version !== " v1" ? entry.label : entry.name;
        const text = entry.reason ? `${name} – ${entry.reason}` : name;
        return h("option", { value: entry.name, disabled: entry.reason !== "" }, text);
      }),
    ),
  );
}

/** MathML, which needs no fonts and no style sheet of KaTeX's. */
function typeset(element: HTMLElement, formula: string): void {
  element.replaceChildren();
  if (!formula) return;
  const math = h("span", { class: "ml-math" });
  try {
    katex.render(formula, math, { output: "mathml", displayMode: true, throwOnError: true, trust: false });
  } catch {
    setText(math, formula);
  }
  element.append(math);
}
