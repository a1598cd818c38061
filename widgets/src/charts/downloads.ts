/** Downloads of the charts: a picture as on the page, and from the kernel all numbers and a plotly figure. */

import { toPng } from "html-to-image";
import { type Dispose, h, listen, setText } from "../lib/dom";
import type { Theme } from "../lib/theme";
import type { State } from "../messages";
import type { RunStore } from "../run_store";

const FORMATS = [
  { label: "PNG", title: "The charts as a picture" },
  { label: "CSV", title: "Every step and every metric, as a table" },
  { label: "plotly", title: "The charts as JSON, for plotly.io.from_json" },
] as const;

type Format = (typeof FORMATS)[number]["label"];

/** The formats that the kernel writes. */
const DOCUMENTS = {
  CSV: { type: "csv", extension: "csv", mime: "text/csv" },
  plotly: { type: "figure", extension: "plotly.json", mime: "application/json" },
} as const;

/** The browser has read a blob's address by then. */
const REVOKE_AFTER_MS = 10_000;

export function downloads(
  store: RunStore,
  charts: () => HTMLElement,
  theme: () => Theme,
): { element: HTMLElement; dispose: Dispose } {
  const note = h("span", { class: "ml-note", role: "status" });
  const element = h("div", { class: "ml-downloads", role: "group", "aria-label": "Download" }, note);
  const disposers = FORMATS.map(({ label, title }) => {
    const button = h("button", { type: "button", class: "ml-toggle", title: `Download: ${title}` }, label);
    element.append(button);
    return listen(button, "click", () => {
      setText(note, "");
      create(label, store, charts(), theme()).then(save, (error: unknown) => {
        setText(note, error instanceof Error && error.message ? error.message : "not possible in this browser");
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

/** Name of a file without extension: the recipe, the loss that made the last step, and the step. */
export function fileStem(state: State | null): string {
  const parts = [state?.recipe || "run", state?.last_loss, `step${state?.steps_done ?? 0}`];
  return parts
    .filter(Boolean)
    .join("-")
    .replace(/[^\w-]+/g, "_")
    .slice(0, 80);
}

async function create(format: Format, store: RunStore, charts: HTMLElement, theme: Theme): Promise<File> {
  const stem = fileStem(store.state);
  if (format === "PNG") {
    const url = await toPng(charts, { backgroundColor: theme.surface, pixelRatio: 2, skipFonts: true });
    return { name: `${stem}.png`, url };
  }
  const { type, extension, mime } = DOCUMENTS[format];
  const text = await store.requestText({ type });
  return { name: `${stem}.${extension}`, url: URL.createObjectURL(new Blob([text], { type: mime })) };
}

function save({ name, url }: File): void {
  const link = h("a", { href: url, download: name });
  link.click();
  if (url.startsWith("blob:")) window.setTimeout(() => URL.revokeObjectURL(url), REVOKE_AFTER_MS);
}
