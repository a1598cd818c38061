import { describe, expect, it, vi } from "vitest";
import { MultiRunStore } from "../../src/multi_run_store";
import { TableState } from "../../src/table/table_state";
import { FakeKernel, settled, snapshotOf } from "../support";

const shown = (name: string) => ({ name, snapshot: snapshotOf({ loss: [1, 2] }, {}, { epoch: name }) });

function scene(...ticked: string[]) {
  const kernel = new FakeKernel({
    listing: { folder: "runs", rows: [{ name: "a" }], more: 0 },
    shown: ticked.map(shown),
  });
  const store = new MultiRunStore(kernel, ["listing"]);
  return { kernel, store, table: new TableState(store) };
}

describe("ticks", () => {
  it("are requested as a list of names", () => {
    const { kernel, table } = scene("a", "b");
    table.tick("b", false);
    expect(kernel.asked.at(-1)).toMatchObject({ type: "show", names: ["a"] });
  });

  it("stay while the kernel has not answered, also after a second one", async () => {
    const { kernel, table } = scene();
    table.tick("a", true);
    const firstRequest = kernel.asked.at(-1);
    table.tick("b", true);
    expect(kernel.asked.at(-1)).toMatchObject({ type: "show", names: ["a", "b"] });
    expect(table.ticked).toEqual(["a", "b"]);
    kernel.set("shown", [shown("a")]); // the answer to the first request must not remove the second tick
    kernel.reply("", firstRequest);
    await settled();
    expect(table.ticked).toEqual(["a", "b"]);
    table.tick("a", false);
    expect(kernel.asked.at(-1)).toMatchObject({ names: ["b"] });
    kernel.set("shown", [shown("b")]);
    kernel.reply("");
    await settled();
    expect(table.ticked).toEqual(["b"]);
  });

  it("disappear if the kernel refuses them", async () => {
    const { kernel, store, table } = scene("a");
    table.tick("b", true);
    expect(table.ticked).toEqual(["a", "b"]);
    kernel.reply("it cannot be read");
    await settled();
    expect([table.ticked, store.refusal]).toEqual([["a"], "it cannot be read"]);
  });
});

describe("the form of a row", () => {
  it("is open as long as its row is listed", () => {
    const { kernel, table } = scene();
    table.setForm({ name: "a", kind: "note" });
    expect(table.openForm).toEqual({ name: "a", kind: "note" });
    kernel.set("listing", { folder: "runs", rows: [], more: 1 });
    expect(table.openForm).toBeNull();
  });

  it("clears the last refusal when it opens, and closes when it is submitted", () => {
    const { kernel, store, table } = scene();
    store.refusal = "it is open in another kernel";
    table.setForm({ name: "a", kind: "delete" });
    expect(store.refusal).toBe("");
    table.submit({ type: "delete", name: "a" });
    expect(kernel.asked.at(-1)).toMatchObject({ type: "delete", name: "a" });
    expect(table.openForm).toBeNull();
  });

  it("has an empty listing before the kernel has sent one", () => {
    const table = new TableState(new MultiRunStore(new FakeKernel({})));
    expect(table.listing).toEqual({ folder: "", rows: [], more: 0 });
  });
});

describe("TableState notifies its views", () => {
  it("once for a tick and once for its answer, and for a form", async () => {
    const { kernel, store, table } = scene();
    const onChange = vi.fn();
    store.subscribe(onChange);
    table.setForm({ name: "a", kind: "note" });
    expect(onChange).toHaveBeenCalledTimes(1);
    table.setForm(null);
    expect([table.openForm, onChange.mock.calls.length]).toEqual([null, 2]);
    table.tick("a", true);
    expect(onChange).toHaveBeenCalledTimes(3);
    kernel.reply("");
    await settled();
    // By the message, by the answer to the request, and because the tick is no longer requested.
    expect([onChange.mock.calls.length, table.ticked]).toEqual([6, []]);
  });

  it("has each run once, the last ticked one at the end", () => {
    const { table, kernel } = scene("a", "b");
    table.tick("a", true);
    expect([table.ticked, kernel.asked.at(-1)?.names]).toEqual([
      ["b", "a"],
      ["b", "a"],
    ]);
  });

  it("shows the reason if a submitted form is refused", async () => {
    const { kernel, store, table } = scene();
    table.setForm({ name: "a", kind: "delete" });
    table.submit({ type: "delete", name: "a" });
    kernel.reply("it is open in another kernel");
    await settled();
    expect([store.refusal, table.openForm]).toEqual(["it is open in another kernel", null]);
  });
});
