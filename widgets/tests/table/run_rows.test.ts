// @vitest-environment jsdom
import { afterEach, describe, expect, it } from "vitest";
import { MultiRunStore } from "../../src/multi_run_store";
import { runStyle } from "../../src/overlay/run_style";
import type { RunRow } from "../../src/run_messages";
import { RunRows } from "../../src/table/run_rows";
import { TableState } from "../../src/table/table_state";
import { FakeKernel, settled, snapshotOf, THEME } from "../support";

const row = (name: string, change: Partial<RunRow> = {}): RunRow => ({
  ...{ name, title: name, recipe: "preference", losses: ["dpo", "hinge"], status: "finished", steps: 1200 },
  ...{ steps_total: 5000, changed: new Date(2026, 0, 2, 3, 4).getTime() / 1000, main: "nll", curve: [2, 1] },
  ...{ before: { nll: 2 }, final: { nll: 1.5 }, note: "", problem: "", ...change },
});

function scene(rows: RunRow[] = [row("a"), row("b")], shown: string[] = [], opened = "") {
  const ofFolder = (name: string) => ({ name, snapshot: snapshotOf({}, {}, { epoch: name }) });
  const traits: Record<string, unknown> = { listing: { folder: "runs", rows, more: 0 }, shown: shown.map(ofFolder) };
  if (opened) traits.opened = ofFolder(opened);
  const kernel = new FakeKernel(traits);
  const store = new MultiRunStore(kernel, ["listing"]);
  const table = new TableState(store);
  const theme = { current: THEME };
  const view = new RunRows(store, table, () => theme.current);
  document.body.append(view.element);
  store.subscribe(() => view.draw());
  view.draw();
  const find = (selector: string) => view.element.querySelector(selector) as HTMLElement;
  const keyed = (key: string) => find(`[data-key="${key}"]`) as HTMLInputElement;
  const cells = (name: string) =>
    [...view.element.querySelectorAll(`tr[data-run="${name}"] td`)].map(({ textContent }) => textContent);
  const button = (label: string) =>
    [...view.element.querySelectorAll("button")].find(({ textContent }) => textContent === label);
  const sent = () => kernel.asked.map(({ request: _, ...others }) => others);
  return { kernel, store, table, theme, view, find, keyed, cells, button, sent };
}

afterEach(() => {
  document.body.replaceChildren();
});

describe("the row of a run", () => {
  it("has its name, loss, steps, status, outcome, time and buttons", () => {
    const { cells, find, view } = scene();
    expect(cells("a")).toEqual([
      "",
      "apreference · dpo, hinge",
      "1,200 / 5,000finished",
      "nll2.000 → 1.500",
      "2026-01-02 03:04",
      "add a note",
      "OpenDelete",
    ]);
    expect([...view.element.querySelectorAll("th")].map(({ textContent }) => textContent)).toEqual([
      ...["", "run", "steps", "held-out data", "last written", "note", ""],
    ]);
    const columns = (selector: string) =>
      [...view.element.querySelectorAll<HTMLElement>(selector)].map(({ dataset }) => dataset.column);
    expect([columns("th"), columns("tr[data-run='a'] td")]).toEqual(Array(2).fill(["0", "1", "2", "3", "4", "5", "6"]));
    expect(find("[data-status]").dataset.status).toBe("finished");
    expect(find(".ml-spark").getAttribute("aria-label")).toBe("nll over the run");
    expect([view.element.tabIndex, view.element.getAttribute("aria-label")]).toEqual([0, "Runs"]);
  });

  it("shows names as text that cannot affect the layout", () => {
    const { cells, find } = scene([row("<b>", { title: "\n", losses: [], recipe: "", note: " <i> ", status: "" })]);
    expect(find("tr[data-run] bdi").textContent).toBe("<b>");
    expect(cells("<b>").slice(1, 3)).toEqual(["<b>↵", "1,200 / 5,000–"]);
    expect(find(".ml-table-note").textContent).toBe(" <i> ");
    expect([find(".ml-table-note").title, find(".ml-table-note").getAttribute("aria-label")]).toEqual([
      " <i> ",
      "Note of <b>",
    ]);
  });

  it("has a dash without title, recipe and losses, and its title if it is not the name", () => {
    const described = (change: Partial<RunRow>) => scene([row("a", change)]).cells("a")[1];
    expect(described({ recipe: "", losses: [] })).toBe("a–");
    expect(described({ title: "mine" })).toBe("amine · preference · dpo, hinge");
  });

  it("says if it was not evaluated, and has a dash for a value that is missing", () => {
    const outcome = (change: Partial<RunRow>) => scene([row("a", change)]).cells("a")[3];
    expect(outcome({ main: "" })).toBe("not evaluated");
    expect(outcome({ before: {}, final: {} })).toBe("not evaluated");
    expect(outcome({ before: {} })).toBe("nll– → 1.500");
    expect(outcome({ final: {} })).toBe("nll2.000 → –");
  });

  it("has no note if there is only white space", () => {
    expect(scene([row("a", { note: "  \n" })]).cells("a")[5]).toBe("add a note");
  });

  it("shows only why a folder cannot be read", () => {
    const { cells, find } = scene([row("a", { problem: "<no> file" })]);
    expect(cells("a")).toEqual(["", "a", "<no> file", ""]);
    expect(find("tr[data-run]").dataset.problem).toBe("");
    const problem = find("td[colspan]") as HTMLTableCellElement;
    expect([problem.colSpan, problem.textContent]).toEqual([4, "<no> file"]);
    const columns = [...find("tr[data-run]").children].map((cell) => (cell as HTMLElement).dataset.column);
    expect(columns).toEqual(["0", "1", undefined, "4"]);
  });
});

