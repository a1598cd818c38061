/** "Open the lessons": copies them out of the extension's own folder into the person's, and opens the first. */

import type { JupyterFrontEnd } from "@jupyterlab/application";
import { PageConfig, URLExt } from "@jupyterlab/coreutils";
import type { Contents } from "@jupyterlab/services";
import { isNames, missing } from "./copies";

const FOLDER = "mint_lab lessons";

/** What stands there under the same name is the person's own and stays as it is. */
export async function openLessons(app: JupyterFrontEnd): Promise<unknown> {
  const names = await fetched("index.json");
  if (!isNames(names)) throw new Error("this installation of mint_lab carries no lessons; install it again");
  const { contents } = app.serviceManager;
  await contents.save(FOLDER, { type: "directory" }); // changes nothing where it is one
  const listing: Contents.IModel = await contents.get(FOLDER, { content: true });
  const present = (listing.content as Contents.IModel[]).map(({ name }) => name);
  for (const name of missing(names, present)) {
    const content = await fetched(name);
    await contents.save(`${FOLDER}/${name}`, { type: "notebook", format: "json", content });
  }
  return app.commands.execute("docmanager:open", { path: `${FOLDER}/${names[0]}`, factory: "Notebook" });
}

async function fetched(name: string): Promise<unknown> {
  const base = PageConfig.getOption("fullLabextensionsUrl");
  const url = URLExt.join(base, "mint-lab", "static", "lessons", encodeURIComponent(name));
  const answer = await fetch(url, { cache: "no-cache" });
  if (!answer.ok) throw new Error(`${url}: ${answer.status} ${answer.statusText}`);
  return answer.json();
}
