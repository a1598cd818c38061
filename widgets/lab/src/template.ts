/** The notebook behind "New loss workbench", free of JupyterLab, so that it can be looked at alone. */

/** What a kernel specification says that matters here. */
export interface Spec {
  name: string;
  display_name: string;
  language: string;
}

/** The extension of IPython makes `%%loss` known, which the cells that a workbench asks for begin with. */
const CELL = "import mint_lab as ml\n\nlab = ml.Workbench()\nlab";

export function workbenchNotebook(spec: Spec | null): Record<string, unknown> {
  return {
    cells: [{ cell_type: "code", id: "workbench", execution_count: null, metadata: {}, outputs: [], source: CELL }],
    metadata: spec ? { kernelspec: { display_name: spec.display_name, language: spec.language, name: spec.name } } : {},
    nbformat: 4,
    nbformat_minor: 5,
  };
}

/** The server's default kernel where it speaks Python, else the first that does; without one, JupyterLab has to ask. */
export function pythonKernel(specs: Record<string, Spec | undefined>, usual: string): Spec | null {
  const python = Object.values(specs).filter((spec) => spec?.language.toLowerCase() === "python") as Spec[];
  return python.find(({ name }) => name === usual) ?? python[0] ?? null;
}

/** "stem.ext", or "stem 2.ext" and so on where that is taken. */
export function freeName(taken: Iterable<string>, stem: string, extension: string): string {
  const known = new Set([...taken].map((name) => name.toLowerCase()));
  for (let number = 1; ; number++) {
    const name = `${stem}${number === 1 ? "" : ` ${number}`}${extension}`;
    if (!known.has(name.toLowerCase())) return name;
  }
}
