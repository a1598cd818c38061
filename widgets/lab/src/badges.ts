/** Badges on the cells of a notebook that register losses and rewards. */

import type { Cell, CodeCell } from "@jupyterlab/cells";
import type { INotebookTracker, NotebookPanel } from "@jupyterlab/notebook";
import { Signal } from "@lumino/signaling";
import { h } from "../../src/lib/dom";
import { badgeOf, type CellStatus, type CellWithStatus, latestCell, readCellStatus } from "./cell_status";
import { cellIndexOf } from "./notebook_cells";
import type { Runs } from "./runs";

/** Add badges to every notebook, now and later. */
export function addBadges(tracker: INotebookTracker, runs: Runs): void {
  const addTo = (panel: NotebookPanel): void => {
    const badges = new NotebookBadges(panel, runs);
    panel.disposed.connect(() => badges.dispose());
  };
  tracker.forEach(addTo);
  tracker.widgetAdded.connect((_, panel) => addTo(panel));
}

/** Number of cells that ran with a new status in this page. */
let runCount = 0;

class NotebookBadges {
  private readonly badges = new Map<Cell, CellBadge>();
  private readonly unsubscribe: () => void;

  constructor(
    private readonly panel: NotebookPanel,
    private readonly runs: Runs,
  ) {
    this.unsubscribe = runs.subscribe(() => this.draw());
    this.onModelChanged();
  }

  dispose(): void {
    this.unsubscribe();
    Signal.disconnectReceiver(this);
    this.badges.clear();
  }

  private onModelChanged(): void {
    const { content } = this.panel;
    Signal.disconnectReceiver(this); // from the previous model
    content.modelChanged.connect(this.onModelChanged, this);
    content.model?.cells.changed.connect(this.scanLater, this);
    this.scanLater();
  }

  /** Scan after the notebook has handled the same signal and created its cells. */
  private scanLater(): void {
    queueMicrotask(() => this.scan());
  }

  private scan(): void {
    if (this.panel.isDisposed) return;
    for (const cell of this.panel.content.widgets) {
      if (this.badges.has(cell) || cell.model.type !== "code") continue;
      this.badges.set(cell, new CellBadge(cell as CodeCell, () => this.draw()));
      cell.disposed.connect(() => this.badges.delete(cell));
    }
    this.draw();
  }

  private draw(): void {
    const badges = [...this.badges.values()];
    if (!badges.some(({ status }) => status)) {
      for (const badge of badges) badge.draw(false);
      return;
    }
    const failed = new Set(
      this.runs
        .failures()
        .filter(({ element }) => !element || cellIndexOf(this.panel, element) >= 0)
        .map(({ name }) => latestCell(badges, name)),
    );
    for (const badge of badges) badge.draw(failed.has(badge));
  }
}

class CellBadge implements CellWithStatus {
  status: CellStatus | null;
  runCount = 0;
  private readonly element = h("span", { class: "mint-lab-mark" });
  private drawnKey = "";

  constructor(
    private readonly cell: CodeCell,
    private readonly onChange: () => void,
  ) {
    this.status = this.readStatus();
    cell.model.outputs.changed.connect(this.onOutputsChanged, this);
    // A cell that was never in view has no input area yet.
    void cell.ready.then(() => this.onChange());
  }

  /** Add the badge to the cell, update it, or remove it. */
  draw(isFailed: boolean): void {
    const area = this.cell.isDisposed ? null : this.cell.inputArea;
    if (!area) return;
    const badge = this.status && badgeOf(this.status, isFailed);
    const key = JSON.stringify(badge);
    if (key === this.drawnKey) return;
    this.drawnKey = key;
    if (!badge) {
      area.removeClass("mint-lab-marked");
      this.element.remove();
      return;
    }
    const sign = h("span", { class: "mint-lab-mark-sign", "aria-hidden": "true" }, badge.sign);
    const name = h("bdi", { class: "mint-lab-mark-name" }, badge.name);
    this.element.replaceChildren(sign, name, h("span", {}, badge.word));
    this.element.dataset.state = badge.state;
    this.element.title = badge.title;
    area.addClass("mint-lab-marked");
    area.node.append(this.element);
  }

  private readStatus(): CellStatus | null {
    const { outputs } = this.cell.model;
    return readCellStatus(Array.from({ length: outputs.length }, (_, i) => outputs.get(i)));
  }

  private onOutputsChanged(): void {
    const status = this.readStatus();
    if (JSON.stringify(status) === JSON.stringify(this.status)) return;
    this.status = status;
    runCount += 1;
    this.runCount = runCount;
    this.onChange();
  }
}
