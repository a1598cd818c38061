/**
 * mint_lab in JupyterLab. Everything here is optional: the widgets work without this extension, and it loads without
 * them.
 */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from "@jupyterlab/application";
import { ICommandPalette, showErrorMessage } from "@jupyterlab/apputils";
import { IDefaultFileBrowser } from "@jupyterlab/filebrowser";
import { ILauncher } from "@jupyterlab/launcher";
import { INotebookTracker, type NotebookPanel } from "@jupyterlab/notebook";
import { IStatusBar } from "@jupyterlab/statusbar";
import { RUN } from "../../src/lib/events";
import { addBadges } from "./badges";
import { LESSONS_ICON, WORKBENCH_ICON } from "./icon";
import { listenForCells } from "./insert";
import { openLessons } from "./lessons";
import { RunNotebooks } from "./notebook_cells";
import { isRunDetail, Runs } from "./runs";
import { RunStatus } from "./status";
import { newWorkbench } from "./workbench";
import "./style.css";

const PALETTE_CATEGORY = "mint_lab";
/** Kernel statuses after which a run no longer exists. */
const DEAD_KERNEL = new Set(["restarting", "autorestarting", "terminating", "dead"]);

const runs = new Runs();

const launcher: JupyterFrontEndPlugin<void> = {
  id: "mint-lab:launcher",
  description: "A loss workbench and the lessons, from the launcher and the command palette.",
  autoStart: true,
  optional: [IDefaultFileBrowser, ILauncher, ICommandPalette],
  activate: (
    app: JupyterFrontEnd,
    browser: IDefaultFileBrowser | null,
    cards: ILauncher | null,
    palette: ICommandPalette | null,
  ) => {
    const { commands } = app;
    commands.addCommand("mint-lab:new-workbench", {
      label: (args) => (args.isPalette ? "New Loss Workbench" : "Loss workbench"),
      caption: "A notebook with a loss workbench: press Start, and a model learns",
      execute: withErrorDialog("The workbench could not be opened", (args) =>
        newWorkbench(app, String(args.cwd ?? browser?.model.path ?? "")),
      ),
    });
    commands.addCommand("mint-lab:open-lessons", {
      label: (args) => (args.isPalette ? "Open the Lessons" : "mint_lab lessons"),
      caption: "Copy the lesson notebooks into your folder and open the first",
      execute: withErrorDialog("The lessons could not be opened", () => openLessons(app)),
    });
    const entries: [string, string][] = [
      ["mint-lab:new-workbench", WORKBENCH_ICON],
      ["mint-lab:open-lessons", LESSONS_ICON],
    ];
    for (const [rank, [command, kernelIconUrl]] of entries.entries()) {
      cards?.add({ command, category: "Notebook", kernelIconUrl, rank: 10 + rank });
      palette?.addItem({ command, category: PALETTE_CATEGORY, args: { isPalette: true } });
    }
  },
};

const cells: JupyterFrontEndPlugin<void> = {
  id: "mint-lab:cells",
  description: "Inserts the cells that a workbench requests, and marks those that register a loss or a reward.",
  autoStart: true,
  requires: [INotebookTracker],
  activate: (app: JupyterFrontEnd, tracker: INotebookTracker) => {
    const notebooks = new RunNotebooks(tracker);
    window.addEventListener(RUN, ({ detail }) => {
      if (!isRunDetail(detail)) return;
      notebooks.record(detail.element);
      runs.update(detail);
    });
    const watch = (panel: NotebookPanel): void => {
      const removeRuns = (): void => runs.remove(({ element }) => notebooks.of(element) === panel);
      panel.sessionContext.statusChanged.connect((_, status) => {
        if (DEAD_KERNEL.has(status)) removeRuns();
      });
      panel.disposed.connect(removeRuns);
    };
    tracker.forEach(watch);
    tracker.widgetAdded.connect((_, panel) => watch(panel));
    listenForCells(app, tracker);
    addBadges(tracker, runs);
  },
};

const status: JupyterFrontEndPlugin<void> = {
  id: "mint-lab:status",
  description: "The current run in the status bar, with a button that stops it.",
  autoStart: true,
  requires: [INotebookTracker],
  optional: [IStatusBar], // Notebook 7 has none
  activate: (app: JupyterFrontEnd, tracker: INotebookTracker, bar: IStatusBar | null) => {
    bar?.registerStatusItem("mint-lab:run", new RunStatus(runs, app, tracker));
  },
};

type Command = (args: Record<string, unknown>) => Promise<unknown>;

/** A command that shows its error in a dialog. */
function withErrorDialog(title: string, command: Command): Command {
  return async (args) => {
    try {
      return await command(args);
    } catch (error) {
      void showErrorMessage(title, error instanceof Error ? error.message : String(error));
      return undefined;
    }
  };
}

export default [launcher, cells, status];
