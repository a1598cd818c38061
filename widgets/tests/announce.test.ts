import { describe, expect, it, vi } from "vitest";
import { type AnnouncedRun, Announcer } from "../src/announce";
import { History } from "../src/history";
import { RUN, type RunDetail } from "../src/lib/events";
import type { State } from "../src/messages";
import { STATE } from "./support";

const READY: State = { ...STATE, status: "ready", headlines: ["reward", "pair_accuracy"] };

/** A store with a page around it, and the events that the page receives. */
function scene(state: State | null = READY, problem = "") {
  const listeners = new Set<() => void>();
  const answers: ((error: string) => void)[] = [];
  const asked: string[] = [];
  const store: AnnouncedRun = {
    ...{ state, epoch: "run-1", problem, history: new History(), requestedStatus: "" },
    subscribe: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    request: ({ type }) => {
      asked.push(type);
      return new Promise((resolve) => answers.push(resolve));
    },
  };
  const page = new EventTarget();
  const details: RunDetail[] = [];
  page.addEventListener(RUN, (event) => details.push((event as CustomEvent<RunDetail>).detail));
  const announcer = new Announcer(store, page);
  let step = 0;
  const update = (change: Partial<State>, row: Record<string, number> = {}, epoch = store.epoch) => {
    step += 1;
    store.state = { ...(store.state as State), ...change };
    store.epoch = epoch;
    for (const [name, value] of Object.entries(row)) store.history.add(step, name, value);
    for (const listener of listeners) listener();
  };
  return { store, announcer, details, asked, answers, update };
}

const element = (isConnected: boolean) => ({ isConnected }) as HTMLElement;

describe("Announcer", () => {
  it("announces the run at once and after every change", () => {
    const { details, update } = scene();
    expect(details).toMatchObject([
      { epoch: "run-1", run: "run 1", status: "ready", step: 0, steps: 100, loss: "dpo v1", metric: null },
    ]);
    update({ status: "running", steps_done: 1 }, { pair_accuracy: 0.5 });
    expect(details.at(-1)).toMatchObject({ status: "running", step: 1, metric: { name: "pair_accuracy", value: 0.5 } });
    update({});
    update({ warnings: ["not part of the announcement"] });
    expect(details).toHaveLength(2);
  });

  it("reports the first headline that the run has, preferably of held-out data", () => {
    const { details, update } = scene();
    update({}, { pair_accuracy: 0.5, "held_out/pair_accuracy": 0.75 });
    expect(details.at(-1)?.metric).toEqual({ name: "held-out pair_accuracy", value: 0.75 });
    update({}, { reward: 0.25 });
    expect(details.at(-1)?.metric).toEqual({ name: "reward", value: 0.25 });
    update({ headlines: [] });
    expect(details.at(-1)?.metric).toBeNull();
  });

  it("names the loss or the reward whose failure paused the run", () => {
    const { details, update } = scene();
    const failure = { step: 3, message: "", line: 1, index: null, traceback: "", loss: "<b>mine</b>", reward: null };
    update({ status: "paused", failure });
    expect(details.at(-1)).toMatchObject({ status: "paused", failed: "<b>mine</b>" });
    update({ status: "paused", failure: { ...failure, loss: null, reward: "grade" } });
    expect(details.at(-1)?.failed).toBe("grade");
    update({ status: "stopped" });
    expect(details.at(-1)?.failed).toBeNull();
    update({ status: "paused", failure });
    update({ status: "running", failure: null });
    expect(details.at(-1)?.failed).toBeNull();
  });

  it("announces the end of a run that another replaces, and of the last one", () => {
    const { announcer, details, update } = scene();
    update({}, {}, "run-2");
    expect(details.map(({ epoch, status }) => `${epoch} ${status}`)).toEqual([
      "run-1 ready",
      "run-1 gone",
      "run-2 ready",
    ]);
    announcer.dispose();
    announcer.dispose();
    update({}, {}, "run-3");
    expect(details.slice(3).map(({ epoch, status }) => `${epoch} ${status}`)).toEqual(["run-2 gone"]);
  });

  it("announces nothing without a run", () => {
    expect(scene(null).details).toEqual([]);
    expect(scene(READY, "another version").details).toEqual([]);
  });

  it("prefers a view that is in the document", () => {
    const { announcer, details } = scene();
    const [removed, connected] = [element(false), element(true)];
    announcer.addView(removed);
    expect(details.at(-1)?.element).toBe(removed);
    const removeView = announcer.addView(connected);
    expect(details.at(-1)?.element).toBe(connected);
    removeView();
    announcer.addView(element(false));
    expect(details.at(-1)?.element).toBe(removed);
  });

  it("sends Stop to the kernel, and records it when the kernel accepts", async () => {
    const { store, details, asked, answers, update } = scene();
    update({ status: "running" });
    const answer = details.at(-1)?.stop();
    expect(asked).toEqual(["stop"]);
    answers[0]?.("");
    expect(await answer).toBe("");
    expect(store.requestedStatus).toBe("stop");

    store.requestedStatus = "";
    const secondAnswer = details.at(-1)?.stop();
    answers[1]?.("it is over");
    expect(await secondAnswer).toBe("it is over");
    expect(store.requestedStatus).toBe("");
  });
});

