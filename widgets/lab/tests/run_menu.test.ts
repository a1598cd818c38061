// @vitest-environment jsdom
import { afterEach, describe, expect, it, vi } from "vitest";
import type { RunDetail } from "../../src/lib/events";
import { RunMenu } from "../src/run_menu";

afterEach(() => document.body.replaceChildren());

const run = (epoch: string, change: Partial<RunDetail> = {}): RunDetail => ({
  ...{ epoch, status: "running", step: 1, steps: 100, loss: `${epoch} v1`, metric: null, failed: null, element: null },
  stop: async () => "",
  ...change,
});

function scene() {
  const button = document.createElement("button");
  document.body.append(button);
  const shown: string[] = [];
  const stopped: string[] = [];
  const menu = new RunMenu(button, {
    show: ({ epoch }) => shown.push(epoch),
    stop: ({ epoch, step }) => stopped.push(`${epoch} after ${step}`),
  });
  const rows = () => [...menu.element.querySelectorAll(".mint-lab-run-menu-row")];
  const buttons = (row: number) => [...(rows()[row]?.querySelectorAll("button") ?? [])] as HTMLButtonElement[];
  return { button, menu, rows, buttons, shown, stopped };
}

describe("RunMenu", () => {
  it("lists the running runs, with their numbers as text", () => {
    const { menu, rows } = scene();
    menu.draw([run("a"), run("<b>", { step: 7, metric: { name: "reward", value: 0.5 } })], new Set());
    expect(rows().map(({ textContent }) => textContent)).toEqual([
      "a v1step 1 / 100Stop",
      "<b> v1step 7 / 100, reward 0.500Stop",
    ]);
    const [first] = rows();
    menu.draw([run("a", { step: 2 })], new Set());
    expect(rows()).toEqual([first]);
    expect(first?.textContent).toBe("a v1step 2 / 100Stop");
  });

  it("stops and shows the run as it is now", () => {
    const { button, menu, buttons, shown, stopped } = scene();
    menu.draw([run("a"), run("b")], new Set());
    menu.draw([run("a", { step: 5 }), run("b", { step: 6 })], new Set(["a"]));
    expect([buttons(0)[1]?.disabled, buttons(1)[1]?.disabled]).toEqual([true, false]);
    button.click();
    buttons(1)[1]?.click();
    expect(stopped).toEqual(["b after 6"]);
    buttons(0)[0]?.click();
    expect([shown, menu.element.hidden]).toEqual([["a"], true]);
  });

  it("opens and closes by its button, by Escape and by a press elsewhere", () => {
    const { button, menu } = scene();
    menu.draw([run("a"), run("b")], new Set());
    const state = () => [menu.element.hidden, button.getAttribute("aria-expanded")];
    expect(state()).toEqual([true, "false"]);
    button.click();
    expect(state()).toEqual([false, "true"]);
    expect(menu.element.contains(document.activeElement)).toBe(true);
    button.click();
    expect(state()).toEqual([true, "false"]);
    button.click();
    menu.element.dispatchEvent(new KeyboardEvent("keydown", { key: "a", bubbles: true }));
    expect(state()).toEqual([false, "true"]);
    menu.element.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
    expect([...state(), document.activeElement]).toEqual([true, "false", button]);
    button.click();
    menu.element.dispatchEvent(new Event("pointerdown", { bubbles: true }));
    expect(menu.element.hidden).toBe(false);
    document.body.dispatchEvent(new Event("pointerdown", { bubbles: true }));
    expect(menu.element.hidden).toBe(true);
  });

  it("keeps the focus when the run of the focused button ends, and closes by Escape from anywhere", () => {
    const { button, menu, buttons } = scene();
    menu.draw([run("a"), run("b")], new Set());
    button.click();
    buttons(0)[1]?.focus();
    menu.draw([run("b")], new Set());
    expect(document.activeElement).toBe(buttons(0)[0]);
    document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
    expect(menu.element.hidden).toBe(true);
    const press = new KeyboardEvent("keydown", { key: "Escape", bubbles: true });
    const passed = vi.fn();
    document.body.addEventListener("keydown", passed, { once: true });
    document.body.dispatchEvent(press);
    expect(passed).toHaveBeenCalledOnce();
  });

  it("closes when no run is left, and leaves nothing behind", () => {
    const { button, menu } = scene();
    menu.draw([run("a")], new Set());
    button.click();
    menu.draw([], new Set());
    expect(menu.element.hidden).toBe(true);
    menu.dispose();
    expect(menu.element.isConnected).toBe(false);
  });
});
