/** A `Tokens` message as one reads it: numbers by place, and the lines to draw. */

import type { TokenColumn, TokenRow, Tokens } from "../protocol";

export interface Line {
  label: string;
  role: "" | "prompt" | "chosen" | "rejected";
  /** Places of the first token and of the one after the last. */
  start: number;
  end: number;
}

export interface Item {
  title: string;
  lines: Line[];
}

export class Table {
  readonly items: Item[];
  readonly columns: TokenColumn[];
  readonly size: number;
  private readonly ids: Int32Array;
  private readonly pieces: Int32Array;
  private readonly values: Float32Array;
  private readonly weight: number;
  private readonly clip: number;

  constructor(readonly tokens: Tokens) {
    this.columns = tokens.columns;
    this.ids = integers(tokens.ids);
    this.pieces = integers(tokens.pieces);
    this.values = floats(tokens.values);
    this.size = this.ids.length;
    this.weight = this.columns.findIndex((column) => column.name === "weight");
    this.clip = this.columns.findIndex((column) => column.name === "clipped");
    this.items = itemsOf(tokens.rows);
  }

  text(place: number): string {
    return this.tokens.texts[this.pieces[place] ?? -1] ?? "";
  }

  id(place: number): number {
    return this.ids[place] ?? -1;
  }

  value(column: number, place: number): number {
    return this.values[column * this.size + place] ?? Number.NaN;
  }

  /** Whether the loss counts the token. */
  counts(place: number): boolean {
    if (this.weight < 0) return true;
    const weight = this.value(this.weight, place);
    return !Number.isNaN(weight) && weight !== 0;
  }

  /** Whether the loss's clip acts on the token, where that is told. */
  clipped(place: number): boolean {
    return this.clip >= 0 && this.value(this.clip, place) === 1;
  }

  column(name: string): number {
    return Math.max(
      0,
      this.columns.findIndex((column) => column.name === name),
    );
  }

  /** Whether the same tokens stand at the same places. */
  sameText(other: Table): boolean {
    return (
      this.size === other.size &&
      JSON.stringify(this.tokens.rows) === JSON.stringify(other.tokens.rows) &&
      this.ids.every((id, place) => id === other.ids[place] && (id >= 0 || this.text(place) === other.text(place)))
    );
  }
}

/** Lines of each item: the shared prompt once, then what follows it on each side. */
export function itemsOf(rows: readonly TokenRow[]): Item[] {
  const items = new Map<number, TokenRow[]>();
  for (const row of rows) items.set(row.item, [...(items.get(row.item) ?? []), row]);
  return [...items.values()].map((members) => {
    const lines: Line[] = [];
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

/** Which part of a line is drawn at first: of a prompt the last `room` tokens, of anything else the first. */
export function part(line: Line, room: number): { start: number; end: number } {
  if (line.end - line.start <= room) return line;
  return line.role === "prompt"
    ? { start: line.end - room, end: line.end }
    : { start: line.start, end: line.start + room };
}

function integers(view: DataView): Int32Array {
  return Int32Array.from({ length: view.byteLength / 4 }, (_, i) => view.getInt32(4 * i, true));
}

function floats(view: DataView): Float32Array {
  return Float32Array.from({ length: view.byteLength / 4 }, (_, i) => view.getFloat32(4 * i, true));
}
