/** How much curves are smoothed: a slider, and what its position means. */

import { h } from "../lib/dom";

export function smoothingSlider(label: string, onChange: (smoothing: number) => void): HTMLInputElement {
  const slider = h("input", { type: "range", min: 0, max: 3, step: 0.5, "aria-label": label });
  slider.addEventListener("input", () => onChange(Number(slider.value)));
  return slider;
}

/**
 * Steps after which a value has half its weight in the smoothed curve; 0 does not smooth. It is a share of the run, so
 * that the default looks the same for 100 steps and for 10,000.
 */
export function halfLifeSteps(smoothing: number, totalSteps: number): number {
  return smoothing === 0 ? 0 : (Math.max(totalSteps, 100) / 200) * 2 ** smoothing;
}
