import { describe, expect, it } from "vitest";
import { fileStem } from "../../src/charts/downloads";
import { STATE } from "../support";

describe("fileStem", () => {
  const state = { ...STATE, steps_done: 60, loss: "dpo", last_loss: "pairwise_preference" };

  it("names the loss that made the last step, not the one that was chosen since", () => {
    expect(fileStem(state)).toBe("preference-pairwise_preference-step60");
    expect(fileStem({ ...state, last_loss: "" })).toBe("preference-step60");
    expect(fileStem(null)).toBe("run-step0");
  });

  it("contains no path", () => {
    expect(fileStem({ ...state, last_loss: "<img src=x>/../" })).toBe("preference-_img_src_x_-step60");
  });
});
