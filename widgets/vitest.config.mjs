/** The build makes this module, see `build.mjs`; a test of what imports it says what it contains. */
const bundled = {
  name: "bundled",
  /** @param {string} name */
  resolveId: (name) => (name.startsWith("bundled:") ? name : undefined),
  /** @param {string} name */
  load: (name) => (name.startsWith("bundled:") ? 'export default "";' : undefined),
};

/** Test files share one document, because creating one for each file takes most of the time; modules are their own. */
export default { plugins: [bundled], test: { isolate: false, setupFiles: ["tests/fresh_modules.ts"] } };
