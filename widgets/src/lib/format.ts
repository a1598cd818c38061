/** Numbers as text. */

/** Three significant digits, in a nearly constant width. */
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

/** A setting as a person types it: without trailing zeros. */
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

/** Four significant digits, with a typographic minus sign. */
export function exact(value: number): string {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  const isExtreme = size !== 0 && (size < 0.001 || size >= 100000);
  const text = isExtreme ? value.toExponential(3) : String(Number(value.toPrecision(4)));
  return text.replace("-", "−").replace("e+", "e").replace("e-", "e−");
}

/** At most two significant digits, for the ends of a colour scale. */
export function tick(value: number): string {
  const rounded = Number(value.toPrecision(2));
  const size = Math.abs(rounded);
  const text = size !== 0 && (size < 0.001 || size >= 100000) ? rounded.toExponential() : String(rounded);
  return text.replace(/-/g, "−").replace("e+", "e");
}

/** Three decimals with a typographic minus sign, so that columns align. A value that rounds to 0 has no sign. */
export function threeDecimals(value: number): string {
  const text = Math.abs(value).toFixed(3);
  return value < 0 && Number(text) !== 0 ? `−${text}` : text;
}

/** Local date and time to the minute, in the same form in every language. */
export function dateTime(secondsSince1970: number): string {
  if (!(secondsSince1970 > 0)) return "–";
  const date = new Date(1000 * secondsSince1970);
  const two = (value: number) => String(value).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}`;
}
