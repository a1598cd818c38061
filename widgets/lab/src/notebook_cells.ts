/** Which notebook and which cell contain an element of a widget. */

import type { JupyterFrontEnd } from "@jupyterlab/application";
import type { INotebookTracker, NotebookPanel } from "@jupyterlab/notebook";

/**
 * Index of the cell that contains `element`; -1 if none does. It also finds a cell that JupyterLab has removed from the
 * document because it is out of view.
 */
export function cellIndexOf(panel: NotebookPanel, element: Node): number {
  return panel.content.widgets.findIndex((cell) => cell.node.contains(element));
}

export function notebookOf(tracker: INotebookTracker, element: Node): NotebookPanel | null {
  return tracker.find((panel) => panel.node.contains(element) || cellIndexOf(panel, element) >= 0) ?? null;
}

/** Activate the notebook and scroll to the cell that contains `element`. */
export async function reveal(app: JupyterFrontEnd, panel: NotebookPanel, element: Node): Promise<void> {
  app.shell.activateById(panel.id);
  const cell = panel.content.widgets[cellIndexOf(panel, element)];
  if (cell) await panel.content.scrollToCell(cell, "smart");
}

/** The notebook that last showed a run. Once it is closed, the notebook of an element can no longer be found. */
export class RunNotebooks {
  private readonly panels = new WeakMap<Node, NotebookPanel>();

  constructor(private readonly tracker: INotebookTracker) {}

  record(element: Node | null): void {
    if (!element || this.panels.has(element)) return;
    const panel = notebookOf(this.tracker, element); // null while the view is being rendered
    if (panel) this.panels.set(element, panel);
  }

  of(element: Node | null): NotebookPanel | null {
    return (element && this.panels.get(element)) ?? null;
  }
}
