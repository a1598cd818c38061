// @vitest-environment jsdom
import { describe, expect, it, vi } from "vitest";
import { RunTabs } from "../../src/controls/run_tabs";
import { RunStore } from "../../src/run_store";
import { FakeKernel, settled, snapshotOf } from "../support";

function scene(names: string[], shown = 0) {
  const runs = names.map((name, i) => ({ name, about: i ? `fork of ${names[0]} after step 4` : "" }));
  const kernel = new FakeKernel({ snapshot: snapshotOf({}), runs: { runs, shown } });
  const store = new RunStore(kernel);
  const onRefusal = vi.fn();
  const tabs = new RunTabs(store, onRefusal);
  return { kernel, store, tabs, onRefusal, buttons: () => [...tabs.element.querySelectorAll("button")], runs };
}

describe("RunTabs", () => {
  it("is not there for a run without forks, nor in a widget without tabs", () => {
    expect(scene(["dpo"]).tabs.element.hidden).toBe(true);
    const bare = new RunTabs(new RunStore(new FakeKernel({})), vi.fn());
    expect(bare.element.hidden).toBe(true);
  });

  it("names the runs, and says which one is on the page and where it comes from", () => {
    const { tabs, buttons } = scene(["dpo", "<b>ipo</b>"], 1);
    expect(tabs.element.hidden).toBe(false);
    expect(buttons().map((button) => [button.textContent, button.getAttribute("aria-current")])).toEqual([
      ["dpo", null],
      ["<b>ipo</b>", "true"],
    ]);
    expect(tabs.element.textContent).toContain("fork of dpo after step 4");
  });

  it("asks for another run, and passes a refusal on", async () => {
    const { kernel, tabs, buttons, onRefusal, runs } = scene(["dpo", "ipo"]);
    expect([tabs.element.textContent, buttons()[0]?.title]).toEqual(["dpoipo", ""]); // nothing to say of the first one
    buttons()[1]?.click();
    expect(kernel.asked.at(-1)).toMatchObject({ type: "show_run", run: 1 });
    kernel.reply("it is gone");
    await settled();
    expect(onRefusal.mock.calls).toEqual([["it is gone"]]);
    kernel.set("runs", { runs, shown: 1 });
    expect(buttons()[1]?.getAttribute("aria-current")).toBe("true");
  });

  it("ends with its view", () => {
    const { tabs, kernel, buttons, runs } = scene(["dpo", "ipo"]);
    tabs.dispose();
    kernel.set("runs", { runs: runs.slice(0, 1), shown: 0 });
    expect(buttons().length).toBe(2);
  });
});
