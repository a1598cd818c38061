/** The legend of several runs: line style, label and progress. A press hides a run in all charts or shows it again. */

import { type Dispose, h, listen, setAttributes, setText } from "../lib/dom";
import { thousands } from "../lib/format";
import { visible } from "../lib/text";
import type { Theme } from "../lib/theme";
import type { LabelledRun, OverlayView } from "../multi_run_store";
import { lineSample, runStyle } from "./run_style";

interface Entry {
  button: HTMLButtonElement;
  steps: HTMLElement;
  drawnKey: string;
  dispose: Dispose;
}

export class OverlayLegend {
  readonly element = h("div", { class: "ml-runs", role: "group", "aria-label": "Runs" });
  private readonly entries: Entry[] = [];

  constructor(
    private readonly runs: () => readonly LabelledRun[],
    private readonly view: OverlayView,
    private readonly theme: () => Theme,
    private readonly onChange: () => void,
  ) {}

  dispose(): void {
    for (const entry of this.entries.splice(0)) entry.dispose();
    this.element.remove();
  }

  draw(): void {
    const runs = this.runs();
    while (this.entries.length > runs.length) {
      const entry = this.entries.pop();
      entry?.dispose();
      entry?.button.remove();
    }
    runs.forEach((run, index) => {
      this.entries[index] ??= this.createEntry(index);
      this.fill(this.entries[index] as Entry, run, index);
    });
  }

  private createEntry(index: number): Entry {
    const steps = h("span", { class: "ml-runs-steps" });
    const button = h("button", { type: "button", class: "ml-run" });
    const dispose = listen(button, "click", () => {
      const label = this.runs()[index]?.label ?? "";
      if (!this.view.hidden.delete(label)) this.view.hidden.add(label);
      this.onChange();
    });
    this.element.append(button);
    return { button, steps, drawnKey: "", dispose };
  }

  private fill(entry: Entry, { label, store }: LabelledRun, index: number): void {
    const { dark } = this.theme();
    const { state } = store;
    const key = `${label} ${state?.loss_label} ${runStyle(index, dark).colour}`;
    if (entry.drawnKey !== key) {
      entry.drawnKey = key;
      const title = `${visible(label)}: ${visible(state?.loss_label ?? "")}`;
      const name = h("bdi", { class: "ml-run-label", title }, visible(label));
      entry.button.replaceChildren(lineSample(index, dark), name, entry.steps);
    }
    const steps = `${thousands(state?.steps_done ?? 0)} / ${thousands(state?.steps_total ?? 0)}`;
    const status = state?.failure ? "failed" : (state?.status ?? "");
    setText(entry.steps, status === "failed" ? `${steps} failed` : steps);
    const isShown = !this.view.hidden.has(label);
    setAttributes(entry.button, {
      "aria-pressed": String(isShown),
      "data-run": label,
      "data-status": status,
      "data-steps": state?.steps_done ?? 0,
      title: isShown ? "Hide this run in all charts" : "Show this run again",
    });
  }
}
