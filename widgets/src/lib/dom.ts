/** Elements without HTML strings: text from a model, a loss or a metric always becomes a text node. */

export type Dispose = () => void;

const FOCUSABLE = new Set(["a", "button", "input", "select", "summary"]);

type Attributes = Record<string, string | number | boolean | null | undefined>;

/** Create an element. An attribute that is false, null or undefined is left out; one that is true is empty. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  // JupyterLab looks for this attribute on the focused element itself. Without it, arrow keys move between cells.
  if (FOCUSABLE.has(tag)) element.setAttribute("data-lm-suppress-shortcuts", "true");
  setAttributes(element, attributes);
  element.append(...children);
  return element;
}

export function setAttributes(element: Element, attributes: Attributes): void {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) element.removeAttribute(name);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
}

/** Write the text only if it differs, to avoid a new layout of the page. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

const ICONS = {
  play: "M4 2.5v11l9-5.5z",
  pause: "M4 3h3v10H4zM9 3h3v10H9z",
  step: "M3 3v10l7-5zM11 3h2v10h-2z",
  stop: "M3.5 3.5h9v9h-9z",
  again: "M8 3a5 5 0 1 1-4.6 3H5a3.5 3.5 0 1 0 3-1.5V7L4.5 3.8 8 .5z",
};

export type IconName = keyof typeof ICONS;

export function icon(name: IconName): SVGSVGElement {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  setAttributes(svg, { viewBox: "0 0 16 16", width: 13, height: 13, "aria-hidden": "true", fill: "currentColor" });
  const path = document.createElementNS(space, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

export function listen<K extends keyof HTMLElementEventMap>(
  target: HTMLElement,
  type: K,
  handler: (event: HTMLElementEventMap[K]) => void,
): Dispose {
  target.addEventListener(type, handler);
  return () => target.removeEventListener(type, handler);
}
