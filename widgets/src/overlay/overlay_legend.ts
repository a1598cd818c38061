/** Which line is which run; a press hides a run in all charts, and shows it again. */

import { type Dispose, h, listen, setAttributes, setText } from "../dom";
import { thousands } from "../format";
import type { Theme } from "../theme";
import { visible } from "../tokens/text";
import type { OverlayRun } from "./curves";
import type { OverlayView } from "./grid";
import { sample, styleOf } from "./styles";

interface Entry {
  button: HTMLButtonElement;
  steps: HTMLElement;
  drawn: string;
  forget: Dispose;
}

export class OverlayLegend {
  readonly element = h("div", { class: "ml-runs", role: "group", "aria-label": "Runs" });
  private readonly entries: Entry[] = [];

  constructor(
    private readonly runs: () => readonly OverlayRun[],
    private readonly view: OverlayView,
    private readonly theme: () => Theme,
    private readonly changed: () => void,
  ) {}

  dispose(): void {
    for (const entry of this.entries.splice(0)) entry.forget();
    this.element.remove();
  }

  draw(): void {
    const runs = this.runs();
    while (this.entries.length > runs.length) {
      const entry = this.entries.pop();
      entry?.forget();
      entry?.button.remove();
    }
    runs.forEach((run, place) => {
      this.entries[place] ??= this.entry(place);
      this.fill(this.entries[place] as Entry, run, place);
    });
  }

  private entry(place: number): Entry {
    const steps = h("span", { class: "ml-runs-steps" });
    const button = h("button", { type: "button", class: "ml-run" });
    const forget = listen(button, "click", () => {
      const label = this.runs()[place]?.label ?? "";
      if (!this.view.hidden.delete(label)) this.view.hidden.add(label);
      this.changed();
    });
    this.element.append(button);
    return { button, steps, drawn: "", forget };
  }

  private fill(entry: Entry, { label, store }: OverlayRun, place: number): void {
    const { dark } = this.theme();
    const key = `${label} ${store.state?.loss_label} ${styleOf(place, dark).colour}`;
    if (entry.drawn !== key) {
      entry.drawn = key;
      const told = `${visible(label)}: ${visible(store.state?.loss_label ?? "")}`;
      const name = h("bdi", { class: "ml-run-label", title: told }, visible(label));
      entry.button.replaceChildren(sample(place, dark), name, entry.steps);
    }
    const { state } = store;
    const steps = `${thousands(state?.steps_done ?? 0)} / ${thousands(state?.steps_total ?? 0)}`;
    const failed = state?.failure ? "failed" : (state?.status ?? "");
    setText(entry.steps, failed === "failed" ? `${steps} failed` : steps);
    const shown = !this.view.hidden.has(label);
    setAttributes(entry.button, {
      "aria-pressed": String(shown),
      "data-run": label,
      "data-status": failed,
      "data-steps": state?.steps_done ?? 0,
      title: shown ? "Hide this run in all charts" : "Show this run again",
    });
  }
}
