import { describe, expect, it } from "vitest";
import { isNames, missing } from "../src/copies";
import { freeName, pythonKernel, workbenchNotebook } from "../src/template";

const spec = (name: string, language: string) => ({ name, language, display_name: name.toUpperCase() });

describe("the workbench's notebook", () => {
  it("runs in the server's Python, whatever else there is", () => {
    const specs = { ir: spec("ir", "R"), old: spec("old", "python"), python3: spec("python3", "Python") };
    expect(pythonKernel(specs, "python3")?.name).toBe("python3");
    expect(pythonKernel(specs, "ir")?.name).toBe("old");
    expect(pythonKernel({ ir: spec("ir", "R"), gone: undefined }, "ir")).toBeNull();
  });

  it("names its kernel, so that nobody is asked", () => {
    const { cells, metadata } = workbenchNotebook(spec("python3", "python")) as {
      cells: { source: string }[];
      metadata: { kernelspec: { name: string } };
    };
    expect(metadata.kernelspec.name).toBe("python3");
    expect(cells.map(({ source }) => source)).toEqual(["import mint_lab as ml\n\nlab = ml.Workbench()\nlab"]);
    expect(workbenchNotebook(null).metadata).toEqual({});
  });

  it("gets a name that is free", () => {
    expect(freeName([], "Loss workbench", ".ipynb")).toBe("Loss workbench.ipynb");
    expect(freeName(["loss workbench.IPYNB", "Loss workbench 2.ipynb"], "Loss workbench", ".ipynb")).toBe(
      "Loss workbench 3.ipynb",
    );
  });
});

describe("the lessons", () => {
  it("are copied where they are missing", () => {
    expect(missing(["01_a.ipynb", "02_b.ipynb", "03_c.ipynb"], ["02_B.ipynb", "mine.txt"])).toEqual([
      "01_a.ipynb",
      "03_c.ipynb",
    ]);
  });

  it("have plain names", () => {
    expect(isNames(["01_first_run.ipynb"])).toBe(true);
    for (const bad of [null, [], {}, ["../01.ipynb"], ["a/b.ipynb"], [7], ["01.txt"], [".ipynb"]]) {
      expect(isNames(bad)).toBe(false);
    }
  });
});
