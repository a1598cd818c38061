/** The list of all running runs, above the status bar: each can be shown and stopped. */

import { h, icon, setText } from "../../src/lib/dom";
import type { RunDetail } from "../../src/lib/events";
import { statusTexts } from "./runs";

interface Row {
  element: HTMLElement;
  loss: HTMLElement;
  progress: HTMLElement;
  stop: HTMLButtonElement;
  run: RunDetail;
}

interface Actions {
  show: (run: RunDetail) => void;
  stop: (run: RunDetail) => void;
}

export class RunMenu {
  readonly element = h("div", {
    class: "mint-lab-run-menu",
    role: "dialog",
    "aria-label": "Training runs",
    hidden: true,
  });
  private readonly rows = new Map<string, Row>();
  private readonly onKey = (event: KeyboardEvent) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    this.close();
    this.button.focus();
  };
  private readonly onPress = (event: Event) => {
    const target = event.target as Node;
    if (!this.element.contains(target) && !this.button.contains(target)) this.close();
  };

  /** @param button Opens and closes the menu. */
  constructor(
    private readonly button: HTMLButtonElement,
    private readonly actions: Actions,
  ) {
    button.setAttribute("aria-haspopup", "dialog");
    button.setAttribute("aria-expanded", "false");
    button.addEventListener("click", () => (this.element.hidden ? this.open() : this.close()));
  }

  dispose(): void {
    this.close();
    this.element.remove();
  }

  /**
   * @param runs The running runs.
   * @param stopping Epochs of those that were asked to stop.
   */
  draw(runs: readonly RunDetail[], stopping: ReadonlySet<string>): void {
    const kept = new Set(runs.map(({ epoch }) => epoch));
    const hadFocus = this.element.contains(document.activeElement);
    for (const [epoch, row] of this.rows) {
      if (kept.has(epoch)) continue;
      row.element.remove();
      this.rows.delete(epoch);
    }
    for (const run of runs) {
      const row = this.rows.get(run.epoch) ?? this.addRow(run);
      row.run = run;
      const { step, loss, metric } = statusTexts(run);
      setText(row.loss, loss);
      setText(row.progress, [step, metric].filter(Boolean).join(", "));
      row.stop.disabled = stopping.has(run.epoch);
    }
    if (runs.length === 0) this.close();
    else if (hadFocus && !this.element.contains(document.activeElement)) this.focus();
  }

  private addRow(run: RunDetail): Row {
    const loss = h("bdi", { class: "mint-lab-run-menu-loss" });
    const progress = h("span", { class: "mint-lab-status-number" });
    const show = h(
      "button",
      { type: "button", class: "mint-lab-run-menu-show", title: "Show the notebook of this run" },
      ...[loss, progress],
    );
    const stop = h(
      "button",
      { type: "button", class: "mint-lab-run-menu-stop", title: "Stop this run after the current step" },
      ...[icon("stop"), "Stop"],
    );
    const row: Row = { element: h("div", { class: "mint-lab-run-menu-row" }, show, stop), loss, progress, stop, run };
    show.addEventListener("click", () => {
      this.close();
      this.actions.show(row.run);
    });
    stop.addEventListener("click", () => this.actions.stop(row.run));
    this.rows.set(run.epoch, row);
    this.element.append(row.element);
    return row;
  }

  private open(): void {
    const place = this.button.getBoundingClientRect();
    Object.assign(this.element.style, {
      left: `${place.left}px`,
      bottom: `${window.innerHeight - place.top + 2}px`,
    });
    document.body.append(this.element);
    this.element.hidden = false;
    this.button.setAttribute("aria-expanded", "true");
    document.addEventListener("pointerdown", this.onPress, true);
    document.addEventListener("keydown", this.onKey, true);
    this.focus();
  }

  private focus(): void {
    this.element.querySelector("button")?.focus();
  }

  private close(): void {
    this.element.hidden = true;
    this.button.setAttribute("aria-expanded", "false");
    document.removeEventListener("pointerdown", this.onPress, true);
    document.removeEventListener("keydown", this.onKey, true);
  }
}
