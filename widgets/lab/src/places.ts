/** Where in the open notebooks an element of a widget lies. */

import type { JupyterFrontEnd } from "@jupyterlab/application";
import type { INotebookTracker, NotebookPanel } from "@jupyterlab/notebook";

/** Index of the cell that holds `element`, -1 for none. A cell scrolled out of view may be out of the page as well. */
export function cellOf(panel: NotebookPanel, element: Node): number {
  return panel.content.widgets.findIndex((cell) => cell.node.contains(element));
}

export function panelOf(tracker: INotebookTracker, element: Node): NotebookPanel | null {
  return tracker.find((panel) => panel.node.contains(element) || cellOf(panel, element) >= 0) ?? null;
}

/** Brings the notebook to the front and the cell that holds `element` into view. */
export async function reveal(app: JupyterFrontEnd, panel: NotebookPanel, element: Node): Promise<void> {
  app.shell.activateById(panel.id);
  const cell = panel.content.widgets[cellOf(panel, element)];
  if (cell) await panel.content.scrollToCell(cell, "smart");
}

/** Which notebook a run was last seen in: once that is closed, its elements no longer tell. */
export class Owners {
  private readonly panels = new WeakMap<Node, NotebookPanel>();

  constructor(private readonly tracker: INotebookTracker) {}

  note(element: Node | null): void {
    if (!element || this.panels.has(element)) return;
    const panel = panelOf(this.tracker, element); // null while it is being drawn
    if (panel) this.panels.set(element, panel);
  }

  of(element: Node | null): NotebookPanel | null {
    return (element && this.panels.get(element)) ?? null;
  }
}
