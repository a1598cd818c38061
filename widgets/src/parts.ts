/** The parts of the workbench as separate widgets, for a notebook with its own arrangement; and the token view. */

import { ChartGrid } from "./charts/chart_grid";
import { runButtons } from "./controls/buttons";
import { Notices } from "./controls/notices";
import { LossPicker } from "./controls/picker";
import { SamplesPanel } from "./controls/samples_panel";
import { Settings } from "./controls/settings";
import { StepMenu } from "./controls/step_menu";
import { Warnings } from "./controls/warnings";
import { type Dispose, h } from "./lib/dom";
import type { Theme } from "./lib/theme";
import type { Tokens } from "./messages";
import { page } from "./page";
import type { RunStore } from "./run_store";
import { TokenStrip } from "./tokens/token_strip";

interface Content {
  elements: HTMLElement[];
  dispose: Dispose;
}

type Part = (store: RunStore, el: HTMLElement) => Dispose;

function part(label: string, create: (store: RunStore, theme: () => Theme) => Content): Part {
  return (store, el) => {
    const { root, theme, dispose } = page(el, label);
    const content = create(store, theme);
    root.append(...content.elements);
    return () => {
      content.dispose();
      dispose();
    };
  };
}

/** `LiveCharts`: the charts of a run. */
export const liveCharts = part("Live charts", (store, theme) => {
  const menu = new StepMenu(store, false);
  const grid = new ChartGrid(store, theme, (place) => menu.open(place));
  const dispose = () => {
    grid.dispose();
    menu.dispose();
  };
  return { elements: [grid.element, menu.element], dispose };
});

/** `RunControls`: Start, Pause, Step, Stop, progress, and why a step failed. */
export const runControls = part("Run controls", (store) => {
  const notices = new Notices(store);
  const buttons = runButtons(store, (message) => notices.showRefusal(message), false);
  const dispose = () => {
    buttons.dispose();
    notices.dispose();
  };
  return { elements: [buttons.element, notices.element], dispose };
});

/** `LossPicker`: the loss with its settings. */
export const lossPicker = part("Loss", (store) => {
  const refusal = h("p", { class: "ml-reason", role: "status" });
  const picker = new LossPicker(store, (message) => {
    refusal.textContent = message;
  });
  const settings = new Settings(store);
  const side = h("div", { class: "ml-side ml-side-alone" }, picker.element, settings.element);
  const dispose = () => {
    picker.dispose();
    settings.dispose();
  };
  return { elements: [side, refusal, picker.wide], dispose };
});

/** `SamplesTable`: the latest responses of the model. */
export const samplesTable = part("Responses", (store, theme) => {
  const samples = new SamplesPanel(store, theme);
  return { elements: [samples.element], dispose: () => samples.dispose() };
});

/** `Warnings`: advice of the run about itself. */
export const warnings = part("Warnings", (store) => {
  const list = new Warnings(store, true);
  return { elements: [list.element], dispose: () => list.dispose() };
});

/** `TokenView`: sequences with every token coloured by a number. It shows data, not a run. */
export function tokenView(model: { get(name: string): unknown }, el: HTMLElement): Dispose {
  const { root, theme, dispose } = page(el, "Tokens");
  const strip = new TokenStrip(theme);
  root.append(strip.element);
  strip.show(model.get("tokens") as Tokens);
  return () => {
    strip.dispose();
    dispose();
  };
}
