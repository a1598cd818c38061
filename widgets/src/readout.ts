/** What a curve says at the step that somebody points at. */

import type { Series } from "./history";

/**
 * The value of a curve at a step: of the bucket that holds it; of held-out curves, the last one measured by then.
 *
 * `start` is the held-out value before the first step. A curve has no value before its first point or after its last.
 */
export function valueAt(
  series: Series | undefined,
  step: number,
  heldOut: boolean,
  start: number | undefined,
): number | undefined {
  if (!series) return start;
  if (heldOut) {
    const after = series.steps.findIndex((last) => last > step);
    const i = (after < 0 ? series.length : after) - 1;
    return i < 0 ? start : series.mean[i];
  }
  const i = series.steps.findIndex((last) => last >= step);
  return i < 0 || step <= before(series) ? undefined : series.mean[i];
}

/** The last step that lies before the first bucket, which is as wide as the second. */
function before({ steps: [first, second], width }: Series): number {
  if (first === undefined) return 0;
  return first - (second === undefined ? width : second - first);
}
