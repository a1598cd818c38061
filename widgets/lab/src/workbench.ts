/** "New loss workbench": a notebook with a workbench in it, opened and run. */

import type { JupyterFrontEnd } from "@jupyterlab/application";
import { NotebookActions, type NotebookPanel } from "@jupyterlab/notebook";
import type { Contents } from "@jupyterlab/services";
import { freeName, pythonKernel, type Spec, workbenchNotebook } from "./template";

/** Where the front end opens another page for a notebook (Notebook 7), nothing is returned and nothing is run. */
export async function newWorkbench(app: JupyterFrontEnd, folder: string): Promise<NotebookPanel | undefined> {
  const spec = await kernel(app);
  const path = await write(app.serviceManager.contents, folder, spec);
  const panel: NotebookPanel | undefined = await app.commands.execute("docmanager:open", {
    path,
    factory: "Notebook",
    ...(spec && { kernel: { name: spec.name } }),
  });
  if (panel?.context) void run(panel);
  return panel;
}

async function run(panel: NotebookPanel): Promise<void> {
  await Promise.all([panel.revealed, panel.context.ready]);
  await panel.sessionContext.ready;
  if (!panel.isDisposed) await NotebookActions.runAll(panel.content, panel.sessionContext);
}

async function kernel(app: JupyterFrontEnd): Promise<Spec | null> {
  const { kernelspecs } = app.serviceManager;
  await kernelspecs.ready;
  return pythonKernel((kernelspecs.specs?.kernelspecs ?? {}) as Record<string, Spec>, kernelspecs.specs?.default ?? "");
}

/** The server picks a name that is free, so that nothing can be overwritten; the better name is taken if it can be. */
async function write(contents: Contents.IManager, folder: string, spec: Spec | null): Promise<string> {
  const { path } = await contents.newUntitled({ path: folder, type: "notebook" });
  await contents.save(path, { type: "notebook", format: "json", content: workbenchNotebook(spec) });
  try {
    const listing: Contents.IModel = await contents.get(folder, { content: true });
    const names = (listing.content as Contents.IModel[]).map(({ name }) => name);
    const better = contents.resolvePath(folder, freeName(names, "Loss workbench", ".ipynb"));
    return (await contents.rename(path, better)).path;
  } catch {
    return path;
  }
}
