/** A `Tokens` message in a form to read from: numbers by token, and the lines to draw. */

import type { TokenColumn, TokenRow, Tokens } from "../messages";

export interface TokenLine {
  label: string;
  role: "" | "prompt" | "chosen" | "rejected";
  /** Index of the first token, and of the one after the last. */
  start: number;
  end: number;
}

/** Lines that belong together. */
export interface TokenItem {
  title: string;
  lines: TokenLine[];
}

export class TokenTable {
  readonly items: TokenItem[];
  readonly columns: TokenColumn[];
  /** Number of tokens. */
  readonly size: number;
  private readonly ids: Int32Array;
  private readonly pieces: Int32Array;
  private readonly values: Float32Array;
  private readonly weightColumn: number;
  private readonly clippedColumn: number;

  constructor(readonly tokens: Tokens) {
    this.columns = tokens.columns;
    this.ids = int32s(tokens.ids);
    this.pieces = int32s(tokens.pieces);
    this.values = float32s(tokens.values);
    this.size = this.ids.length;
    this.weightColumn = this.columns.findIndex((column) => column.name === "weight");
    this.clippedColumn = this.columns.findIndex((column) => column.name === "clipped");
    this.items = itemsOf(tokens.rows);
  }

  text(index: number): string {
    return this.tokens.texts[this.pieces[index] ?? -1] ?? "";
  }

  id(index: number): number {
    return this.ids[index] ?? -1;
  }

  value(column: number, index: number): number {
    return this.values[column * this.size + index] ?? Number.NaN;
  }

  /** Whether the loss counts the token; true if weights are unknown. */
  isCounted(index: number): boolean {
    if (this.weightColumn < 0) return true;
    const weight = this.value(this.weightColumn, index);
    return !Number.isNaN(weight) && weight !== 0;
  }

  /** Whether the loss clips the token; false if unknown. */
  isClipped(index: number): boolean {
    return this.clippedColumn >= 0 && this.value(this.clippedColumn, index) === 1;
  }

  /** Index of the column called `name`, or of the first one. */
  columnIndex(name: string): number {
    return Math.max(
      0,
      this.columns.findIndex((column) => column.name === name),
    );
  }

  /** Whether `other` has the same tokens in the same rows. */
  hasSameText(other: TokenTable): boolean {
    return (
      this.size === other.size &&
      JSON.stringify(this.tokens.rows) === JSON.stringify(other.tokens.rows) &&
      this.ids.every((id, i) => id === other.ids[i] && (id >= 0 || this.text(i) === other.text(i)))
    );
  }
}

/** The lines of each item: the shared prompt once, then the rest of each row. */
export function itemsOf(rows: readonly TokenRow[]): TokenItem[] {
  const items = new Map<number, TokenRow[]>();
  for (const row of rows) items.set(row.item, [...(items.get(row.item) ?? []), row]);
  return [...items.values()].map((members) => {
    const lines: TokenLine[] = [];
    const first = members[0] as TokenRow;
    if (first.shared > 0) {
      lines.push({ label: "prompt", role: "prompt", start: first.start, end: first.start + first.shared });
    }
    for (const row of members) {
      const label = row.role || (row.shared > 0 ? "completion" : "");
      const [start, end] = [row.start + row.shared, row.start + row.length];
      if (start < end) lines.push({ label, role: row.role, start, end });
    }
    return { title: first.title, lines };
  });
}

/** The part of a line to draw at first: the last `most` tokens of a prompt, the first ones of any other line. */
export function visiblePart(line: TokenLine, most: number): { start: number; end: number } {
  if (line.end - line.start <= most) return line;
  return line.role === "prompt"
    ? { start: line.end - most, end: line.end }
    : { start: line.start, end: line.start + most };
}

function int32s(view: DataView): Int32Array {
  return Int32Array.from({ length: view.byteLength / 4 }, (_, i) => view.getInt32(4 * i, true));
}

function float32s(view: DataView): Float32Array {
  return Float32Array.from({ length: view.byteLength / 4 }, (_, i) => view.getFloat32(4 * i, true));
}
