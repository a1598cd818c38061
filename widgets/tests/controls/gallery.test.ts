// @vitest-environment jsdom
import { describe, expect, it, vi } from "vitest";
import { Gallery } from "../../src/controls/gallery";
import { RunStore } from "../../src/run_store";
import { ResizeObserverStub } from "../page_stubs";
import { FakeKernel, lossEntry, SNAPSHOT, STATE } from "../support";

const PARAM = { name: "beta", default: 0.1, low: 0, high: 1, minimum: 0, doc: "", scale: "linear" as const };
const LOSSES = [
  lossEntry("dpo", { formula: "a + b", params: [PARAM, { ...PARAM, name: "eps", default: 2 }] }),
  lossEntry("nll", { family: "supervised", inputs: [{ name: "weights", here: true }] }),
  lossEntry("ipo", { reason: "it needs <pairs>" }),
  lossEntry("odd", { family: "unknown" }),
];

function scene(isOpen = false) {
  const snapshot = { ...SNAPSHOT, losses: LOSSES, state: { ...STATE, loss: "dpo" } };
  const store = new RunStore(new FakeKernel({ snapshot }));
  store.view.losses = isOpen;
  const events = { onUse: vi.fn(), onEdit: vi.fn(), onOpen: vi.fn() };
  const gallery = new Gallery(store, events);
  document.body.append(gallery.element);
  const { element } = gallery;
  const cards = () => [...element.querySelectorAll<HTMLElement>("article")];
  const button = (name: string, action: string) =>
    element.querySelector<HTMLButtonElement>(`button[data-loss="${name}"][data-action="${action}"]`);
  return { store, events, gallery, element, cards, button };
}

