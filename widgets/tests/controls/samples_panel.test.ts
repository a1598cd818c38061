// @vitest-environment jsdom
import { describe, expect, it } from "vitest";
import "../page_stubs";
import { SamplesPanel } from "../../src/controls/samples_panel";
import type { SampleRow } from "../../src/messages";
import { RunStore } from "../../src/run_store";
import { FakeKernel, SNAPSHOT, STATE, THEME } from "../support";

const ROW: SampleRow = {
  ...{ source: "training", prompt: "2+2=\n", response: "<b>4</b>", reward: 1, advantage: 0.5, start: 0, length: 0 },
};

function panelOf(keepsSamples: boolean, samples: unknown = null) {
  const state = { ...STATE, keeps_samples: keepsSamples };
  const store = new RunStore(new FakeKernel({ snapshot: { ...SNAPSHOT, state }, samples }));
  return new SamplesPanel(store, () => THEME);
}

describe("SamplesPanel", () => {
  it("is shown for runs that store responses, whatever their recipe is called", () => {
    expect([panelOf(true).element.hidden, panelOf(false).element.hidden]).toEqual([false, true]);
  });

  it("shows each response as text", () => {
    const { element } = panelOf(true, { step: 20, rows: [ROW], tokens: null });
    const cells = [...element.querySelectorAll("td")].map((cell) => cell.textContent);
    expect(cells).toEqual(["training", "2+2=↵\n", "<b>4</b>", "1", "+0.5"]);
    expect(element.querySelector(".ml-samples-step")?.textContent).toContain("of step 20:");
  });
});
