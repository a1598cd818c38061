import { describe, expect, it } from "vitest";
import { afterStep, branchesOf } from "../src/branches";
import type { BranchData } from "../src/messages";
import { SNAPSHOT, snapshotOf } from "./support";

const branch = (label: string, step: number, loss: number[]): BranchData => ({
  ...{ label, step, breaks: [2], series: snapshotOf({ loss }).series },
});

describe("branchesOf", () => {
  it("reads the curves of each branch, and its last step", () => {
    const [one] = branchesOf({ ...SNAPSHOT, branches: [branch("before rewind to 2", 2, [5, 4, 3])] });
    expect(one).toMatchObject({ label: "before rewind to 2", step: 2, lastStep: 3, breaks: [2], dash: "dash" });
    expect(one?.series.get("loss")?.mean).toEqual([5, 4, 3]);
  });

  it("keeps the line style of a branch when later ones follow", () => {
    const [a, b, c, d] = ["a", "b", "c", "d"].map((label) => branch(label, 1, [1, 2])) as [
      BranchData,
      BranchData,
      BranchData,
      BranchData,
    ];
    const dashes = (branches: BranchData[], branches_left_out: number) =>
      branchesOf({ ...SNAPSHOT, branches, branches_left_out }).map(({ label, dash }) => `${label} ${dash}`);
    expect(dashes([a, b, c], 0)).toEqual(["a dash", "b dot", "c dashdot"]);
    expect(dashes([b, c, d], 1)).toEqual(["b dot", "c dashdot", "d dash"]);
  });

  it("has the step of a branch without curves as its last", () => {
    expect(branchesOf({ ...SNAPSHOT, branches: [branch("empty", 4, [])] })[0]?.lastStep).toBe(4);
  });
});

describe("afterStep", () => {
  it("begins at the last point up to the step", () => {
    expect(afterStep([1, 2, 3, 4], [10, 20, 30, 40], 2)).toEqual({ x: [2, 3, 4], y: [20, 30, 40] });
    expect(afterStep([0, 10, 20], [1, 2, 3], 15)).toEqual({ x: [10, 20], y: [2, 3] });
  });

  it("begins at the first point if all are later, and is empty if none is", () => {
    expect(afterStep([5, 6], [1, 2], 3)).toEqual({ x: [5, 6], y: [1, 2] });
    expect(afterStep([5, 6], [1, 2], 6)).toEqual({ x: [], y: [] });
    expect(afterStep([], [], 0)).toEqual({ x: [], y: [] });
  });
});
