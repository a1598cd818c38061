import { describe, expect, it } from "vitest";
import { BASE, ROLES } from "../../src/lib/palette";
import { paletteStyles } from "../../src/lib/theme";

describe("paletteStyles", () => {
  it("has a variable for every colour, and lets the host page replace text and surface", () => {
    const [light, dark] = paletteStyles().split("\n") as [string, string];
    expect(light).toContain(`--ml-held-out: ${ROLES.light.held_out};`);
    expect(light).toContain(`--ml-bad-ground: ${BASE.light.bad_ground};`);
    expect(light).toContain(
      `--ml-text: var(--jp-content-font-color1, var(--vscode-editor-foreground, ${BASE.light.text}));`,
    );
    expect(dark.startsWith('.mint-lab[data-theme="dark"] {')).toBe(true);
    expect(dark).toContain(`--ml-chosen: ${ROLES.dark.chosen};`);
  });
});
