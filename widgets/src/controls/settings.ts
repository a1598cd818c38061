/** A slider with typed entry for each setting of the run and its loss. */

import { type Dispose, h, setAttributes, setText } from "../dom";
import { setting } from "../format";
import type { ParamEntry } from "../protocol";
import { sliderScale } from "../scale";
import type { Store } from "../store";

const POSITIONS = 200;
const SETTLE_MS = 250;
let counter = 0;

export class Settings {
  readonly element = h("section", { class: "ml-card ml-settings" }, h("div", { class: "ml-label" }, "Settings"));
  private readonly sliders = new Map<string, Slider>();
  private readonly unsubscribe: Dispose;
  private shape = "";

  constructor(private readonly store: Store) {
    this.unsubscribe = store.subscribe(() => this.draw());
    this.draw();
  }

  dispose(): void {
    this.clear();
    this.unsubscribe();
    this.element.remove();
  }

  private clear(): void {
    for (const slider of this.sliders.values()) slider.dispose();
    this.sliders.clear();
  }

  private draw(): void {
    const { state } = this.store;
    if (!state) return;
    const shape = JSON.stringify(state.controls.map(({ default: _, ...rest }) => rest));
    if (shape !== this.shape) {
      this.shape = shape;
      this.clear();
      for (const param of state.controls) {
        const slider = new Slider(param, this.store);
        this.sliders.set(param.name, slider);
        this.element.append(slider.element);
      }
    }
    for (const [name, slider] of this.sliders) slider.draw(state.settings[name]);
  }
}

class Slider {
  readonly element: HTMLElement;
  private readonly range: HTMLInputElement;
  private readonly entry: HTMLInputElement;
  private readonly note = h("div", { class: "ml-note", role: "alert" });
  private readonly scale;
  private value = Number.NaN;
  private asked: number | undefined; // sent, and not answered yet
  private timer = 0;
  private touched = false; // the person is choosing: the kernel's value must not pull the thumb away

  constructor(
    private readonly param: ParamEntry,
    private readonly store: Store,
  ) {
    counter += 1;
    const id = `ml-setting-${counter}`;
    this.scale = sliderScale(param.low, param.high, param.scale);
    this.range = h("input", { type: "range", id, min: 0, max: POSITIONS, step: 1, "data-setting": param.name });
    this.entry = h("input", {
      type: "text",
      inputmode: "decimal",
      class: "ml-entry",
      "aria-label": `${param.name}, typed`,
      "data-entry": param.name,
    });
    const label = h("label", { for: id, class: "ml-setting-name", title: param.doc }, param.name);
    this.element = h("div", { class: "ml-setting", title: param.doc }, label, this.entry, this.range, this.note);
    this.range.addEventListener("input", () => this.slide());
    this.range.addEventListener("change", () => this.sendSoon());
    this.entry.addEventListener("change", () => this.type());
    this.entry.addEventListener("keydown", (event) => {
      // Chromium sends "change" on Enter inside a form only.
      if (event.key === "Enter") this.type();
      if (event.key === "Escape") this.show(this.value);
    });
  }

  dispose(): void {
    window.clearTimeout(this.timer);
    this.store.dropDraft(this.param.name);
    this.element.remove();
  }

  draw(value: number | undefined): void {
    if (value === undefined || this.touched || value === this.value) return;
    this.value = value;
    if (document.activeElement !== this.entry) this.show(value);
  }

  private show(value: number): void {
    this.entry.value = Number.isFinite(value) ? setting(value) : "";
    this.range.value = String(Math.round(POSITIONS * this.scale.toPosition(value)));
    setAttributes(this.range, { "aria-valuetext": setting(value) });
    this.range.style.setProperty("--ml-position", `${100 * this.scale.toPosition(value)}%`);
  }

  private slide(): void {
    this.touched = true;
    const value = this.scale.toValue(this.range.valueAsNumber / POSITIONS);
    this.entry.value = setting(value);
    setAttributes(this.range, { "aria-valuetext": setting(value) });
    this.store.draft(this.param.name, value);
    this.range.style.setProperty("--ml-position", `${this.range.valueAsNumber / (POSITIONS / 100)}%`);
  }

  /** Arrow keys change a slider many times in a row; the run hears of the last. */
  private sendSoon(): void {
    window.clearTimeout(this.timer);
    this.timer = window.setTimeout(() => {
      this.send(this.scale.toValue(this.range.valueAsNumber / POSITIONS));
    }, SETTLE_MS);
  }

  private type(): void {
    const value = Number(this.entry.value.trim().replace(",", "."));
    if (this.entry.value.trim() === "" || !Number.isFinite(value)) {
      setText(this.note, "expected a number");
      this.show(this.value);
    } else this.send(value);
  }

  private send(value: number): void {
    if (value === this.asked) return; // Enter, and then the entry is left: two events
    if (value === this.value && this.asked === undefined) {
      this.touched = false;
      this.store.dropDraft(this.param.name);
      return;
    }
    this.touched = true;
    this.asked = value;
    this.show(value);
    this.store.draft(this.param.name, value);
    void this.store.request({ type: "set", name: this.param.name, value }).then((error) => {
      if (!error) this.value = value;
      if (this.asked !== value) return; // another one was chosen meanwhile, and its answer is to come
      this.touched = false;
      this.asked = undefined;
      setText(this.note, error);
      // Refused: back to what the run uses. Taken: the next state brings it; until then it stays as chosen.
      if (error) {
        this.show(this.value);
        this.store.dropDraft(this.param.name);
      } else this.store.draftTaken(this.param.name, value);
    });
  }
}
