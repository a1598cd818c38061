import { describe, expect, it, vi } from "vitest";
import { type Message, PROTOCOL, type Request, type Snapshot, type Update } from "../src/messages";
import type { Model } from "../src/requests";
import { RunStore } from "../src/run_store";
import { SNAPSHOT, STATE } from "./support";

/** A kernel with records, which answers like the real one. */
class Kernel implements Model {
  records: number[] = [];
  number = 0;
  epoch = "run-1";
  protocol = PROTOCOL;
  asked: Request[] = [];
  handler: (content: unknown, buffers: DataView[]) => void = () => {};
  /** Whether the next message is lost. */
  loses: () => boolean = () => false;

  tokens: unknown = null;
  onTokens: () => void = () => {};
  samples: unknown = null;
  onSamples: () => void = () => {};

  get(name: string): unknown {
    if (name === "samples") return this.samples;
    if (name === "audit") return null;
    return name === "tokens" ? this.tokens : { ...this.base(), series: [], heats: [] };
  }
  send(content: unknown): void {
    const request = content as Request;
    this.asked.push(request);
    if (request.type !== "sync") return;
    const since = request.epoch === this.epoch ? (request.since ?? 0) : 0;
    if (request.epoch !== this.epoch) this.deliver({ ...this.base(), seen: 0, number: this.number }, []);
    this.publish(since, true);
  }
  on(event: string, handler: (content: unknown, buffers: DataView[]) => void): void {
    if (event === "msg:custom") this.handler = handler;
    else if (event === "change:samples") this.onSamples = () => handler(null, []);
    else if (event === "change:tokens") this.onTokens = () => handler(null, []);
  }
  off(event: string): void {
    if (event === "msg:custom") this.handler = () => {};
    else if (event === "change:samples") this.onSamples = () => {};
    else if (event === "change:tokens") this.onTokens = () => {};
  }
  add(...values: number[]): void {
    const first = this.records.length;
    this.records.push(...values);
    this.publish(first, false);
  }
  publish(first: number, full: boolean): void {
    this.number += 1;
    const values = this.records.slice(first);
    const state = full ? { ...STATE, steps_done: this.records.length } : { steps_done: this.records.length };
    const update: Update = {
      ...{ type: "update", epoch: this.epoch, number: this.number, first, count: values.length },
      ...{ columns: values.length ? ["loss"] : [], histograms: [], full, state },
    };
    const steps = new DataView(new Float64Array(values.map((_, i) => first + i + 1)).buffer);
    const bytes = new DataView(new Float32Array(values).buffer);
    this.deliver(update, values.length ? [steps, bytes] : []);
  }
  private base(): Snapshot {
    return { ...SNAPSHOT, protocol: this.protocol, epoch: this.epoch, number: 0 };
  }
  private deliver(message: Message, buffers: DataView[]): void {
    if (!this.loses()) this.handler(message, buffers);
  }
}

const losses = (store: RunStore) => store.history.series.get("loss")?.mean ?? [];

