/** A slider with a text field for each setting of the run and its loss, and the fixed options of its recipe. */

import { type Dispose, h, setAttributes, setText } from "../lib/dom";
import { setting } from "../lib/format";
import { type SliderScale, sliderScale } from "../lib/scale";
import type { OptionEntry, ParamEntry } from "../messages";
import type { RunStore } from "../run_store";

/** Positions of a slider. */
const POSITIONS = 200;
/** A moved slider sends its value after this time without another move. */
const SEND_AFTER_MS = 250;
/** More options than this are folded. */
const MAX_OPEN_OPTIONS = 4;
let counter = 0;

export class Settings {
  readonly element = h("section", { class: "ml-card ml-settings" }, h("div", { class: "ml-label" }, "Settings"));
  private readonly controls = new Map<string, SettingControl>();
  private readonly options = new RecipeOptions();
  private readonly unsubscribe: Dispose;
  private drawnKey = "";

  constructor(private readonly store: RunStore) {
    this.element.append(this.options.element);
    this.unsubscribe = store.subscribe(() => this.draw());
    this.draw();
  }

  dispose(): void {
    this.clear();
    this.unsubscribe();
    this.element.remove();
  }

  private clear(): void {
    for (const control of this.controls.values()) control.dispose();
    this.controls.clear();
  }

  private draw(): void {
    const { state } = this.store;
    if (!state) return;
    const key = JSON.stringify(state.controls.map(({ default: _, ...others }) => others));
    if (key !== this.drawnKey) {
      this.drawnKey = key;
      this.clear();
      for (const param of state.controls) {
        const control = new SettingControl(param, this.store);
        this.controls.set(param.name, control);
        this.options.element.before(control.element);
      }
    }
    this.options.draw(state.recipe, state.options);
    for (const [name, control] of this.controls) control.draw(state.settings[name]);
  }
}

/** The options that a run was made with, which nothing changes afterwards. */
class RecipeOptions {
  private readonly title = h("summary", {});
  private readonly list = h("dl");
  readonly element = h("details", { class: "ml-options", hidden: true }, this.title, this.list);
  private drawnKey = "";

  draw(recipe: string, options: readonly OptionEntry[]): void {
    const key = JSON.stringify([recipe, options]);
    if (key === this.drawnKey) return;
    this.drawnKey = key;
    this.element.hidden = options.length === 0;
    this.element.open = options.length <= MAX_OPEN_OPTIONS;
    setText(this.title, `Options of ${recipe}`);
    this.list.replaceChildren(
      ...options.map(({ name, value, doc }) =>
        h("div", { title: doc, "data-option": name }, h("dt", {}, name), h("dd", {}, value)),
      ),
    );
  }
}

class SettingControl {
  readonly element: HTMLElement;
  private readonly range: HTMLInputElement;
  private readonly entry: HTMLInputElement;
  private readonly note = h("div", { class: "ml-note", role: "alert" });
  private readonly scale: SliderScale;
  /** The value that the run uses. */
  private value = Number.NaN;
  /** The value that was sent and not answered yet. */
  private sentValue: number | undefined;
  private timer = 0;
  /** While a person is choosing, the kernel's value must not move the slider. */
  private isChoosing = false;

  constructor(
    private readonly param: ParamEntry,
    private readonly store: RunStore,
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
    this.range.addEventListener("input", () => this.onSlide());
    this.range.addEventListener("change", () => this.sendLater());
    this.entry.addEventListener("change", () => this.onEntry());
    this.entry.addEventListener("keydown", (event) => {
      // Chromium sends "change" on Enter only inside a form.
      if (event.key === "Enter") this.onEntry();
      if (event.key === "Escape") this.show(this.value);
    });
  }

  dispose(): void {
    window.clearTimeout(this.timer);
    this.store.dropDraft(this.param.name);
    this.element.remove();
  }

  draw(value: number | undefined): void {
    if (value === undefined || this.isChoosing || value === this.value) return;
    this.value = value;
    if (document.activeElement !== this.entry) this.show(value);
  }

  private show(value: number): void {
    const position = this.scale.toPosition(value);
    this.entry.value = Number.isFinite(value) ? setting(value) : "";
    this.range.value = String(Math.round(POSITIONS * position));
    this.showPosition(position, value);
  }

  private showPosition(position: number, value: number): void {
    setAttributes(this.range, { "aria-valuetext": setting(value) });
    this.range.style.setProperty("--ml-position", `${100 * position}%`);
  }

  private sliderValue(): number {
    return this.scale.toValue(this.range.valueAsNumber / POSITIONS);
  }

  private onSlide(): void {
    this.isChoosing = true;
    const value = this.sliderValue();
    this.entry.value = setting(value);
    this.showPosition(this.range.valueAsNumber / POSITIONS, value);
    this.store.draft(this.param.name, value);
  }

  /** Arrow keys change a slider many times in a row; only the last value is sent. */
  private sendLater(): void {
    window.clearTimeout(this.timer);
    this.timer = window.setTimeout(() => this.send(this.sliderValue()), SEND_AFTER_MS);
  }

  private onEntry(): void {
    const value = Number(this.entry.value.trim().replace(",", "."));
    if (this.entry.value.trim() === "" || !Number.isFinite(value)) {
      setText(this.note, "expected a number");
      this.show(this.value);
    } else this.send(value);
  }

  private send(value: number): void {
    if (value === this.sentValue) return; // Enter and then leaving the field are two events
    if (value === this.value && this.sentValue === undefined) {
      this.isChoosing = false;
      this.store.dropDraft(this.param.name);
      return;
    }
    this.isChoosing = true;
    this.sentValue = value;
    this.show(value);
    this.store.draft(this.param.name, value);
    void this.store.request({ type: "set", name: this.param.name, value }).then((error) => {
      if (!error) this.value = value;
      if (this.sentValue !== value) return; // another value was sent since, and its answer will follow
      this.isChoosing = false;
      this.sentValue = undefined;
      setText(this.note, error);
      // If refused, show the run's value again. If accepted, keep the draft until the next state has it.
      if (error) {
        this.show(this.value);
        this.store.dropDraft(this.param.name);
      } else this.store.acceptDraft(this.param.name, value);
    });
  }
}
