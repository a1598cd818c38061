import { describe, expect, it } from "vitest";
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
