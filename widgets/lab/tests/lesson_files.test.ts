import { describe, expect, it } from "vitest";
import { isFileList, missingFiles } from "../src/lesson_files";

describe("the lessons", () => {
  it("are copied if they are missing", () => {
    expect(missingFiles(["01_a.ipynb", "02_b.ipynb", "03_c.ipynb"], ["02_B.ipynb", "mine.txt"])).toEqual([
      "01_a.ipynb",
      "03_c.ipynb",
    ]);
  });

  it("have plain names", () => {
    expect(isFileList(["01_first_run.ipynb"])).toBe(true);
    for (const bad of [null, [], {}, ["../01.ipynb"], ["a/b.ipynb"], [7], ["01.txt"], [".ipynb"]]) {
      expect(isFileList(bad)).toBe(false);
    }
  });
});
