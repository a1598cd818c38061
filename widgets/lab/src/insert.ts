/** Inserts the cell that a widget requests, below the cell that shows the widget. */

import type { JupyterFrontEnd } from "@jupyterlab/application";
import type { INotebookTracker, NotebookPanel } from "@jupyterlab/notebook";
import { type CellToInsert, INSERT_CELL } from "../../src/lib/events";
import { cellIndexOf, notebookOf } from "./notebook_cells";

export function listenForCells(app: JupyterFrontEnd, tracker: INotebookTracker): void {
  window.addEventListener(INSERT_CELL, (event) => {
    const { source, origin } = (event.detail ?? {}) as Partial<CellToInsert>;
    if (typeof source !== "string" || !(origin instanceof Node)) return;
    const panel = notebookOf(tracker, origin);
    if (!panel?.content.model || panel.content.model.readOnly) return;
    event.preventDefault();
    void insert(app, panel, source, origin);
  });
}

async function insert(app: JupyterFrontEnd, panel: NotebookPanel, source: string, origin: Node): Promise<void> {
  const { content } = panel;
  const originIndex = cellIndexOf(panel, origin);
  const index = (originIndex >= 0 ? originIndex : content.activeCellIndex) + 1;
  // Trusted, like a cell that a person creates: JupyterLab then shows its output.
  content.model?.sharedModel.insertCell(index, { cell_type: "code", source, metadata: { trusted: true } });
  content.deselectAll();
  content.activeCellIndex = index;
  app.shell.activateById(panel.id);
  const cell = content.widgets[index];
  if (!cell) return;
  await content.scrollToCell(cell, "smart");
  await cell.ready;
  content.mode = "edit";
  cell.editor?.focus();
}
