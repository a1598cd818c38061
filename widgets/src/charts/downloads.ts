/** What one takes away from the charts: a picture as it stands on the page, and from the kernel every number of the run. */

import { toPng } from "html-to-image";
import { type Dispose, h, listen, setText } from "../dom";
import { lossOfLastStep, type Made } from "../loss_marks";
import type { Store } from "../store";
import type { Theme } from "../theme";

const KINDS = [
  { label: "PNG", title: "The charts as a picture" },
  { label: "CSV", title: "Every step and every metric, as a table" },
  { label: "plotly", title: "The charts as JSON, for plotly.io.from_json" },
] as const;

export function downloads(
  store: Store,
  charts: () => HTMLElement,
  theme: () => Theme,
): { element: HTMLElement; dispose: Dispose } {
  const note = h("span", { class: "ml-note", role: "status" });
  const element = h("div", { class: "ml-downloads", role: "group", "aria-label": "Download" }, note);
  const disposers = KINDS.map(({ label, title }) => {
    const button = h("button", { type: "button", class: "ml-toggle", title: `Download: ${title}` }, label);
    element.append(button);
    return listen(button, "click", () => {
      setText(note, "");
      make(label, store, charts(), theme()).then(save, (error: unknown) => {
        setText(note, error instanceof Error && error.message ? error.message : "not possible here");
      });
    });
  });
  return {
    element,
    dispose: () => {
      for (const dispose of disposers) dispose();
    },
  };
}

interface File {
  name: string;
  url: string;
}

/** What files are called: the recipe, the loss that made the last step where that is known, and the step. */
export function stem(made: Made): string {
  const { state } = made;
  const parts = [state?.recipe || "run", lossOfLastStep(made), `step${state?.steps_done ?? 0}`];
  return parts
    .filter(Boolean)
    .join("-")
    .replace(/[^\w-]+/g, "_")
    .slice(0, 80);
}

async function make(kind: (typeof KINDS)[number]["label"], store: Store, charts: HTMLElement, theme: Theme) {
  const name = stem(store);
  if (kind === "PNG") {
    const url = await toPng(charts, { backgroundColor: theme.surface, pixelRatio: 2, skipFonts: true });
    return { name: `${name}.png`, url };
  }
  const [type, ending, mime] = kind === "CSV" ? (["csv", "csv", "text/csv"] as const) : PLOTLY;
  const text = await store.ask({ type });
  return { name: `${name}.${ending}`, url: URL.createObjectURL(new Blob([text], { type: mime })) };
}

const PLOTLY = ["figure", "plotly.json", "application/json"] as const;

function save({ name, url }: File): void {
  const link = h("a", { href: url, download: name });
  link.click();
  // The browser has taken the address by then.
  if (url.startsWith("blob:")) window.setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
