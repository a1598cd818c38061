/** The notebook of "New loss workbench". It imports nothing of JupyterLab, so that it can be tested alone. */

/** The part of a kernel specification that is used here. */
export interface KernelSpec {
  name: string;
  display_name: string;
  language: string;
}

/** Importing mint_lab registers `%%loss` with IPython, for the cells that a workbench inserts. */
const SOURCE = "import mint_lab as ml\n\nlab = ml.Workbench()\nlab";

export function workbenchNotebook(spec: KernelSpec | null): Record<string, unknown> {
  return {
    cells: [{ cell_type: "code", id: "workbench", execution_count: null, metadata: {}, outputs: [], source: SOURCE }],
    metadata: spec ? { kernelspec: { display_name: spec.display_name, language: spec.language, name: spec.name } } : {},
    nbformat: 4,
    nbformat_minor: 5,
  };
}

/** The server's default kernel if it is a Python kernel, else the first that is; null if there is none. */
export function pythonKernel(specs: Record<string, KernelSpec | undefined>, defaultName: string): KernelSpec | null {
  const python = Object.values(specs).filter((spec) => spec?.language.toLowerCase() === "python") as KernelSpec[];
  return python.find(({ name }) => name === defaultName) ?? python[0] ?? null;
}

/** "stem.ext", or "stem 2.ext" and so on if that name is used. Case is ignored, as in some file systems. */
export function freeName(usedNames: Iterable<string>, stem: string, extension: string): string {
  const used = new Set([...usedNames].map((name) => name.toLowerCase()));
  for (let number = 1; ; number++) {
    const name = `${stem}${number === 1 ? "" : ` ${number}`}${extension}`;
    if (!used.has(name.toLowerCase())) return name;
  }
}
