/** Which rows of the data are shown: some noteworthy ones, the previous or next row, or a row by its number. */

import type { DataReport } from "../data_messages";
import { type Dispose, h, listen, setText } from "../lib/dom";
import { thousands } from "../lib/format";
import type { Request } from "../messages";

type RowRequest = Pick<Request, "item" | "row" | "held_out">;

export class RowControl {
  private readonly noteworthy = h("button", { class: "ml-button", type: "button" }, "Noteworthy rows");
  private readonly previous = h("button", { class: "ml-button", type: "button" }, "Previous");
  private readonly next = h("button", { class: "ml-button", type: "button" }, "Next");
  private readonly number = h("input", { class: "ml-entry", type: "number", min: 0, step: 1, "aria-label": "row" });
  private readonly source = h(
    "select",
    { class: "ml-select", "aria-label": "data that the row is from" },
    h("option", { value: "training" }, "training data"),
    h("option", { value: "held-out" }, "held-out data"),
  );
  private readonly position = h("span", { class: "ml-quiet ml-rows-position" });
  private readonly refusal = h("span", { class: "ml-rows-refusal", role: "alert" });
  readonly element = h(
    "div",
    { class: "ml-rows", role: "group", "aria-label": "Rows to show" },
    this.noteworthy,
    this.previous,
    this.next,
    h("label", { class: "ml-rows-number" }, "row", this.number),
    this.source,
    this.position,
    this.refusal,
  );
  private readonly disposers: Dispose[] = [];
  private item: number | null = null;
  private row: number | null = null;
  /** The row that was asked for last; "" after another request. Enter and then leaving the field are two events. */
  private askedRow = "";

  /** @param request Asks for rows; resolves to the reason for a refusal, or "". */
  constructor(private readonly request: (rows: RowRequest) => Promise<string>) {
    this.disposers.push(
      listen(this.noteworthy, "click", () => this.ask({})),
      listen(this.previous, "click", () => this.ask({ item: (this.item ?? 0) - 1 })),
      listen(this.next, "click", () => this.ask({ item: this.item === null ? 0 : this.item + 1 })),
      listen(this.number, "change", () => this.askRow()),
      listen(this.number, "keydown", (event) => this.onKey(event)),
      listen(this.source, "change", () => this.askRow()),
    );
  }

  dispose(): void {
    for (const dispose of this.disposers.splice(0)) dispose();
  }

  show({ item, items, row, held_out, has_two_sources }: DataReport): void {
    this.item = item;
    this.row = row;
    setDisabled(this.previous, item === null || item === 0);
    setDisabled(this.next, item === items - 1);
    this.noteworthy.setAttribute("aria-pressed", String(item === null));
    this.showNumber();
    this.source.hidden = !has_two_sources;
    if (item !== null) this.source.value = held_out ? "held-out" : "training";
    setText(this.position, item === null ? "" : `${thousands(item + 1)} of ${thousands(items)}`);
    setText(this.refusal, "");
  }

  private onKey(event: KeyboardEvent): void {
    // Chromium sends "change" on Enter only inside a form.
    if (event.key === "Enter") this.askRow();
    else if (event.key === "Escape") this.showNumber();
  }

  private showNumber(): void {
    this.number.value = this.row === null ? "" : String(this.row);
  }

  private askRow(): void {
    const row = this.number.valueAsNumber;
    const key = `${this.source.value} ${row}`;
    if (!Number.isInteger(row) || key === this.askedRow) return;
    this.ask({ row, held_out: this.source.value === "held-out" });
    this.askedRow = key;
  }

  private ask(rows: RowRequest): void {
    this.askedRow = "";
    void this.request(rows).then((error) => setText(this.refusal, error));
  }
}

/** Buttons at an end stay focusable, so that the keyboard does not lose its place there. */
function setDisabled(button: HTMLButtonElement, isDisabled: boolean): void {
  const hasFocus = button === button.ownerDocument.activeElement;
  button.disabled = isDisabled && !hasFocus;
  button.setAttribute("aria-disabled", String(isDisabled));
}
