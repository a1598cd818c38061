/** "Open the lessons": copies them from the extension's own folder into the person's, and opens the first. */

import type { JupyterFrontEnd } from "@jupyterlab/application";
import { PageConfig, URLExt } from "@jupyterlab/coreutils";
import type { Contents } from "@jupyterlab/services";
import { isFileList, missingFiles } from "./lesson_files";

const FOLDER = "mint_lab lessons";

/** A file that already has the name of a lesson belongs to the person and is not changed. */
export async function openLessons(app: JupyterFrontEnd): Promise<unknown> {
  const names = await fetchJson("index.json");
  if (!isFileList(names)) throw new Error("this installation of mint_lab has no lessons; install mint_lab again");
  const { contents } = app.serviceManager;
  await contents.save(FOLDER, { type: "directory" }); // has no effect on an existing folder
  const listing: Contents.IModel = await contents.get(FOLDER, { content: true });
  const present = (listing.content as Contents.IModel[]).map(({ name }) => name);
  for (const name of missingFiles(names, present)) {
    const content = await fetchJson(name);
    await contents.save(`${FOLDER}/${name}`, { type: "notebook", format: "json", content });
  }
  return app.commands.execute("docmanager:open", { path: `${FOLDER}/${names[0]}`, factory: "Notebook" });
}

async function fetchJson(name: string): Promise<unknown> {
  const base = PageConfig.getOption("fullLabextensionsUrl");
  const url = URLExt.join(base, "mint-lab", "static", "lessons", encodeURIComponent(name));
  const response = await fetch(url, { cache: "no-cache" });
  if (!response.ok) throw new Error(`${url}: ${response.status} ${response.statusText}`);
  return response.json();
}