describe("Announcer in detail", () => {
  it("announces every part of the run", () => {
    const { details, store, announcer } = scene();
    expect(details).toEqual([
      {
        ...{
          epoch: "run-1",
          run: "run 1",
          status: "ready",
          step: 0,
          steps: 100,
          loss: "dpo v1",
          metric: null,
          failed: null,
        },
        ...{ element: null, stop: expect.any(Function) },
      },
    ]);
    expect(store.requestedStatus).toBe("");
    announcer.dispose();
    expect(details.at(-1)).toMatchObject({ status: "gone", epoch: "run-1", step: 0, failed: null, element: null });
  });

  it.each<[string, Partial<State>]>([
    ["step", { steps_done: 4 }],
    ["number of steps", { steps_total: 4 }],
    ["loss", { loss_label: "dpo v2" }],
    ["status", { status: "paused" }],
  ])("announces another %s once", (_, change) => {
    const { details, update } = scene();
    update(change);
    update({});
    expect(details).toHaveLength(2);
  });

  it("announces another value of the metric", () => {
    const { details, update } = scene();
    update({}, { reward: 0.5 });
    update({}, { reward: 0 });
    expect(details.map(({ metric }) => metric?.value)).toEqual([undefined, 0.5, 0]);
  });

  it("announces no end of a run that has none, and the first run that comes later", () => {
    const { details, update, announcer } = scene(null);
    announcer.dispose();
    expect(details).toEqual([]);
    const later = scene(null);
    later.store.state = READY;
    later.update({});
    expect(later.details).toMatchObject([{ epoch: "run-1", status: "ready" }]);
    update({});
    expect(details).toEqual([]);
  });

  it("announces the end if the page can no longer show the run, once", () => {
    const { details, store, update } = scene();
    store.problem = "another version";
    update({});
    update({});
    expect(details.map(({ status }) => status)).toEqual(["ready", "gone"]);
    store.problem = "";
    update({});
    expect(details.map(({ status }) => status)).toEqual(["ready", "gone", "ready"]);
  });

  it("needs an epoch", () => {
    const { details, update } = scene();
    update({}, {}, "");
    expect(details.map(({ status }) => status)).toEqual(["ready", "gone"]);
  });

  it("names no failed loss of a finished run, and none of a failure without one", () => {
    const { details, update } = scene();
    const failure = { step: 3, message: "", line: 1, index: null, traceback: "", loss: "mine", reward: null };
    update({ status: "finished", failure });
    expect(details.at(-1)?.failed).toBeNull();
    update({ status: "paused", failure: { ...failure, loss: null } });
    expect(details.at(-1)?.failed).toBeNull();
  });

  it("records a stop only of a running run", async () => {
    const { store, details, answers } = scene();
    const answer = details.at(-1)?.stop();
    answers[0]?.("");
    expect([await answer, store.requestedStatus]).toEqual(["", ""]);
  });

  it("announces to the window unless told otherwise", () => {
    const target = new EventTarget();
    vi.stubGlobal("window", target);
    const received: string[] = [];
    target.addEventListener(RUN, (event) => received.push((event as CustomEvent<RunDetail>).detail.status));
    const { store } = scene();
    new Announcer(store).dispose();
    vi.unstubAllGlobals();
    expect(received).toEqual(["ready", "gone"]);
  });
});
