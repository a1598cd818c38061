/** "New loss workbench": a notebook with a workbench, opened and run. */

import type { JupyterFrontEnd } from "@jupyterlab/application";
import { NotebookActions, type NotebookPanel } from "@jupyterlab/notebook";
import type { Contents } from "@jupyterlab/services";
import { freeName, type KernelSpec, pythonKernel, workbenchNotebook } from "./template";

/** Notebook 7 opens a notebook in another page: then this returns nothing and runs nothing. */
export async function newWorkbench(app: JupyterFrontEnd, folder: string): Promise<NotebookPanel | undefined> {
  const spec = await defaultKernel(app);
  const path = await writeNotebook(app.serviceManager.contents, folder, spec);
  const panel: NotebookPanel | undefined = await app.commands.execute("docmanager:open", {
    path,
    factory: "Notebook",
    ...(spec && { kernel: { name: spec.name } }),
  });
  if (panel?.context) void runAll(panel);
  return panel;
}

async function runAll(panel: NotebookPanel): Promise<void> {
  await Promise.all([panel.revealed, panel.context.ready]);
  await panel.sessionContext.ready;
  if (!panel.isDisposed) await NotebookActions.runAll(panel.content, panel.sessionContext);
}

async function defaultKernel(app: JupyterFrontEnd): Promise<KernelSpec | null> {
  const { kernelspecs } = app.serviceManager;
  await kernelspecs.ready;
  const specs = (kernelspecs.specs?.kernelspecs ?? {}) as Record<string, KernelSpec>;
  return pythonKernel(specs, kernelspecs.specs?.default ?? "");
}

/** Let the server choose an unused name, so that no file is overwritten, then rename the file if possible. */
async function writeNotebook(contents: Contents.IManager, folder: string, spec: KernelSpec | null): Promise<string> {
  const { path } = await contents.newUntitled({ path: folder, type: "notebook" });
  await contents.save(path, { type: "notebook", format: "json", content: workbenchNotebook(spec) });
  try {
    const listing: Contents.IModel = await contents.get(folder, { content: true });
    const names = (listing.content as Contents.IModel[]).map(({ name }) => name);
    const newPath = contents.resolvePath(folder, freeName(names, "Loss workbench", ".ipynb"));
    return (await contents.rename(path, newPath)).path;
  } catch {
    return path;
  }
}
