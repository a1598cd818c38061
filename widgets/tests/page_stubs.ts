/** Browser functions that jsdom lacks. Import this module before one that uses them. */

import { vi } from "vitest";

/** A ResizeObserver whose callback a test calls. `active` has those that observe an element. */
export class ResizeObserverStub {
  static readonly active = new Set<ResizeObserverStub>();
  elements: Element[] = [];
  constructor(private readonly callback: () => void) {}
  observe(element: Element): void {
    this.elements.push(element);
    ResizeObserverStub.active.add(this);
  }
  disconnect(): void {
    ResizeObserverStub.active.delete(this);
  }
  /** Report a new size to the observers of `element`. */
  static resize(element: Element): void {
    for (const observer of ResizeObserverStub.active) if (observer.elements.includes(element)) observer.callback();
  }
}

/** What the page asks about the system's colours, and who follows a change of them. */
export const media = { matches: false, query: "", listeners: new Set<() => void>() };

vi.stubGlobal("ResizeObserver", ResizeObserverStub);
vi.stubGlobal("matchMedia", (query: string) => {
  media.query = query;
  return {
    matches: media.matches,
    addEventListener: (_: string, listener: () => void) => media.listeners.add(listener),
    removeEventListener: (_: string, listener: () => void) => media.listeners.delete(listener),
  };
});

/** Elements in the top layer, which jsdom does not have. */
export const openPopovers = new Set<Element>();

const { matches } = Element.prototype;
Object.assign(Element.prototype, {
  matches(this: Element, selector: string) {
    return selector === ":popover-open" ? openPopovers.has(this) : matches.call(this, selector);
  },
  showPopover(this: Element) {
    openPopovers.add(this);
  },
  hidePopover(this: Element) {
    openPopovers.delete(this);
  },
});