describe("Gallery", () => {
  it("is closed and empty at first, or open if another view opened it", () => {
    const closed = scene();
    expect([closed.element.hidden, closed.cards(), closed.events.onOpen.mock.calls]).toEqual([true, [], []]);
    closed.store.viewChanged();
    expect(closed.cards()).toEqual([]);
    closed.gallery.dispose();
    const open = scene(true);
    expect([open.element.hidden, open.cards().length, open.events.onOpen.mock.calls]).toEqual([false, 4, [[true]]]);
    open.gallery.dispose();
  });

  it("has a card for each loss, by family in the order of the kernel", () => {
    const { element, cards, gallery } = scene(true);
    expect([...element.querySelectorAll("h3, h4")].map(({ textContent }) => textContent)).toEqual([
      ...["Preference", "dpo", "ipo", "Supervised", "nll", "unknown", "odd"],
    ]);
    const [dpo, ipo] = cards() as [HTMLElement, HTMLElement];
    expect([dpo.getAttribute("aria-current"), dpo.dataset.usable]).toEqual(["true", "true"]);
    expect([ipo.getAttribute("aria-current"), ipo.dataset.usable]).toEqual([null, "false"]);
    const text = (card: HTMLElement, selector: string) => card.querySelector(selector)?.textContent;
    expect(text(dpo, ".ml-summary")).toBe("About dpo.");
    expect(text(dpo, ".ml-inputs")).toBe("Reads tokens and weights. Settings: beta 0.1, eps 2.");
    expect(text(ipo, ".ml-inputs")).toBe("Reads tokens and weights.");
    expect([text(dpo, ".ml-reason"), text(ipo, ".ml-reason")]).toEqual([undefined, "Not here: it needs <pairs>."]);
    expect([dpo.querySelectorAll("math").length, ipo.querySelector(".ml-formula")]).toEqual([1, null]);
    gallery.dispose();
  });

  it("uses only a loss that is not in use and can be used", () => {
    const { button, gallery } = scene(true);
    const uses = ["dpo", "nll", "ipo", "odd"].map((name) => button(name, "use"));
    expect(uses.map((use) => [use?.textContent, use?.disabled])).toEqual([
      ["In use", true],
      ["Use", false],
      ["Use", true],
      ["Use", false],
    ]);
    expect(button("ipo", "edit")?.disabled).toBe(false);
    expect(button("ipo", "edit")?.textContent).toBe("Edit as a cell");
    gallery.dispose();
  });

  it("reports the loss to use, and closes", () => {
    const { button, events, element, store, gallery } = scene(true);
    button("nll", "use")?.click();
    expect([events.onUse.mock.calls, events.onEdit.mock.calls]).toEqual([[["nll"]], []]);
    expect([element.hidden, store.view.losses, events.onOpen.mock.lastCall]).toEqual([true, false, [false]]);
    gallery.dispose();
  });

  it("reports the loss to edit, and stays open", () => {
    const { button, events, element, gallery } = scene(true);
    button("ipo", "edit")?.click();
    element.querySelector("h4")?.click();
    expect([events.onUse.mock.calls, events.onEdit.mock.calls, element.hidden]).toEqual([[], [["ipo"]], false]);
    gallery.dispose();
  });

  it("toggles, with the focus on the card in use, and closes on Escape only", () => {
    const { gallery, element, store, events, button } = scene();
    gallery.toggle();
    expect([element.hidden, store.view.losses]).toEqual([false, true]);
    expect(document.activeElement).toBe(button("dpo", "edit"));
    element.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter" }));
    expect(element.hidden).toBe(false);
    element.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
    expect([element.hidden, store.view.losses]).toEqual([true, false]);
    gallery.toggle();
    gallery.toggle();
    expect(events.onOpen.mock.calls.flat()).toEqual([true, false, true, false]);
    store.state = { ...STATE, loss: "gone" };
    gallery.toggle();
    expect(document.activeElement).toBe(button("dpo", "use"));
    gallery.dispose();
  });

  it("follows the losses and the one in use, and redraws nothing else", () => {
    const { store, cards, gallery, button } = scene(true);
    const [first] = cards();
    store.viewChanged();
    expect(cards()[0]).toBe(first);
    store.state = { ...STATE, loss: "nll" };
    store.viewChanged();
    expect([button("dpo", "use")?.disabled, button("nll", "use")?.disabled]).toEqual([false, true]);
    store.receive({ type: "losses", losses: LOSSES.slice(0, 1) }, []);
    expect(cards()).toHaveLength(1);
    gallery.dispose();
  });

  it("keeps the focus where it was when the cards are drawn again", () => {
    const { store, gallery, element, button } = scene();
    gallery.toggle();
    button("ipo", "edit")?.focus();
    store.state = { ...STATE, loss: "nll" };
    store.viewChanged();
    expect(document.activeElement).toBe(button("ipo", "edit"));
    button("dpo", "use")?.focus();
    store.state = { ...STATE, loss: "dpo" };
    store.viewChanged();
    expect(document.activeElement).toBe(button("dpo", "edit"));
    store.receive({ type: "losses", losses: LOSSES.slice(1, 2) }, []);
    expect(document.activeElement).toBe(button("nll", "use"));
    document.activeElement?.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
    expect(element.hidden).toBe(true);
    gallery.dispose();
  });

  it("takes the focus from nobody when the cards are drawn again", () => {
    const { store, gallery } = scene(true);
    const other = document.body.appendChild(document.createElement("input"));
    other.focus();
    store.state = { ...STATE, loss: "nll" };
    store.viewChanged();
    expect(document.activeElement).toBe(other);
    other.remove();
    gallery.dispose();
  });

  it("is silent after dispose", () => {
    const { store, gallery, element, events, button } = scene(true);
    gallery.dispose();
    button("nll", "use")?.click();
    element.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
    store.receive({ type: "losses", losses: [] }, []);
    expect([events.onUse.mock.calls, element.hidden, element.isConnected]).toEqual([[], false, false]);
    expect(element.querySelectorAll("article")).toHaveLength(4);
    expect([...ResizeObserverStub.active].flatMap(({ elements }) => elements)).not.toContain(element);
  });
});
