/** Test files share one document, because creating one for each file takes most of the time; modules are their own. */
export default { test: { isolate: false, setupFiles: ["tests/fresh_modules.ts"] } };
