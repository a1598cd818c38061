/** How far a run is, or several together: the bar, the numbers below it and the word for its state. */

import { h, setAttributes, setText } from "./dom";
import { duration, thousands } from "./format";

export type Shown = {
  done: number;
  /** 0 where nobody knows. */
  total: number;
  stepsPerSecond: number;
  running: boolean;
  /** What stands where "step 3 / 10" would. */
  count?: string;
  status: string;
};

export class Progress {
  readonly element: HTMLElement;
  readonly status = h("span", { class: "ml-status", role: "status" });
  private readonly fill = h("div", { class: "ml-fill" });
  private readonly track: HTMLElement;
  private readonly count = h("span", { class: "ml-count" });
  private readonly rate = h("span", { class: "ml-rate" });
  private readonly left = h("span", { class: "ml-left" });

  constructor(label: string) {
    this.track = h(
      "div",
      { class: "ml-track", role: "progressbar", "aria-label": label, "aria-valuemin": 0 },
      this.fill,
    );
    const numbers = h("div", { class: "ml-numbers" }, this.count, this.rate, this.left);
    this.element = h("div", { class: "ml-progress" }, this.track, numbers);
  }

  show({ done, total, stepsPerSecond: rate, running, count, status }: Shown): void {
    this.fill.style.width = total > 0 ? `${(100 * Math.min(done, total)) / total}%` : "0";
    setAttributes(this.track, { "aria-valuemax": total || null, "aria-valuenow": done });
    setText(this.count, count ?? `step ${thousands(done)}${total ? ` / ${thousands(total)}` : ""}`);
    setText(this.rate, rate > 0 ? `${rate.toFixed(rate < 10 ? 1 : 0)} steps/s` : "");
    setText(this.left, running && rate > 0 && total ? `${duration((total - done) / rate)} left` : "");
    if (this.status.dataset.status !== status) {
      this.status.dataset.status = status;
      this.status.replaceChildren(h("i"), status);
    }
  }
}
