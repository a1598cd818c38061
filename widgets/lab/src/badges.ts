/** Marks the cells of a notebook that register losses and rewards. */

import type { Cell, CodeCell } from "@jupyterlab/cells";
import type { INotebookTracker, NotebookPanel } from "@jupyterlab/notebook";
import { Signal } from "@lumino/signaling";
import { h } from "../../src/lib/dom";
import { badge, latest, type Mark, type Marked, readMark } from "./marks";
import { cellOf } from "./places";
import type { Runs } from "./runs";

export function markCells(tracker: INotebookTracker, runs: Runs): void {
  const follow = (panel: NotebookPanel): void => {
    const marks = new NotebookMarks(panel, runs);
    panel.disposed.connect(() => marks.dispose());
  };
  tracker.forEach(follow);
  tracker.widgetAdded.connect((_, panel) => follow(panel));
}

let turns = 0;

class NotebookMarks {
  private readonly cells = new Map<Cell, CellMark>();
  private readonly unsubscribe: () => void;

  constructor(
    private readonly panel: NotebookPanel,
    private readonly runs: Runs,
  ) {
    this.unsubscribe = runs.subscribe(() => this.paint());
    this.onModel();
  }

  dispose(): void {
    this.unsubscribe();
    Signal.disconnectReceiver(this);
    this.cells.clear();
  }

  private onModel(): void {
    const { content } = this.panel;
    Signal.disconnectReceiver(this); // of the model before
    content.modelChanged.connect(this.onModel, this);
    content.model?.cells.changed.connect(this.scanSoon, this);
    this.scanSoon();
  }

  /** After the notebook's own answer to the same signal, which makes the cells. */
  private scanSoon(): void {
    queueMicrotask(() => this.scan());
  }

  private scan(): void {
    if (this.panel.isDisposed) return;
    for (const cell of this.panel.content.widgets) {
      if (this.cells.has(cell) || cell.model.type !== "code") continue;
      this.cells.set(cell, new CellMark(cell as CodeCell, () => this.paint()));
      cell.disposed.connect(() => this.cells.delete(cell));
    }
    this.paint();
  }

  private paint(): void {
    const marks = [...this.cells.values()];
    if (!marks.some(({ mark }) => mark)) {
      for (const mark of marks) mark.draw(false);
      return;
    }
    const failed = new Set(
      this.runs
        .failures()
        .filter(({ element }) => !element || cellOf(this.panel, element) >= 0)
        .map(({ name }) => latest(marks, name)),
    );
    for (const mark of marks) mark.draw(failed.has(mark));
  }
}

class CellMark implements Marked {
  mark: Mark | null;
  turn = 0;
  private readonly element = h("span", { class: "mint-lab-mark" });
  private drawn = "";

  constructor(
    private readonly cell: CodeCell,
    private readonly changed: () => void,
  ) {
    this.mark = this.read();
    cell.model.outputs.changed.connect(this.onOutputs, this);
    // A cell that was never in view has no input area yet.
    void cell.ready.then(() => this.changed());
  }

  /** Puts the badge where it belongs, or takes it away. */
  draw(failed: boolean): void {
    const area = this.cell.isDisposed ? null : this.cell.inputArea;
    if (!area) return;
    const shown = this.mark && badge(this.mark, failed);
    const key = JSON.stringify(shown);
    if (key === this.drawn) return;
    this.drawn = key;
    if (!shown) {
      area.removeClass("mint-lab-marked");
      this.element.remove();
      return;
    }
    const sign = h("span", { class: "mint-lab-mark-sign", "aria-hidden": "true" }, shown.sign);
    const name = h("bdi", { class: "mint-lab-mark-name" }, shown.name);
    this.element.replaceChildren(sign, name, h("span", {}, shown.word));
    this.element.dataset.state = shown.state;
    this.element.title = shown.title;
    area.addClass("mint-lab-marked");
    area.node.append(this.element);
  }

  private read(): Mark | null {
    const { outputs } = this.cell.model;
    return readMark(Array.from({ length: outputs.length }, (_, i) => outputs.get(i)));
  }

  private onOutputs(): void {
    const mark = this.read();
    if (JSON.stringify(mark) === JSON.stringify(this.mark)) return;
    this.mark = mark;
    turns += 1;
    this.turn = turns;
    this.changed();
  }
}
