import { describe, expect, it } from "vitest";
import { freeName, pythonKernel, workbenchNotebook } from "../src/template";

const spec = (name: string, language: string) => ({ name, language, display_name: name.toUpperCase() });

describe("the workbench's notebook", () => {
  it("uses the server's default Python kernel, else the first Python kernel", () => {
    const specs = { ir: spec("ir", "R"), old: spec("old", "python"), python3: spec("python3", "Python") };
    expect(pythonKernel(specs, "python3")?.name).toBe("python3");
    expect(pythonKernel(specs, "ir")?.name).toBe("old");
    expect(pythonKernel({ ir: spec("ir", "R"), gone: undefined }, "ir")).toBeNull();
  });

  it("names its kernel, so that JupyterLab does not ask", () => {
    const { cells, metadata } = workbenchNotebook(spec("python3", "python")) as {
      cells: { source: string }[];
      metadata: { kernelspec: { name: string } };
    };
    expect(metadata.kernelspec.name).toBe("python3");
    expect(cells.map(({ source }) => source)).toEqual(["import mint_lab as ml\n\nlab = ml.Workbench()\nlab"]);
    expect(workbenchNotebook(null).metadata).toEqual({});
  });

  it("gets an unused name", () => {
    expect(freeName([], "Loss workbench", ".ipynb")).toBe("Loss workbench.ipynb");
    expect(freeName(["loss workbench.IPYNB", "Loss workbench 2.ipynb"], "Loss workbench", ".ipynb")).toBe(
      "Loss workbench 3.ipynb",
    );
  });
});
