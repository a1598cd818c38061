import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Requests } from "../src/requests";
import { FakeKernel } from "./support";

describe("Requests", () => {
  it("settles each request by its number, and works without a kernel", async () => {
    const kernel = new FakeKernel({});
    const requests = new Requests(kernel);
    const asked = [requests.ask({ type: "one" }), requests.ask({ type: "two" })];
    const [one, two] = kernel.asked.map(({ request }) => request as number) as [number, number];
    requests.receiveReply({ type: "reply", request: two, error: "no" });
    requests.receiveReply({ type: "reply", request: one, error: "" });
    expect(await Promise.all(asked)).toEqual(["", "no"]);
    kernel.send = () => {
      throw new Error("no kernel");
    };
    void requests.ask({ type: "three" });
  });

  it("ignores the answer to another page", async () => {
    const kernels = [new FakeKernel({}), new FakeKernel({})];
    const [mine, other] = kernels.map((kernel) => new Requests(kernel)) as [Requests, Requests];
    const stopped = mine.ask({ type: "stop" });
    const renewed = other.ask({ type: "new_run" });
    const [stopNumber, newRunNumber] = kernels.map((kernel) => kernel.asked.at(-1)?.request as number) as [
      number,
      number,
    ];
    expect(Number.isSafeInteger(stopNumber)).toBe(true);
    for (const page of [mine, other]) {
      page.receiveReply({ type: "reply", request: newRunNumber, error: "stop it first" });
      page.receiveReply({ type: "reply", request: stopNumber, error: "" });
    }
    expect([await stopped, await renewed]).toEqual(["", "stop it first"]);
  });

  it("resolves to a text, or rejects with the reason", async () => {
    const kernel = new FakeKernel({});
    const requests = new Requests(kernel);
    const found = requests.askText({ type: "csv" });
    const bytes = new TextEncoder().encode("step\n1\n");
    requests.receiveText(kernel.asked.at(-1)?.request as number, new DataView(bytes.buffer));
    expect(await found).toBe("step\n1\n");
    const refused = requests.askText({ type: "cell" });
    requests.receiveReply({ type: "reply", request: kernel.asked.at(-1)?.request as number, error: "no such loss" });
    await expect(refused).rejects.toThrow("no such loss");
  });
});

describe("a late answer", () => {
  beforeEach(() => {
    vi.useFakeTimers();
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  it("is reported once, after a second and a half", () => {
    const onLate = vi.fn();
    const requests = new Requests(new FakeKernel({}), onLate);
    void requests.ask({ type: "stop" });
    vi.advanceTimersByTime(1499);
    expect([requests.late, onLate.mock.calls.length]).toEqual([false, 0]);
    vi.advanceTimersByTime(1);
    expect([requests.late, onLate.mock.calls.length]).toEqual([true, 1]);
    vi.advanceTimersByTime(10_000);
    expect(onLate).toHaveBeenCalledTimes(1);
  });

  it("is one of several requests, until that one is answered", () => {
    const kernel = new FakeKernel({});
    const requests = new Requests(kernel);
    void requests.ask({ type: "one" });
    const [one] = kernel.asked;
    vi.advanceTimersByTime(1000);
    void requests.ask({ type: "two" });
    vi.advanceTimersByTime(1000);
    expect(requests.late).toBe(true);
    requests.receiveReply({ type: "reply", request: one?.request as number, error: "" });
    expect(requests.late).toBe(false);
    vi.advanceTimersByTime(1000);
    expect(requests.late).toBe(true);
    requests.clear();
    expect(requests.late).toBe(false);
  });

  it("is not reported if it came in time, or was dropped", async () => {
    const kernel = new FakeKernel({});
    const onLate = vi.fn();
    const requests = new Requests(kernel, onLate);
    const text = requests.askText({ type: "csv" });
    requests.receiveText(kernel.asked.at(-1)?.request as number, undefined);
    expect(await text).toBe("");
    void requests.ask({ type: "stop" });
    requests.clear();
    requests.receiveReply({ type: "reply", request: kernel.asked.at(-1)?.request as number, error: "" });
    vi.advanceTimersByTime(5000);
    expect([onLate.mock.calls, requests.late]).toEqual([[], false]);
  });
});

describe("the number of a request", () => {
  it("counts up, beside the fields of the request", () => {
    const kernel = new FakeKernel({});
    const requests = new Requests(kernel);
    void requests.ask({ type: "set", name: "beta", value: 2 });
    void requests.askText({ type: "csv" });
    const [first, second] = kernel.asked as [Record<string, number>, Record<string, number>];
    expect(first).toEqual({ type: "set", name: "beta", value: 2, request: first.request });
    expect(second.request).toBe((first.request as number) + 1);
  });

  it("starts at random, with room for a million requests before another page's", () => {
    vi.spyOn(Math, "random")
      .mockReturnValueOnce(0.5)
      .mockReturnValueOnce(1 - 2 ** -33);
    const numbers = [1, 2].map(() => {
      const kernel = new FakeKernel({});
      void new Requests(kernel).ask({ type: "x" });
      return kernel.asked[0]?.request;
    });
    expect(numbers).toEqual([2 ** 51 + 1, (2 ** 32 - 1) * 2 ** 20 + 1]);
    vi.restoreAllMocks();
  });

  it("of an unknown request settles nothing", () => {
    const requests = new Requests(new FakeKernel({}));
    expect(() => requests.receiveReply({ type: "reply", request: 1, error: "" })).not.toThrow();
    expect(() => requests.receiveText(1, undefined)).not.toThrow();
  });
});
