/** The legend of a colour scale: a bar with numbers at its ends and middle, the unit, and what the sign means. */

import { h, setText } from "../lib/dom";
import { tick } from "../lib/format";
import type { TokenColumn } from "../messages";
import { gradient } from "./colour";

export class ColourScale {
  private readonly bar = h("span", { class: "ml-scale-bar" });
  private readonly numbers = [h("span"), h("span"), h("span")] as const;
  private readonly note = h("span", { class: "ml-scale-note" });
  readonly element = h(
    "div",
    { class: "ml-scale" },
    h("span", { class: "ml-scale-ruler" }, this.bar, h("span", { class: "ml-scale-ends" }, ...this.numbers)),
    this.note,
  );

  draw(column: TokenColumn, dark: boolean): void {
    this.bar.style.background = gradient(column, dark);
    const middle = column.scale === "ratio" ? 1 : (column.low + column.high) / 2;
    [column.low, middle, column.high].forEach((value, i) => {
      setText(this.numbers[i] as HTMLElement, tick(value));
    });
    setText(this.note, [column.unit, column.note].filter(Boolean).join(" · "));
  }
}
