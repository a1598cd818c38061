/** Text of tokens, losses and files, made safe to display: it must be a text node, and it cannot affect the layout. */

const SYMBOLS: Record<string, string> = { "\n": "↵", "\t": "⇥", "\r": "␍" };
/** Controls, formats (bidi marks among them), lone surrogates, private use, separators other than the space. */
const INVISIBLE = /[\p{C}\p{Zl}\p{Zp}\p{Zs}]/gu;
const EMOJI_JOINER = /^[\u200d\ufe0e\ufe0f]$/;
const EMOJI = /\p{Extended_Pictographic}/u;

export const MAX_TOKEN_LENGTH = 32;

/** Replace invisible characters by symbols, on one line: ↵ ⇥ ␣ for white space, ⟨U+202E⟩ for the others. */
export function visible(text: string): string {
  if (text === "") return "⟨empty⟩";
  if (/^ +$/.test(text)) return "␣".repeat(text.length);
  const hasEmoji = EMOJI.test(text);
  const shown = text.replace(INVISIBLE, (character) => {
    if (character === " ") return character;
    if (hasEmoji && EMOJI_JOINER.test(character)) return character;
    const codePoint = character.codePointAt(0) ?? 0;
    return SYMBOLS[character] ?? `⟨U+${codePoint.toString(16).toUpperCase().padStart(4, "0")}⟩`;
  });
  // A leading combining accent needs a base character.
  return /^\p{M}/u.test(shown) ? `◌${shown}` : shown;
}

/** Truncate to `MAX_TOKEN_LENGTH` characters, without splitting a surrogate pair. */
export function shortened(text: string): string {
  if (text.length <= MAX_TOKEN_LENGTH) return text;
  const characters = [...text.slice(0, 2 * MAX_TOKEN_LENGTH)];
  const fits = characters.length <= MAX_TOKEN_LENGTH && text.length <= 2 * MAX_TOKEN_LENGTH;
  return fits ? text : `${characters.slice(0, MAX_TOKEN_LENGTH).join("")}…`;
}

/** Like `visible`, and with a symbol for every space. */
export function spelled(text: string): string {
  return visible(text).replace(/ /g, "␣");
}
