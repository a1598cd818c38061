/** Where a formula may be broken into lines: pure, and by its text alone. What cannot be told for sure stays whole. */

/** One layout: its lines, and in each line the terms between which it may be broken further. */
export type Lines = string[][];

interface Cut {
  at: number;
  comma: boolean;
}

/** Parts that are set at most: each takes KaTeX a while, and whoever reads so many can scroll. */
const MOST = 40;

const TOKEN = /\\[a-zA-Z]+|\\[\s\S]|\s+|[\s\S]/gu;
/** Commands that reach beyond their arguments: a formula with one of them means something else in parts. */
const UNSPLIT =
  /^\\(over|above|atop|choose|brace|brack|begin|end|def|gdef|edef|xdef|let|global|newcommand|renewcommand|providecommand|color|verb|middle|tag|[\\&])$/;
const SPACE = /^(\s+|~|\\([,:;!> ]|quad|qquad|enspace|thinspace|space))$/;
const OPEN = /^([([{]|\\(\{|l(angle|brace|brack|ceil|floor|group|vert|Vert)))$/;
const CLOSE = /^([)\]}]|\\(\}|r(angle|brace|brack|ceil|floor|group|vert|Vert)))$/;
/** After these a plus or minus is a sign: operators that take what follows, and relations. */
const PREFIX =
  /^([-+*/=<>:,;|]|\\(sum|prod|i?int|log|ln|exp|min|max|sup|inf|lim|cdot|times|pm|mp|le|leq|ge|geq|ne|neq|approx|sim|equiv|propto|in|to|mid|mathbb|operatorname))$/;

/** The ways to set a formula, from one line to the most; each is narrower than the one before. */
export function layouts(formula: string): Lines[] {
  const found: Lines[] = [[[formula]]];
  const cuts = cutsOf(formula);
  if (cuts.length >= MOST) return found;
  const lines = pieces(
    formula,
    cuts.filter(({ comma }) => comma),
  );
  if (lines.length > 1) found.push(lines.map((line) => [line]));
  const terms = lines.map((line) =>
    pieces(
      line,
      cutsOf(line).filter(({ comma }) => !comma),
    ),
  );
  // An empty group in front keeps the room of a sum around the sign that begins a term.
  if (terms.some((line) => line.length > 1)) {
    found.push(terms.map(([first, ...rest]) => [first as string, ...rest.map((term) => `{}${term}`)]));
  }
  return found;
}

/** The text between cuts, without the space that stands around it. */
function pieces(formula: string, cuts: Cut[]): string[] {
  const bounds = [0, ...cuts.map(({ at }) => at), formula.length];
  const parts = bounds.slice(1).map((end, i) => trimmed(formula.slice(bounds[i], end)));
  return parts.filter((part) => part !== "");
}

function trimmed(part: string): string {
  const tokens = part.match(TOKEN) ?? [];
  while (tokens.length > 0 && SPACE.test(tokens[0] as string)) tokens.shift();
  return tokens.join("").trimEnd();
}

/** After each comma and before each plus or minus of two operands, outside of all brackets; none where one is open. */
function cutsOf(formula: string): Cut[] {
  const cuts: Cut[] = [];
  const tokens = formula.match(TOKEN) ?? [];
  let at = 0;
  let depth = 0;
  // Whether a value stands before, and whether an index or exponent comes or is open, which leaves that as it is.
  let operand = false;
  let script = false;
  let delimiter = false;
  for (const token of tokens) {
    const start = at;
    at += token.length;
    if (SPACE.test(token)) continue;
    if (token === "%" || token === "&" || token === "$" || UNSPLIT.test(token)) return [];
    if (delimiter) {
      delimiter = false;
      continue;
    }
    const [open, close] = [OPEN.test(token) || token === "\\left", CLOSE.test(token) || token === "\\right"];
    delimiter = token === "\\left" || token === "\\right";
    if (open) depth += 1;
    else if (close) depth -= 1;
    if (depth < 0) return [];
    if (depth > 0) continue;
    if (token === "_" || token === "^") {
      script = true;
      continue;
    }
    if (script) {
      script = false;
      continue;
    }
    if (token === ",") cuts.push({ at, comma: true });
    else if (operand && (token === "+" || token === "-")) cuts.push({ at: start, comma: false });
    operand = !PREFIX.test(token);
  }
  return depth === 0 ? cuts : [];
}
