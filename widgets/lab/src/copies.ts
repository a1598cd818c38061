/** Which lessons there are to copy. */

/** Whether `found` is a list of at least one plain file name: none may lead out of the folder. */
export function isNames(found: unknown): found is [string, ...string[]] {
  return (
    Array.isArray(found) &&
    found.length > 0 &&
    found.every((name) => typeof name === "string" && /^[\w-]+\.ipynb$/.test(name))
  );
}

/** Those of `names` that are not `present`, where a name in other letters counts as present: some file systems agree. */
export function missing(names: readonly string[], present: Iterable<string>): string[] {
  const known = new Set([...present].map((name) => name.toLowerCase()));
  return names.filter((name) => !known.has(name.toLowerCase()));
}