describe("RunStore", () => {
  it("requests the records before its creation, then follows the run", () => {
    const kernel = new Kernel();
    kernel.records = [1, 2, 3];
    const store = new RunStore(kernel);
    kernel.add(4);
    expect(losses(store)).toEqual([1, 2, 3, 4]);
    expect(store.state?.steps_done).toBe(4);
  });

  it("drops records that it has already", () => {
    const kernel = new Kernel();
    const store = new RunStore(kernel);
    kernel.add(1, 2);
    kernel.publish(0, true); // another page requested everything
    expect(losses(store)).toEqual([1, 2]);
  });

  it("has every record once, whichever messages are lost", () => {
    vi.useFakeTimers();
    let seed = 7;
    const random = () => {
      seed = (seed * 1103515245 + 12345) % 2 ** 31;
      return seed / 2 ** 31;
    };
    for (let round = 0; round < 60; round++) {
      const kernel = new Kernel();
      const store = new RunStore(kernel);
      kernel.loses = () => random() < 0.4;
      let value = 0;
      for (let i = 0; i < 30; i++) {
        kernel.add(...Array.from({ length: Math.floor(4 * random()) }, () => ++value));
        vi.advanceTimersByTime(500);
      }
      kernel.loses = () => false;
      vi.advanceTimersByTime(5000);
      kernel.add(++value);
      kernel.add(++value);
      expect(losses(store)).toEqual(Array.from({ length: value }, (_, i) => i + 1));
      expect(store.state?.steps_done).toBe(value);
    }
    vi.useRealTimers();
  });

  it("reads the curves of a snapshot from the buffers beside it", () => {
    const kernel = new Kernel();
    const store = new RunStore(kernel);
    const none = new DataView(new ArrayBuffer(0));
    const series = { name: "loss", width: 1, points: 2, steps: none, values: none };
    const heat = {
      ...{ name: "margin", start: -1, bin: 1, bins: 2, width: 1, points: 1, source: "held-out" },
      ...{ steps: none, values: none },
    };
    const snapshot: Snapshot = {
      ...{ ...SNAPSHOT, epoch: "run-2", number: 5, seen: 2 },
      ...{ series: [series], heats: [heat] },
    };
    const buffers = [
      new Float64Array([1, 2]),
      new Float32Array([3, 4]),
      new Float64Array([2]),
      new Float32Array([0.25, 0.75]),
    ];
    store.receive(
      snapshot,
      buffers.map((array) => new DataView(array.buffer)),
    );
    expect(losses(store)).toEqual([3, 4]);
    expect(store.heats.heats.get("margin")?.columns).toEqual([[0.25, 0.75]]);
    expect(() => store.receive({ ...snapshot, number: 6 }, [])).toThrow(RangeError);
  });

  it("replaces its run when the kernel shows another one", () => {
    const kernel = new Kernel();
    const store = new RunStore(kernel);
    kernel.add(1, 2);
    kernel.epoch = "run-2";
    kernel.records = [9];
    kernel.publish(0, false);
    expect(losses(store)).toEqual([9]);
  });

  it("reports that page and kernel have different versions", () => {
    const kernel = new Kernel();
    kernel.protocol = 99;
    expect(new RunStore(kernel).problem).toContain("different versions");
  });

  it("resolves a request with the kernel's answer", async () => {
    const kernel = new Kernel();
    const store = new RunStore(kernel);
    const answer = store.request({ type: "set", name: "beta", value: -1 });
    const sent = kernel.asked.at(-1);
    kernel.handler({ type: "reply", request: sent?.request, error: "no" }, []);
    expect(await answer).toBe("no");
    expect(store.late).toBe(false);
  });

  it("clears the requested status when the run has paused or ended", () => {
    const kernel = new Kernel();
    const store = new RunStore(kernel);
    store.requestedStatus = "stop";
    kernel.add(1); // the step in progress
    expect(store.requestedStatus).toBe("stop");
    kernel.number += 1;
    const stopped = { type: "update", epoch: kernel.epoch, number: kernel.number, first: 1, count: 0, columns: [] };
    kernel.handler({ ...stopped, full: false, histograms: [], state: { status: "stopped" } }, []);
    expect(store.state?.status).toBe("stopped");
    expect(store.requestedStatus).toBe("");
  });

  it("reads tokens when they change, and notifies", () => {
    const kernel = new Kernel();
    const store = new RunStore(kernel);
    const onChange = vi.fn();
    store.subscribe(onChange);
    expect(store.tokens).toBeNull();
    kernel.tokens = { step: 3 };
    kernel.onTokens();
    expect(store.tokens).toEqual({ step: 3 });
    expect(onChange).toHaveBeenCalledOnce();
    store.dispose();
    kernel.tokens = { step: 4 };
    kernel.onTokens();
    expect(store.tokens).toEqual({ step: 3 });
  });

  it("reads samples when they change", () => {
    const kernel = new Kernel();
    kernel.samples = { step: 1 };
    const store = new RunStore(kernel);
    expect(store.samples).toEqual({ step: 1 });
    kernel.samples = { step: 2 };
    kernel.onSamples();
    expect(store.samples).toEqual({ step: 2 });
    store.dispose();
    kernel.samples = null;
    kernel.onSamples();
    expect(store.samples).toEqual({ step: 2 });
  });

  it("receives nothing after dispose", () => {
    const kernel = new Kernel();
    const store = new RunStore(kernel);
    const onChange = vi.fn();
    const dispose = store.subscribe(onChange);
    kernel.add(1);
    dispose();
    kernel.add(2);
    expect(onChange).toHaveBeenCalledTimes(1);
    store.dispose();
    kernel.add(3);
    expect(losses(store)).toEqual([1, 2]);
  });
});

describe("a draft of a setting", () => {
  const settled = (kernel: Kernel, settings: Record<string, number>) => {
    kernel.number += 1;
    const update = { type: "update", epoch: kernel.epoch, number: kernel.number, first: 0, count: 0 } as const;
    kernel.handler({ ...update, columns: [], full: false, state: { settings } }, []);
  };
  const start = () => {
    const kernel = new Kernel();
    const store = new RunStore(kernel);
    kernel.add(1);
    settled(kernel, { beta: 1 });
    return { kernel, store };
  };

  it("is shown at once, sends nothing, and notifies only draft listeners", () => {
    const { kernel, store } = start();
    const onDraft = vi.fn();
    const onChange = vi.fn();
    store.subscribe(onChange);
    const dispose = store.onDraft(onDraft);
    const asked = kernel.asked.length;
    store.draft("beta", 2);
    expect(store.setting("beta")).toBe(2);
    expect(store.state?.settings.beta).toBe(1);
    expect(kernel.asked.length).toBe(asked);
    expect(onDraft).toHaveBeenCalledTimes(1);
    expect(onChange).not.toHaveBeenCalled();
    dispose();
    store.draft("beta", 3);
    expect(onDraft).toHaveBeenCalledTimes(1);
  });

  it("stays until the next state has it, whichever comes first", () => {
    const { kernel, store } = start();
    store.draft("beta", 2);
    settled(kernel, { beta: 1, other: 5 }); // not accepted yet
    expect(store.setting("beta")).toBe(2);
    store.acceptDraft("beta", 2);
    expect(store.setting("beta")).toBe(2);
    settled(kernel, { beta: 2 });
    settled(kernel, { beta: 7 }); // a cell changes it later
    expect(store.setting("beta")).toBe(7);

    store.draft("beta", 9);
    settled(kernel, { beta: 9 });
    store.acceptDraft("beta", 9);
    settled(kernel, { beta: 4 });
    expect(store.setting("beta")).toBe(4);
  });

  it("is dropped if refused, and not by the answer to an earlier draft", () => {
    const { kernel, store } = start();
    store.draft("beta", -1);
    store.dropDraft("beta");
    expect(store.setting("beta")).toBe(1);
    store.draft("beta", 2);
    store.draft("beta", 3);
    store.acceptDraft("beta", 2);
    settled(kernel, { beta: 2 });
    expect(store.setting("beta")).toBe(3);
    expect(store.setting("nothing")).toBeUndefined();
  });
});
