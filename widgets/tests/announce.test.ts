import { describe, expect, it } from "vitest";
import { type Announced, Announcer } from "../src/announce";
import { RUN, type RunDetail } from "../src/events";
import { History } from "../src/history";
import type { State } from "../src/protocol";

const READY = { status: "ready", steps_done: 0, steps_total: 100, loss_label: "dpo v1", failure: null } as State;

/** A store with a page around it, and what the page hears. */
function scene(first: State | null = READY, problem = "") {
  const listeners = new Set<() => void>();
  const answers: ((error: string) => void)[] = [];
  const asked: string[] = [];
  const store: Announced = {
    ...{ state: first, epoch: "run-1", problem, history: new History(), halting: "" },
    subscribe: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    request: ({ type }) => {
      asked.push(type);
      return new Promise((done) => answers.push(done));
    },
  };
  const page = new EventTarget();
  const heard: RunDetail[] = [];
  page.addEventListener(RUN, (event) => heard.push((event as CustomEvent<RunDetail>).detail));
  const announcer = new Announcer(store, page);
  let step = 0;
  const update = (state: Partial<State>, row: Record<string, number> = {}, epoch = store.epoch) => {
    step += 1;
    store.state = { ...(store.state as State), ...state };
    store.epoch = epoch;
    for (const [name, value] of Object.entries(row)) store.history.add(step, name, value);
    for (const listener of listeners) listener();
  };
  return { store, announcer, heard, asked, answers, update };
}

const element = (isConnected: boolean) => ({ isConnected }) as HTMLElement;

describe("Announcer", () => {
  it("says how the run stands, at once and whenever that changes", () => {
    const { heard, update } = scene();
    expect(heard).toMatchObject([
      { epoch: "run-1", status: "ready", step: 0, steps: 100, loss: "dpo v1", metric: null },
    ]);
    update({ status: "running", steps_done: 1 }, { pair_accuracy: 0.5 });
    expect(heard.at(-1)).toMatchObject({ status: "running", step: 1, metric: { name: "pair_accuracy", value: 0.5 } });
    update({});
    update({ warnings: ["nothing that is announced"] });
    expect(heard).toHaveLength(2);
  });

  it("prefers what was held out, and the reward", () => {
    const { heard, update } = scene();
    update({}, { pair_accuracy: 0.5, "held_out/pair_accuracy": 0.75 });
    expect(heard.at(-1)?.metric).toEqual({ name: "held-out pair_accuracy", value: 0.75 });
    update({}, { reward: 0.25 });
    expect(heard.at(-1)?.metric).toEqual({ name: "reward", value: 0.25 });
  });

  it("names the loss or the reward that holds the run up, until it does not", () => {
    const { heard, update } = scene();
    const failure = { step: 3, message: "", line: 1, index: null, traceback: "", loss: "<b>mine</b>", reward: null };
    update({ status: "paused", failure });
    expect(heard.at(-1)).toMatchObject({ status: "paused", failed: "<b>mine</b>" });
    update({ status: "paused", failure: { ...failure, loss: null, reward: "grade" } });
    expect(heard.at(-1)?.failed).toBe("grade");
    update({ status: "stopped" });
    expect(heard.at(-1)?.failed).toBeNull();
    update({ status: "paused", failure });
    update({ status: "running", failure: null });
    expect(heard.at(-1)?.failed).toBeNull();
  });

  it("says goodbye to a run that another replaces, and to the last one", () => {
    const { announcer, heard, update } = scene();
    update({}, {}, "run-2");
    expect(heard.map(({ epoch, status }) => `${epoch} ${status}`)).toEqual([
      "run-1 ready",
      "run-1 gone",
      "run-2 ready",
    ]);
    announcer.dispose();
    announcer.dispose();
    update({}, {}, "run-3");
    expect(heard.slice(3).map(({ epoch, status }) => `${epoch} ${status}`)).toEqual(["run-2 gone"]);
  });

  it("is silent where there is nothing to tell", () => {
    expect(scene(null).heard).toEqual([]);
    expect(scene(READY, "another version").heard).toEqual([]);
  });

  it("knows a view that is in the page", () => {
    const { announcer, heard } = scene();
    const [away, here] = [element(false), element(true)];
    announcer.view(away);
    expect(heard.at(-1)?.element).toBe(away);
    const leave = announcer.view(here);
    expect(heard.at(-1)?.element).toBe(here);
    leave();
    announcer.view(element(false));
    expect(heard.at(-1)?.element).toBe(away);
  });

  it("passes Stop on to the kernel, and says so once it is taken", async () => {
    const { store, heard, asked, answers, update } = scene();
    update({ status: "running" });
    const answer = heard.at(-1)?.stop();
    expect(asked).toEqual(["stop"]);
    answers[0]?.("");
    expect(await answer).toBe("");
    expect(store.halting).toBe("stop");

    store.halting = "";
    const again = heard.at(-1)?.stop();
    answers[1]?.("it is over");
    expect(await again).toBe("it is over");
    expect(store.halting).toBe("");
  });
});
