/**
 * The icons of the launcher. Its section "Notebook" accepts addresses and no markup, so an icon cannot follow the theme:
 * these colours are visible on light and on dark.
 */

const COLOURS = { frame: "#7d8a91", rise: "#1f8fe0", fall: "#f37726" };

type Stroke = [keyof typeof COLOURS, string];

function dataUrl(...strokes: Stroke[]): string {
  const paths = strokes.map(([colour, path]) => `<path d="${path}" stroke="${COLOURS[colour]}"/>`).join("");
  const style = `fill="none" stroke-width="1.8" stroke-linecap="round" stroke-linejoin="round"`;
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" ${style}>${paths}</svg>`;
  return `data:image/svg+xml,${encodeURIComponent(svg)}`;
}

/** A falling loss and a rising accuracy. */
export const WORKBENCH_ICON = dataUrl(
  ["frame", "M3 3v18h18"],
  ["rise", "M6.5 17.5c6-.5 9-4 13-11"],
  ["fall", "M6.5 6c2 7 5.5 10 13 11"],
);

/** An open book. */
export const LESSONS_ICON = dataUrl(
  ["frame", "M12 6.5C10 4.8 7 4.2 3 4.4V18c4-.2 7 .4 9 2 2-1.6 5-2.2 9-2V4.4c-4-.2-7 .4-9 2.1z"],
  ["frame", "M12 7v12.5"],
  ["rise", "M14.5 14c2-.8 3.2-2.4 4-5"],
  ["fall", "M6 9c.8 2.6 2 4.2 4 5"],
);
