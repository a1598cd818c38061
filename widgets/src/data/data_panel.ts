/** The data of the run: warnings, numbers, lengths, and rows token by token. While folded, it requests nothing. */

import type { DataReport } from "../data_messages";
import { type Dispose, h, listen, setText } from "../lib/dom";
import type { Theme } from "../lib/theme";
import type { RunStore } from "../run_store";
import { TokenStrip } from "../tokens/token_strip";
import { findingsList } from "./findings";
import { lengthsChart } from "./lengths";
import { RowControl } from "./row_control";

const CAPTION = "what is trained, token by token";

export class DataPanel {
  readonly element: HTMLDetailsElement;
  private readonly caption = h("span", { class: "ml-quiet" }, CAPTION);
  private readonly note = h("p", { class: "ml-quiet ml-tokens-note", role: "status" });
  private readonly problem = h("p", { class: "ml-data-problem", role: "alert" });
  private readonly again = h("button", { class: "ml-button", type: "button" }, "Try again");
  private readonly about = h("p", { class: "ml-quiet ml-data-about" });
  private readonly findings = h("div");
  private readonly numbers = h("dl", { class: "ml-data-numbers", "aria-label": "Numbers about the data" });
  private readonly lengths = h("div", { class: "ml-data-lengths" });
  private readonly rows: RowControl;
  private readonly strip: TokenStrip;
  private readonly content: HTMLElement;
  private readonly disposers: Dispose[] = [];
  /** The run whose data were requested. */
  private requestedEpoch = "";
  /** Why the kernel refused the request; empty if it did not. */
  private refusal = "";
  private drawn: DataReport | null = null;
  /** What of the last report does not change from row to row. */
  private drawnKey = "";

  constructor(
    private readonly store: RunStore,
    theme: () => Theme,
  ) {
    const { view } = store;
    this.rows = new RowControl((rows) => store.request({ type: "data", ...rows }));
    this.strip = new TokenStrip(theme);
    this.content = h(
      "div",
      { class: "ml-data-content", hidden: true },
      this.findings,
      this.numbers,
      this.lengths,
      this.about,
      this.rows.element,
      this.strip.element,
    );
    this.element = h(
      "details",
      { class: "ml-card ml-data-panel", open: view.data },
      h("summary", {}, h("span", { class: "ml-title" }, "Data"), this.caption),
      this.note,
      this.problem,
      this.again,
      this.content,
    );
    this.disposers.push(
      store.subscribe(() => this.draw()),
      listen(this.element, "toggle", () => {
        view.data = this.element.open;
        this.draw();
      }),
      listen(this.again, "click", () => this.request()),
    );
    this.draw();
  }

  dispose(): void {
    for (const dispose of this.disposers.splice(0)) dispose();
    this.rows.dispose();
    this.strip.dispose();
    this.element.remove();
  }

  private draw(): void {
    const { audit, epoch } = this.store;
    setText(this.caption, audit?.heading || CAPTION);
    if (!this.element.open) return;
    const isWaiting = !this.refusal && (audit === null || audit.status === "loading");
    if (isWaiting && epoch && this.requestedEpoch !== epoch) this.request();
    this.note.hidden = !isWaiting;
    const problem = this.refusal || (audit?.problem ?? "");
    this.problem.hidden = this.again.hidden = !problem;
    this.content.hidden = audit?.status !== "ready";
    setText(this.note, isWaiting ? "Loading the tokenizer and the data …" : "");
    setText(this.problem, problem);
    if (audit === this.drawn) return;
    this.drawn = audit;
    if (audit?.status === "ready") this.show(audit);
  }

  private show(report: DataReport): void {
    const { findings, numbers, lengths, about } = report;
    const key = JSON.stringify([findings, numbers, lengths, about]);
    if (key !== this.drawnKey) {
      this.drawnKey = key;
      this.findings.replaceChildren(...(findings.length ? [findingsList(findings)] : []));
      this.numbers.replaceChildren(
        ...numbers.map(({ name, value }) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
      );
      this.lengths.replaceChildren(...lengths.map(lengthsChart));
      setText(this.about, about);
    }
    this.rows.show(report);
    if (report.tokens) this.strip.show(report.tokens);
  }

  private request(): void {
    const { epoch } = this.store;
    this.requestedEpoch = epoch;
    this.refusal = "";
    void this.store.request({ type: "data" }).then((error) => {
      this.refusal = error;
      this.draw();
    });
  }
}
