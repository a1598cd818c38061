/** The names of the lesson files. */

/** Whether `value` is a list of at least one plain file name: none may contain a path. */
export function isFileList(value: unknown): value is [string, ...string[]] {
  return (
    Array.isArray(value) &&
    value.length > 0 &&
    value.every((name) => typeof name === "string" && /^[\w-]+\.ipynb$/.test(name))
  );
}

/** Those of `names` that are not in `present`. Case is ignored, as in some file systems. */
export function missingFiles(names: readonly string[], present: Iterable<string>): string[] {
  const lowerCase = new Set([...present].map((name) => name.toLowerCase()));
  return names.filter((name) => !lowerCase.has(name.toLowerCase()));
}
