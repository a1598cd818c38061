/** Numbers as people read them. */

/** Three significant digits, in a width that hardly varies. */
export function short(value: number | undefined): string {
  if (value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 100000 || size < 0.001) return value.toExponential(1).replace("e+", "e");
  if (size >= 1000) return value.toFixed(0);
  if (size >= 100) return value.toFixed(1);
  if (size >= 10) return value.toFixed(2);
  return value.toFixed(3);
}

/** A setting as one types it: no trailing zeros. */
export function setting(value: number): string {
  const size = Math.abs(value);
  if (size !== 0 && size < 0.0001) return value.toExponential().replace("e+", "e");
  return String(Number(value.toPrecision(4)));
}

export function thousands(value: number): string {
  return String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** "12 s", "3 min", "2 h". */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds) || seconds < 0) return "–";
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}
