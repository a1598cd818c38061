/** Examples of the run token by token, below the charts. While folded, it requests nothing. */

import { type Dispose, h, listen, setText } from "../lib/dom";
import type { Theme } from "../lib/theme";
import type { RunStore } from "../run_store";
import { TokenStrip } from "../tokens/token_strip";

/** Time between two requests, at least. */
const MIN_REQUEST_INTERVAL_MS = 500;

export class TokensPanel {
  readonly element: HTMLDetailsElement;
  private readonly caption = h("span", { class: "ml-quiet" });
  private readonly note = h("p", { class: "ml-quiet ml-tokens-note" });
  private readonly strip: TokenStrip;
  private readonly disposers: Dispose[] = [];
  /** What the last request was for. */
  private requestedKey = "";
  private drawn: unknown = null;
  private lastRequestMs = 0;
  private timer = 0;

  constructor(
    private readonly store: RunStore,
    theme: () => Theme,
  ) {
    const { view } = store;
    this.strip = new TokenStrip(theme, view.by, (by) => {
      view.by = by;
    });
    this.strip.element.hidden = true;
    this.element = h(
      "details",
      { class: "ml-card ml-tokens-panel", open: view.tokens },
      h("summary", {}, h("span", { class: "ml-title" }, "Tokens"), this.caption),
      this.note,
      this.strip.element,
    );
    this.disposers.push(
      store.subscribe(() => this.draw()),
      listen(this.element, "toggle", () => {
        view.tokens = this.element.open;
        this.draw();
      }),
    );
    this.draw();
  }

  dispose(): void {
    window.clearTimeout(this.timer);
    for (const dispose of this.disposers.splice(0)) dispose();
    this.strip.dispose();
    this.element.remove();
  }

  private draw(): void {
    const { state, tokens } = this.store;
    setText(this.caption, `${state?.tokens_about ?? ""}, with the gradient of the loss at each token`);
    if (!this.element.open) return;
    this.requestTokens();
    if (tokens !== this.drawn) {
      this.drawn = tokens;
      if (tokens) this.strip.show(tokens);
    }
    this.strip.element.hidden = !tokens;
    this.note.hidden = tokens !== null;
    const hasSteps = (state?.steps_done ?? 0) > 0;
    setText(this.note, hasSteps ? "Waiting for the model …" : "The tokens appear after the first step.");
  }

  /** Request the tokens if an evaluation, an edit or a pause has changed them since the last request. */
  private requestTokens(): void {
    const { state, epoch, history } = this.store;
    if (!state || state.steps_done === 0) return;
    const evaluated = [...history.series].map(([name, series]) =>
      name.startsWith("held_out/") ? (series.steps.at(-1) ?? 0) : 0,
    );
    const atRest = state.status === "running" ? "" : `${state.status} ${state.steps_done}`;
    const key = JSON.stringify([epoch, Math.max(0, ...evaluated), atRest, state.loss_label, state.settings]);
    if (key === this.requestedKey) return;
    const waitMs = this.lastRequestMs + MIN_REQUEST_INTERVAL_MS - Date.now();
    window.clearTimeout(this.timer);
    if (waitMs > 0) {
      this.timer = window.setTimeout(() => this.draw(), waitMs);
      return;
    }
    this.requestedKey = key;
    this.lastRequestMs = Date.now();
    void this.store.request({ type: "tokens" }).then((error) => {
      if (error) this.requestedKey = "";
    });
  }
}
