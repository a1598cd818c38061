/** What the output of a `%%loss` or `%%reward` cell says about the cell, in the metadata that `mint_lab.cells` puts there. */

export interface Mark {
  kind: "loss" | "reward";
  name: string;
  /** Of what is registered by now under that name; null where nothing is. */
  version: number | null;
  state: "registered" | "refused";
}

const LONGEST = 80;

/** The mark in the last output that has one. A notebook may come from anywhere: what is no mark is none. */
export function readMark(outputs: readonly { metadata?: unknown }[]): Mark | null {
  for (const { metadata } of [...outputs].reverse()) {
    const mark = parse((metadata as Record<string, unknown> | null | undefined)?.mint_lab);
    if (mark) return mark;
  }
  return null;
}

function parse(found: unknown): Mark | null {
  if (typeof found !== "object" || found === null) return null;
  const { kind, name, version, state } = found as Record<string, unknown>;
  if (kind !== "loss" && kind !== "reward") return null;
  if (state !== "registered" && state !== "refused") return null;
  if (typeof name !== "string" || name === "") return null;
  const known = typeof version === "number" && Number.isInteger(version) && version > 0;
  if (!known && state === "registered") return null;
  return { kind, name, version: known ? version : null, state };
}

export interface Marked {
  mark: Mark | null;
  /** When the page saw the cell run; 0 for what stood in the notebook before. */
  turn: number;
}

/** Which of `cells` registered what `name` means now: the one that ran last, else the highest version. */
export function latest<T extends Marked>(cells: Iterable<T>, name: string): T | null {
  let found: T | null = null;
  for (const cell of cells) {
    if (cell.mark?.name !== name || cell.mark.state !== "registered") continue;
    if (!found || cell.turn > found.turn || (cell.turn === found.turn && version(cell) > version(found))) found = cell;
  }
  return found;
}

function version({ mark }: Marked): number {
  return mark?.version ?? 0;
}

export interface Badge {
  state: Mark["state"] | "failed";
  /** Says the state without colour. */
  sign: string;
  name: string;
  word: string;
  title: string;
}

export function badge(mark: Mark, failed: boolean): Badge {
  const name = mark.name.length > LONGEST ? `${mark.name.slice(0, LONGEST)}…` : mark.name;
  const known = mark.version === null ? "" : `v${mark.version}`;
  if (mark.state === "refused") {
    const kept = known ? `; ${known} stays in use` : "";
    return { state: "refused", sign: "✕", name, word: "refused", title: `This ${mark.kind} was refused${kept}` };
  }
  if (failed) {
    const title = `${known} of this ${mark.kind} failed in a run, which waits for the next version`;
    return { state: "failed", sign: "!", name, word: `${known} failed`, title };
  }
  return { state: "registered", sign: "✓", name, word: known, title: `This ${mark.kind} is registered as ${known}` };
}
