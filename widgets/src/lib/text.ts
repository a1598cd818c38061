/** Text of tokens as it may be shown: hostile until it is a text node, and without power over the layout. */

const SIGNS: Record<string, string> = { "\n": "↵", "\t": "⇥", "\r": "␍" };
/** Controls, formats (bidi marks among them), lone surrogates, private use, separators other than the space. */
const INVISIBLE = /[\p{C}\p{Zl}\p{Zp}\p{Zs}]/gu;
const JOINER = /^[\u200d\ufe0e\ufe0f]$/;
const PICTURE = /\p{Extended_Pictographic}/u;

export const SHOWN = 32;

/** On one line, every invisible character shown: ↵ ⇥ ␣ for white space, ⟨U+202E⟩ for the others. */
export function visible(text: string): string {
  if (text === "") return "⟨empty⟩";
  if (/^ +$/.test(text)) return "␣".repeat(text.length);
  const picture = PICTURE.test(text);
  const shown = text.replace(INVISIBLE, (sign) => {
    if (sign === " ") return sign;
    if (picture && JOINER.test(sign)) return sign;
    const point = sign.codePointAt(0) ?? 0;
    return SIGNS[sign] ?? `⟨U+${point.toString(16).toUpperCase().padStart(4, "0")}⟩`;
  });
  // An accent by itself needs something to stand on.
  return /^\p{M}/u.test(shown) ? `◌${shown}` : shown;
}

/** At most `SHOWN` characters of it. */
export function shortened(text: string): string {
  if (text.length <= SHOWN) return text;
  const signs = [...text.slice(0, 2 * SHOWN)];
  return signs.length <= SHOWN && text.length <= 2 * SHOWN ? text : `${signs.slice(0, SHOWN).join("")}…`;
}

/** For a detailed look: also spaces in the middle are shown. */
export function spelled(text: string): string {
  return visible(text).replace(/ /g, "␣");
}

/** Four significant digits, a true minus sign. */
export function exact(value: number): string {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  const text = size !== 0 && (size < 0.001 || size >= 100000) ? value.toExponential(3) : plain(value);
  return text.replace("-", "−").replace("e+", "e").replace("e-", "e−");
}

/** Two significant digits at most, for the ends of a scale. */
export function tick(value: number): string {
  const rounded = Number(value.toPrecision(2));
  const size = Math.abs(rounded);
  const text = size !== 0 && (size < 0.001 || size >= 100000) ? rounded.toExponential() : String(rounded);
  return text.replace(/-/g, "−").replace("e+", "e");
}

function plain(value: number): string {
  return String(Number(value.toPrecision(4)));
}
