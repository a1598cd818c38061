/** The status of a `%%loss` or `%%reward` cell, from the metadata that `mint_lab.cells` adds to the cell's output. */

export interface CellStatus {
  kind: "loss" | "reward";
  name: string;
  /** Version that is registered under that name; null if none is. */
  version: number | null;
  state: "registered" | "refused";
}

/** A longer name is truncated in a badge. */
const MAX_NAME_LENGTH = 80;

/** Read the status from the last output that has one; null if none has. A notebook can contain any metadata. */
export function readCellStatus(outputs: readonly { metadata?: unknown }[]): CellStatus | null {
  for (const { metadata } of [...outputs].reverse()) {
    const status = parse((metadata as Record<string, unknown> | null | undefined)?.mint_lab);
    if (status) return status;
  }
  return null;
}

function parse(metadata: unknown): CellStatus | null {
  if (typeof metadata !== "object" || metadata === null) return null;
  const { kind, name, version, state } = metadata as Record<string, unknown>;
  if (kind !== "loss" && kind !== "reward") return null;
  if (state !== "registered" && state !== "refused") return null;
  if (typeof name !== "string" || name === "") return null;
  const isVersion = typeof version === "number" && Number.isInteger(version) && version > 0;
  if (!isVersion && state === "registered") return null;
  return { kind, name, version: isVersion ? version : null, state };
}

export interface CellWithStatus {
  status: CellStatus | null;
  /** Increases with each cell that runs in this page; 0 for a status that the notebook contained before. */
  runCount: number;
}

/** The cell that registered the current version of `name`: the one that ran last, else the one of highest version. */
export function latestCell<T extends CellWithStatus>(cells: Iterable<T>, name: string): T | null {
  let latest: T | null = null;
  for (const cell of cells) {
    if (cell.status?.name !== name || cell.status.state !== "registered") continue;
    const isLater =
      !latest ||
      cell.runCount > latest.runCount ||
      (cell.runCount === latest.runCount && versionOf(cell) > versionOf(latest));
    if (isLater) latest = cell;
  }
  return latest;
}

function versionOf({ status }: CellWithStatus): number {
  return status?.version ?? 0;
}

export interface Badge {
  state: CellStatus["state"] | "failed";
  /** Shows the state without colour. */
  sign: string;
  name: string;
  word: string;
  title: string;
}

/** @param isFailed Whether a run failed with this version and waits for the next one. */
export function badgeOf(status: CellStatus, isFailed: boolean): Badge {
  const isLong = status.name.length > MAX_NAME_LENGTH;
  const name = isLong ? `${status.name.slice(0, MAX_NAME_LENGTH)}…` : status.name;
  const version = status.version === null ? "" : `v${status.version}`;
  if (status.state === "refused") {
    const inUse = version ? `; ${version} stays in use` : "";
    return { state: "refused", sign: "✕", name, word: "refused", title: `This ${status.kind} was refused${inUse}` };
  }
  if (isFailed) {
    const title = `${version} of this ${status.kind} failed in a run, which waits for the next version`;
    return { state: "failed", sign: "!", name, word: `${version} failed`, title };
  }
  const title = `This ${status.kind} is registered as ${version}`;
  return { state: "registered", sign: "✓", name, word: version, title };
}
