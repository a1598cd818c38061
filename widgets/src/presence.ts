/**
 * Tells the kernel when no output of a notebook shows a widget any more: its cell was deleted or run again, or its output
 * was cleared. The kernel then pauses what the widget trains.
 *
 * A closed notebook is no reason to pause: people leave a training running and come back.
 */

import type { Dispose } from "./lib/dom";
import type { Model } from "./requests";

/** A cell that is moved loses its view and gets another one at once. */
export const UNSEEN_AFTER_MS = 2000;

/** The notebook of an output in JupyterLab and Notebook 7. In other programs, nothing is known of the output. */
const NOTEBOOK = ".jp-Notebook";

export class Presence {
  private readonly views = new Set<HTMLElement>();
  private notebook: Element | null = null;
  private timer: number | undefined;
  private isUnseen = false;

  constructor(private readonly model: Pick<Model, "send">) {}

  /** Record that `el` shows the widget, until the returned function is called. */
  addView(el: HTMLElement): Dispose {
    this.views.add(el);
    window.clearTimeout(this.timer);
    if (this.isUnseen) {
      this.isUnseen = false;
      this.send("seen");
    }
    // A view is rendered before it is in the document.
    const onLayout = new ResizeObserver(() => {
      this.notebook = el.closest(NOTEBOOK) ?? this.notebook;
    });
    onLayout.observe(el);
    return () => {
      onLayout.disconnect();
      this.views.delete(el);
      if (this.views.size > 0) return;
      window.clearTimeout(this.timer);
      this.timer = window.setTimeout(() => this.check(), UNSEEN_AFTER_MS);
    };
  }

  dispose(): void {
    window.clearTimeout(this.timer);
  }

  private check(): void {
    if (this.views.size > 0 || !this.notebook?.isConnected) return;
    this.isUnseen = true;
    this.send("unseen");
  }

  private send(type: "seen" | "unseen"): void {
    try {
      this.model.send({ type });
    } catch {
      // Without a kernel nothing trains.
    }
  }
}