describe("the controls of a row", () => {
  it("tick a run, which gets a line in the style of its curve", () => {
    const { keyed, find, sent, view } = scene([row("a"), row("b"), row("c")], ["c", "b"]);
    const ticked = () => ["a", "b", "c"].map((name) => keyed(`tick ${name}`).checked);
    expect(ticked()).toEqual([false, true, true]);
    const stroke = (name: string) => find(`tr[data-run="${name}"] line`)?.getAttribute("stroke");
    expect([stroke("a"), stroke("b"), stroke("c")]).toEqual([
      undefined,
      runStyle(1, false).colour,
      runStyle(0, false).colour,
    ]);
    expect([keyed("tick b").type, keyed("tick b").getAttribute("aria-label")]).toEqual(["checkbox", "Overlay b"]);
    keyed("tick a").click();
    expect([sent(), ticked()]).toEqual([[{ type: "show", names: ["c", "b", "a"] }], [true, true, true]]);
    keyed("tick b").click();
    expect(sent().at(-1)).toEqual({ type: "show", names: ["c", "a"] });
    expect(view.element.querySelectorAll("line")).toHaveLength(2);
  });

  it("open a run, and close the open one", () => {
    const { button, sent, find, keyed } = scene(undefined, [], "b");
    expect([find("tr[data-run='a']").dataset.open, find("tr[data-run='b']").dataset.open]).toEqual([undefined, ""]);
    expect([keyed("Open a").getAttribute("aria-label"), keyed("Close b").getAttribute("aria-label")]).toEqual([
      "Open a",
      "Close b",
    ]);
    button("Open")?.click();
    button("Close")?.click();
    expect(sent()).toEqual([
      { type: "open", name: "a" },
      { type: "open", name: "" },
    ]);
  });

  it("ask before they delete a run", () => {
    const { keyed, button, sent, find, view, table } = scene();
    keyed("Delete b").click();
    expect([sent(), table.openForm]).toEqual([[], { name: "b", kind: "delete" }]);
    const form = find("tr[data-run='b'] + .ml-table-form");
    expect(form.textContent).toBe("Delete b with its records and loss sources?Delete for goodKeep it");
    expect((form.querySelector("td") as HTMLTableCellElement).colSpan).toBe(6);
    expect([form.children.length, (form.lastElementChild as HTMLElement).dataset.column]).toEqual([2, "4"]);
    expect(document.activeElement).toBe(button("Delete for good"));
    button("Keep it")?.click();
    expect([sent(), view.element.querySelector(".ml-table-form")]).toEqual([[], null]);
    expect(document.activeElement).toBe(document.body);
    keyed("Delete b").click();
    button("Delete for good")?.click();
    expect(sent()).toEqual([{ type: "delete", name: "b" }]);
  });

  it("edit the note of a run", () => {
    const { keyed, button, sent, find, view } = scene([row("a", { note: "old <b>" })]);
    keyed("note a").click();
    const area = find("textarea") as HTMLTextAreaElement;
    expect([area.value, document.activeElement, area.maxLength, area.rows]).toEqual(["old <b>", area, 10000, 3]);
    expect([area.getAttribute("aria-label"), area.dataset.lmSuppressShortcuts]).toEqual(["Note of a", "true"]);
    area.value = "new";
    button("Cancel")?.click();
    expect([sent(), view.element.querySelector("textarea")]).toEqual([[], null]);
    keyed("note a").click();
    (find("textarea") as HTMLTextAreaElement).value = "newer";
    button("Save note")?.click();
    expect(sent()).toEqual([{ type: "note", name: "a", text: "newer" }]);
  });
});

describe("the rows", () => {
  it("are replaced only if something that they show changed", () => {
    const { view, find, kernel, theme } = scene();
    const first = find("tr[data-run]");
    view.draw();
    expect(find("tr[data-run]")).toBe(first);
    kernel.set("listing", { folder: "runs", rows: [row("c")], more: 0 });
    expect([...view.element.querySelectorAll<HTMLElement>("tr[data-run]")].map(({ dataset }) => dataset.run)).toEqual([
      "c",
    ]);
    const second = find("tr[data-run]");
    theme.current = { ...THEME, dark: true };
    view.draw();
    expect(find("tr[data-run]")).not.toBe(second);
  });

  it("keep the focus on the same control", async () => {
    const { keyed, kernel } = scene();
    keyed("tick b").focus();
    keyed("tick b").click();
    kernel.reply("no");
    await settled();
    expect([document.activeElement, keyed("tick b").checked]).toEqual([keyed("tick b"), false]);
    kernel.set("listing", { folder: "runs", rows: [row("a")], more: 0 });
    expect(document.activeElement).toBe(document.body);
  });
});
