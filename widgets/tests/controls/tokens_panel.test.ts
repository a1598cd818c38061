// @vitest-environment jsdom
import { describe, expect, it } from "vitest";
import "../page_stubs";
import { TokensPanel } from "../../src/controls/tokens_panel";
import { RunStore } from "../../src/run_store";
import { FakeKernel, SNAPSHOT, STATE, THEME } from "../support";

function scene(state: Partial<typeof STATE> = {}) {
  const kernel = new FakeKernel({ snapshot: { ...SNAPSHOT, state: { ...STATE, ...state } } });
  const panel = new TokensPanel(new RunStore(kernel), () => THEME);
  const requests = () => kernel.asked.filter(({ type }) => type === "tokens").length;
  return { panel, requests };
}

describe("TokensPanel", () => {
  it("says which examples it shows in the kernel's words", () => {
    const { panel } = scene({ tokens_about: "responses of the last rollout" });
    expect(panel.element.querySelector("summary")?.textContent).toContain("responses of the last rollout, with");
  });

  it("requests tokens only while it is open, and once there is a step", () => {
    const folded = scene({ steps_done: 3 });
    expect(folded.requests()).toBe(0);
    folded.panel.element.open = true;
    folded.panel.element.dispatchEvent(new Event("toggle"));
    expect(folded.requests()).toBe(1);
    folded.panel.dispose();
    const early = scene();
    early.panel.element.open = true;
    early.panel.element.dispatchEvent(new Event("toggle"));
    expect(early.requests()).toBe(0);
  });
});
