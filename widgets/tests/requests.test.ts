import { describe, expect, it } from "vitest";
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
