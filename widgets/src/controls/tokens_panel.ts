/** Held-out examples token by token, below the charts. Folded, it asks for nothing and costs the run nothing. */

import { type Dispose, h, listen, setText } from "../dom";
import type { Store } from "../store";
import type { Theme } from "../theme";
import { TokenStrip } from "../tokens/strip";

/** Between two requests at least. */
const PAUSE_MS = 500;

export class TokensPanel {
  readonly element: HTMLDetailsElement;
  private readonly caption = h("span", { class: "ml-quiet" });
  private readonly note = h("p", { class: "ml-quiet ml-tokens-note" });
  private readonly strip: TokenStrip;
  private readonly disposers: Dispose[] = [];
  private asked = "";
  private shown: unknown = null;
  private last = 0;
  private timer = 0;

  constructor(
    private readonly store: Store,
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
    const what = this.store.state?.recipe === "rl" ? "responses of the last rollout" : "held-out examples";
    setText(this.caption, `${what}, coloured by what the loss asks of each token`);
    if (!this.element.open) return;
    this.ask();
    const { tokens } = this.store;
    if (tokens !== this.shown) {
      this.shown = tokens;
      if (tokens) this.strip.show(tokens);
    }
    this.strip.element.hidden = !tokens;
    this.note.hidden = tokens !== null;
    const begun = (this.store.state?.steps_done ?? 0) > 0;
    setText(this.note, begun ? "Asking the model …" : "The tokens come with the first step.");
  }

  /** Asks again when an evaluation, an edit or a pause has changed what there is to see. */
  private ask(): void {
    const { state, epoch, history } = this.store;
    if (!state || state.steps_done === 0) return;
    const evaluated = [...history.series].map(([name, series]) =>
      name.startsWith("held_out/") ? (series.steps.at(-1) ?? 0) : 0,
    );
    const resting = state.status === "running" ? "" : `${state.status} ${state.steps_done}`;
    const wanted = JSON.stringify([epoch, Math.max(0, ...evaluated), resting, state.loss_label, state.settings]);
    if (wanted === this.asked) return;
    const wait = this.last + PAUSE_MS - Date.now();
    window.clearTimeout(this.timer);
    if (wait > 0) {
      this.timer = window.setTimeout(() => this.draw(), wait);
      return;
    }
    this.asked = wanted;
    this.last = Date.now();
    void this.store.request({ type: "tokens" }).then((error) => {
      if (error) this.asked = "";
    });
  }
}
