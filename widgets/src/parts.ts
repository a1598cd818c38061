/** The parts of the workbench, each alone: for a notebook that wants its own arrangement. */

import { RunControls } from "./controls/buttons";
import { Notices } from "./controls/notices";
import { LossPicker } from "./controls/picker";
import { SamplesPanel } from "./controls/samples";
import { Settings } from "./controls/settings";
import { Warnings } from "./controls/warnings";
import { type Dispose, h } from "./dom";
import { page } from "./page";
import type { Store } from "./store";
import type { Theme } from "./theme";

interface Piece {
  elements: HTMLElement[];
  dispose: Dispose;
}

type Part = (store: Store, el: HTMLElement) => Dispose;

function alone(label: string, make: (store: Store, theme: () => Theme) => Piece): Part {
  return (store, el) => {
    const { root, theme, dispose } = page(el, label);
    const piece = make(store, theme);
    root.append(...piece.elements);
    return () => {
      piece.dispose();
      dispose();
    };
  };
}

/** Start, Pause, Step, Stop, progress, and what went wrong. */
export const runControls = alone("Run controls", (store) => {
  const notices = new Notices(store);
  const controls = new RunControls(store, (message) => notices.refuse(message), false);
  const dispose = () => {
    controls.dispose();
    notices.dispose();
  };
  return { elements: [controls.element, notices.element], dispose };
});

/** The loss with its settings. */
export const lossPicker = alone("Loss", (store) => {
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

export const samplesTable = alone("Responses", (store, theme) => {
  const samples = new SamplesPanel(store, theme);
  return { elements: [samples.element], dispose: () => samples.dispose() };
});

export const warnings = alone("Warnings", (store) => {
  const list = new Warnings(store, true);
  return { elements: [list.element], dispose: () => list.dispose() };
});
