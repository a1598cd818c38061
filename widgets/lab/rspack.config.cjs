/** Adds TypeScript to the builder's own configuration. `npm run typecheck` checks the types. */
module.exports = {
  resolve: { extensions: [".ts", ".js"] },
  // The default ids are hashes of absolute paths. Numbers in order of use give the same files in every folder.
  optimization: { moduleIds: "natural" },
  module: {
    rules: [
      {
        test: /\.ts$/,
        loader: "builtin:swc-loader",
        options: { jsc: { parser: { syntax: "typescript" }, target: "es2022" } },
        type: "javascript/auto",
      },
    ],
  },
};
