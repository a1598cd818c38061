import { describe, expect, it, vi } from "vitest";
import { type Message, PROTOCOL, type Request, type Snapshot, type State, type Update } from "../src/protocol";
import { type Host, Store } from "../src/store";

const STATE: State = {
  ...{
    status: "running",
    steps_done: 0,
    steps_total: 100,
    steps_per_s: 0,
    recipe: "preference",
    base_model: "",
    data: "",
  },
  ...{ loss: "dpo", loss_label: "dpo v1", settings: {}, controls: [], marks: [], marks_total: 0, baseline: {} },
  ...{ histograms: [], warnings: [], failure: null },
};

/** A kernel that remembers its records and answers as the real one does. */
class Kernel implements Host {
  records: number[] = [];
  number = 0;
  epoch = "run-1";
  protocol = PROTOCOL;
  asked: Request[] = [];
  handler: (content: unknown, buffers: DataView[]) => void = () => {};
  /** Decides whether a message gets lost. */
  loses: () => boolean = () => false;

  get(): Snapshot {
    return { ...this.base(), series: [] };
  }
  send(content: unknown): void {
    const request = content as Request;
    this.asked.push(request);
    if (request.type !== "sync") return;
    const since = request.epoch === this.epoch ? (request.since ?? 0) : 0;
    if (request.epoch !== this.epoch) this.deliver({ ...this.base(), seen: 0, number: this.number }, []);
    this.publish(since, true);
  }
  on(_: string, handler: (content: unknown, buffers: DataView[]) => void): void {
    this.handler = handler;
  }
  off(): void {
    this.handler = () => {};
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
      ...{ columns: values.length ? ["loss"] : [], full, state },
    };
    const steps = new DataView(new Float64Array(values.map((_, i) => first + i + 1)).buffer);
    const bytes = new DataView(new Float32Array(values).buffer);
    this.deliver(update, values.length ? [steps, bytes] : []);
  }
  private base(): Snapshot {
    return {
      ...{ type: "snapshot", protocol: this.protocol, epoch: this.epoch, number: 0, seen: 0, state: STATE },
      ...{ charts: [], losses: [], series: [] },
    };
  }
  private deliver(message: Message, buffers: DataView[]): void {
    if (!this.loses()) this.handler(message, buffers);
  }
}

const held = (store: Store) => store.history.series.get("loss")?.mean ?? [];

describe("Store", () => {
  it("asks for what came before it, then follows", () => {
    const kernel = new Kernel();
    kernel.records = [1, 2, 3];
    const store = new Store(kernel);
    kernel.add(4);
    expect(held(store)).toEqual([1, 2, 3, 4]);
    expect(store.state?.steps_done).toBe(4);
  });

  it("drops what it has already", () => {
    const kernel = new Kernel();
    const store = new Store(kernel);
    kernel.add(1, 2);
    kernel.publish(0, true); // another page asked for everything
    expect(held(store)).toEqual([1, 2]);
  });

  it("loses and doubles nothing, whatever gets lost on the way", () => {
    vi.useFakeTimers();
    let seed = 7;
    const random = () => {
      seed = (seed * 1103515245 + 12345) % 2 ** 31;
      return seed / 2 ** 31;
    };
    for (let round = 0; round < 60; round++) {
      const kernel = new Kernel();
      const store = new Store(kernel);
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
      expect(held(store)).toEqual(Array.from({ length: value }, (_, i) => i + 1));
      expect(store.state?.steps_done).toBe(value);
    }
    vi.useRealTimers();
  });

  it("starts afresh when the kernel shows another run", () => {
    const kernel = new Kernel();
    const store = new Store(kernel);
    kernel.add(1, 2);
    kernel.epoch = "run-2";
    kernel.records = [9];
    kernel.publish(0, false);
    expect(held(store)).toEqual([9]);
  });

  it("says so when page and kernel are of different versions", () => {
    const kernel = new Kernel();
    kernel.protocol = 99;
    expect(new Store(kernel).problem).toContain("different versions");
  });

  it("resolves a request with the kernel's answer", async () => {
    const kernel = new Kernel();
    const store = new Store(kernel);
    const answer = store.request({ type: "set", name: "beta", value: -1 });
    const sent = kernel.asked.at(-1);
    kernel.handler({ type: "reply", request: sent?.request, error: "no" }, []);
    expect(await answer).toBe("no");
    expect(store.waited).toBe(0);
  });

  it("leaves nothing behind", () => {
    const kernel = new Kernel();
    const store = new Store(kernel);
    const heard = vi.fn();
    const dispose = store.subscribe(heard);
    kernel.add(1);
    dispose();
    kernel.add(2);
    expect(heard).toHaveBeenCalledTimes(1);
    store.dispose();
    kernel.add(3);
    expect(held(store)).toEqual([1, 2]);
  });
});
