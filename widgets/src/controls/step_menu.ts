/** What can be done at one step of a run: return to it, or fork the run there. It opens where a chart was clicked. */

import { type Dispose, h, listen, setAttributes, setText } from "../lib/dom";
import { thousands } from "../lib/format";
import type { LossEntry, Request } from "../messages";
import type { RunStore } from "../run_store";
import { optionGroups } from "./loss_options";

/** A step that a person has chosen. */
export interface StepPlace {
  step: number;
  /** Where, in pixels of the window. */
  x: number;
  y: number;
  /** What has the focus after the menu is closed. */
  from: HTMLElement;
}

const GAP_PX = 10;
const MARGIN_PX = 8;
/** A menu whose chart has moved farther is closed. */
const SCROLLED_PX = 2;

let counter = 0;

export class StepMenu {
  readonly element: HTMLElement;
  private readonly title = h("strong");
  private readonly close_ = h("button", { type: "button", class: "ml-toggle", "aria-label": "Close" }, "✕");
  private readonly rewind = h("button", { type: "button", class: "ml-button" }, "Rewind here");
  private readonly rewindText: HTMLElement;
  private readonly fork = h("button", { type: "button", class: "ml-button" }, "Fork from here");
  private readonly forkText: HTMLElement;
  private readonly loss = h("select", { class: "ml-select", "aria-label": "Loss of the fork" });
  private readonly name = h("input", { class: "ml-select", type: "text", maxlength: 100, spellcheck: "false" });
  private readonly create = h("button", { type: "submit", class: "ml-button ml-primary" }, "Create fork");
  private readonly form: HTMLFormElement;
  private readonly refusal = h("p", { class: "ml-reason", role: "status" });
  private readonly disposers: Dispose[] = [];
  private place: StepPlace | null = null;
  private openedAt = { top: 0, left: 0 };
  private drawnLosses = "";
  private isWaiting = false;

  /** @param canFork Whether this widget can show a fork. */
  constructor(
    private readonly store: RunStore,
    private readonly canFork: boolean,
  ) {
    counter += 1;
    const id = `ml-step-${counter}`;
    this.rewindText = h("p", { id: `${id}-rewind` });
    this.forkText = h("p", { id: `${id}-fork` });
    setAttributes(this.rewind, { "aria-describedby": this.rewindText.id });
    setAttributes(this.fork, { "aria-describedby": this.forkText.id, "aria-expanded": "false" });
    setAttributes(this.name, { "aria-label": "Name of the fork" });
    const fields = [h("span", {}, "Loss"), this.loss, h("span", {}, "Name"), this.name];
    this.form = h("form", { class: "ml-fork", hidden: true }, ...fields, this.create);
    const heading = h("div", { class: "ml-heading" }, this.title, this.close_);
    const rows = h("div", { class: "ml-step-actions" }, this.rewind, this.rewindText);
    if (canFork) rows.append(this.fork, this.forkText);
    this.element = h(
      "div",
      { class: "ml-step-menu", role: "dialog", popover: "manual", hidden: true, tabindex: -1 },
      heading,
      rows,
      this.form,
      this.refusal,
    );
    this.listen();
  }

  dispose(): void {
    for (const dispose of this.disposers.splice(0)) dispose();
    this.element.remove();
  }

  get isOpen(): boolean {
    return this.place !== null;
  }

  open(place: StepPlace): void {
    if (place.step > (this.store.state?.steps_done ?? 0)) return;
    this.place = place;
    this.openedAt = place.from.getBoundingClientRect();
    this.showForm(false);
    this.name.value = "";
    this.loss.value = "";
    setText(this.refusal, "");
    this.element.hidden = false;
    this.draw();
    this.element.showPopover?.();
    this.moveTo(place);
    (this.rewind.disabled ? (this.fork.disabled ? this.close_ : this.fork) : this.rewind).focus();
  }

  /** @param returnsFocus Whether the chart gets the focus back. */
  close(returnsFocus = true): void {
    const { place } = this;
    if (!place) return;
    this.place = null;
    if (this.element.matches(":popover-open")) this.element.hidePopover();
    this.element.hidden = true;
    if (returnsFocus) place.from.focus({ preventScroll: true });
  }

