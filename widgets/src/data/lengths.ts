/** Histograms of lengths as bars, with the limit as a dashed line. The label has the numbers for those who do not see it. */

import type { LengthsEntry } from "../data_messages";
import { h } from "../lib/dom";
import { thousands } from "../lib/format";

/** Where the limit lies across the bars, 0 to 1; null without one, or if it lies beyond them. */
export function limitPlace({ start, width, counts, limit }: LengthsEntry): number | null {
  const end = start + width * counts.length;
  if (limit === null || limit + 1 < start || limit + 1 > end) return null;
  return (limit + 1 - start) / (end - start);
}

export function lengthsChart(entry: LengthsEntry): HTMLElement {
  const { name, start, width, counts, longest, limit } = entry;
  const highest = Math.max(...counts, 1);
  const bars = counts.map((count, i) => {
    const low = start + i * width;
    const lengths = width === 1 ? `${low}` : `${low} to ${low + width - 1}`;
    const bar = h("span", { class: "ml-lengths-bar", title: `${lengths} tokens: ${thousands(count)}` });
    bar.style.height = `${count ? Math.max((100 * count) / highest, 1.5) : 0}%`;
    return bar;
  });
  const place = limitPlace(entry);
  if (place !== null) {
    const mark = h("span", { class: "ml-lengths-limit" });
    mark.style.left = `${100 * place}%`;
    bars.push(mark);
  }
  const limitText = limit === null ? "" : `limit ${thousands(limit)}`;
  const peak = start + width * counts.indexOf(highest);
  const label = `${name}: ${start} to ${longest} tokens, most often ${width === 1 ? "" : "from "}${peak}`;
  return h(
    "figure",
    { class: "ml-lengths", "data-name": name },
    h("figcaption", {}, name, h("span", { class: "ml-quiet" }, limitText)),
    h(
      "div",
      { class: "ml-lengths-bars", role: "img", "aria-label": limitText ? `${label}; ${limitText}` : label },
      ...bars,
    ),
    h(
      "div",
      { class: "ml-lengths-ends", "aria-hidden": "true" },
      h("span", {}, thousands(start)),
      h("span", {}, `${thousands(longest)} tokens`),
    ),
  );
}
