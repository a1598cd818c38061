/**
 * mint_lab in JupyterLab. Everything here is a convenience: the widgets work without it, and it loads without them.
 */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from "@jupyterlab/application";
import { ICommandPalette, showErrorMessage } from "@jupyterlab/apputils";
import { IDefaultFileBrowser } from "@jupyterlab/filebrowser";
import { ILauncher } from "@jupyterlab/launcher";
import { INotebookTracker, type NotebookPanel } from "@jupyterlab/notebook";
import { IStatusBar } from "@jupyterlab/statusbar";
import { RUN } from "../../src/lib/events";
import { markCells } from "./badges";
import { LESSONS, WORKBENCH } from "./icon";
import { listenForCells } from "./insert";
import { openLessons } from "./lessons";
import { Owners } from "./places";
import { isRun, Runs } from "./runs";
import { RunStatus } from "./status";
import { newWorkbench } from "./workbench";
import "./style.css";

const PALETTE = "mint_lab";
const DEAD = new Set(["restarting", "autorestarting", "terminating", "dead"]);

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
      execute: reported("The workbench could not be opened", (args) =>
        newWorkbench(app, String(args.cwd ?? browser?.model.path ?? "")),
      ),
    });
    commands.addCommand("mint-lab:open-lessons", {
      label: (args) => (args.isPalette ? "Open the Lessons" : "mint_lab lessons"),
      caption: "Copy the lesson notebooks into your folder and open the first",
      execute: reported("The lessons could not be opened", () => openLessons(app)),
    });
    const offered: [string, string][] = [
      ["mint-lab:new-workbench", WORKBENCH],
      ["mint-lab:open-lessons", LESSONS],
    ];
    for (const [rank, [command, kernelIconUrl]] of offered.entries()) {
      cards?.add({ command, category: "Notebook", kernelIconUrl, rank: 10 + rank });
      palette?.addItem({ command, category: PALETTE, args: { isPalette: true } });
    }
  },
};

const cells: JupyterFrontEndPlugin<void> = {
  id: "mint-lab:cells",
  description: "Makes the cells that a workbench asks for, and marks those that register a loss or a reward.",
  autoStart: true,
  requires: [INotebookTracker],
  activate: (app: JupyterFrontEnd, tracker: INotebookTracker) => {
    const owners = new Owners(tracker);
    window.addEventListener(RUN, ({ detail }) => {
      if (!isRun(detail)) return;
      owners.note(detail.element);
      runs.take(detail);
    });
    const follow = (panel: NotebookPanel): void => {
      const drop = (): void => runs.forget(({ element }) => owners.of(element) === panel);
      panel.sessionContext.statusChanged.connect((_, status) => {
        if (DEAD.has(status)) drop();
      });
      panel.disposed.connect(drop);
    };
    tracker.forEach(follow);
    tracker.widgetAdded.connect((_, panel) => follow(panel));
    listenForCells(app, tracker);
    markCells(tracker, runs);
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

/** A command whose failure the person gets to read. */
function reported(title: string, command: Command): Command {
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