  private listen(): void {
    const onOutside = (event: Event) => {
      if (!event.composedPath().includes(this.element)) this.close(false);
    };
    const onScroll = () => {
      const now = this.place?.from.getBoundingClientRect();
      if (!now) return;
      if (Math.abs(now.top - this.openedAt.top) + Math.abs(now.left - this.openedAt.left) > SCROLLED_PX)
        this.close(false);
    };
    document.addEventListener("pointerdown", onOutside, true);
    document.addEventListener("scroll", onScroll, true);
    this.disposers.push(
      () => document.removeEventListener("pointerdown", onOutside, true),
      () => document.removeEventListener("scroll", onScroll, true),
      this.store.subscribe(() => this.draw()),
      listen(this.element, "keydown", (event) => this.onKey(event)),
      listen(this.close_, "click", () => this.close()),
      listen(this.rewind, "click", () => this.send({ type: "rewind", step: this.place?.step ?? 0 })),
      listen(this.fork, "click", () => this.showForm(this.form.hasAttribute("hidden"))),
      listen(this.form, "submit", (event) => {
        event.preventDefault();
        const { value: loss } = this.loss;
        this.send({ type: "fork", step: this.place?.step ?? 0, loss, name: this.name.value.trim() });
      }),
    );
  }

  /** Keys of the menu are not for the notebook around it. */
  private onKey(event: KeyboardEvent): void {
    event.stopPropagation();
    if (event.key === "Escape") this.close();
  }

  private showForm(isShown: boolean): void {
    this.form.hidden = !isShown;
    setAttributes(this.fork, { "aria-expanded": String(isShown) });
    if (!isShown || !this.place) return;
    this.moveTo(this.place);
    this.loss.focus();
  }

  private send(request: Omit<Request, "request">): void {
    this.isWaiting = true;
    setText(this.refusal, "");
    this.draw();
    void this.store.request(request).then((error) => {
      this.isWaiting = false;
      setText(this.refusal, error);
      this.draw();
      if (!error) this.close();
    });
  }

  private draw(): void {
    const { place } = this;
    const { state, losses } = this.store;
    if (!place || !state) return;
    if (place.step > state.steps_done) {
      this.close(); // the run was rewound meanwhile
      return;
    }
    const title = place.step === 0 ? "Before the first step" : `Step ${thousands(place.step)}`;
    setText(this.title, title);
    setAttributes(this.element, { "aria-label": title, "data-step": place.step });
    const later = state.steps_done - place.step;
    const busy = state.activity;
    const noRewind = busy || state.no_rewind || (later === 0 ? "The run is at this step." : "");
    const noFork = busy || state.no_fork;
    const pauses = state.status === "running" ? " This run pauses." : "";
    setText(this.rewindText, noRewind || consequence(later) + pauses);
    setText(this.forkText, noFork || FORK + pauses);
    setAttributes(this.rewind, { disabled: this.isWaiting || noRewind !== "" });
    setAttributes(this.fork, { disabled: noFork !== "" });
    setAttributes(this.create, { disabled: this.isWaiting || noFork !== "" });
    setAttributes(this.name, { placeholder: `${this.nameOfRun()}@${place.step}` });
    this.drawLosses(losses);
  }

  private nameOfRun(): string {
    const { tabs } = this.store;
    return tabs?.runs[tabs.shown]?.name ?? "fork";
  }

  private drawLosses(losses: LossEntry[]): void {
    const key = JSON.stringify(losses.map((entry) => [entry.label, entry.reason]));
    if (!this.canFork || key === this.drawnLosses) return;
    this.drawnLosses = key;
    const chosen = this.loss.value;
    this.loss.replaceChildren(h("option", { value: "" }, "as at this step"), ...optionGroups(losses));
    this.loss.value = chosen;
  }

  /** Place the menu beside the point, inside the window. */
  private moveTo({ x, y }: StepPlace): void {
    const { width, height } = this.element.getBoundingClientRect();
    const hasRoom = x + GAP_PX + width <= window.innerWidth - MARGIN_PX;
    const left = hasRoom ? x + GAP_PX : Math.max(MARGIN_PX, x - GAP_PX - width);
    const top = Math.max(MARGIN_PX, Math.min(y - GAP_PX, window.innerHeight - MARGIN_PX - height));
    this.element.style.left = `${left}px`;
    this.element.style.top = `${top}px`;
  }
}

const FORK = "A new run continues from this step, with this or another loss, and this one stays as it is.";

function consequence(later: number): string {
  if (later === 1) return "The later step stays as a faint curve; its snapshot is deleted.";
  return `The ${thousands(later)} later steps stay as faint curves; their snapshots are deleted.`;
}
