// @vitest-environment jsdom
import { describe, expect, it } from "vitest";
import { EarlierRun } from "../../src/controls/earlier_run";
import { RunStore } from "../../src/run_store";
import "../page_stubs";
import { FakeKernel, settled, snapshotOf } from "../support";

const EARLIER = { loss_label: "dpo v2", steps_done: 1234, steps_total: 4000 };

function scene(earlier: unknown) {
  const kernel = new FakeKernel({ snapshot: snapshotOf({}), earlier });
  const store = new RunStore(kernel);
  const refusals: string[] = [];
  const panel = new EarlierRun(store, (message) => refusals.push(message));
  const button = panel.element.querySelector("button") as HTMLButtonElement;
  return { kernel, store, panel, button, refusals };
}

describe("EarlierRun", () => {
  it("is hidden unless there is a run to continue", () => {
    const { kernel, panel } = scene(null);
    expect(panel.element.hidden).toBe(true);
    kernel.set("earlier", EARLIER);
    expect(panel.element.hidden).toBe(false);
    expect(panel.element.textContent).toBe(
      "This cell started a run before, which is paused: dpo v2, 1,234 of 4,000 steps.Continue it",
    );
    kernel.set("earlier", { ...EARLIER, steps_total: 0, loss_label: "<b>x</b>" });
    expect(panel.element.textContent).toContain("<b>x</b>, 1,234 steps.");
    kernel.set("earlier", null);
    expect(panel.element.hidden).toBe(true);
  });

  it("asks the kernel to continue the run, once", async () => {
    const { kernel, button, refusals } = scene(EARLIER);
    button.click();
    expect(kernel.asked.at(-1)).toMatchObject({ type: "continue_earlier" });
    expect(button.disabled).toBe(true);
    kernel.reply("it is over");
    await settled();
    expect([button.disabled, refusals]).toEqual([false, ["it is over"]]);
  });

  it("leaves nothing behind", () => {
    const { kernel, store, panel } = scene(EARLIER);
    document.body.append(panel.element);
    panel.dispose();
    expect(panel.element.isConnected).toBe(false);
    store.dispose();
    expect(kernel.handlers.size).toBe(0);
  });
});
