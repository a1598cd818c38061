/** What all views of a table of runs share besides the runs: the listing, the ticks, and the row with an open form. */

import type { MultiRunStore } from "../multi_run_store";
import type { Listing, TableRequest } from "../run_messages";

const EMPTY: Listing = { folder: "", rows: [], more: 0 };

/** A row with a form below it: its note, or whether to delete the run. */
export interface OpenForm {
  name: string;
  kind: "note" | "delete";
}

export class TableState {
  private form: OpenForm | null = null;
  /** Ticks that a person wants and the kernel has not confirmed yet. */
  private requestedTicks: readonly string[] | null = null;

  constructor(private readonly store: MultiRunStore) {}

  get listing(): Listing {
    return this.store.trait<Listing>("listing") ?? EMPTY;
  }

  /** The open form, if its row is still listed. */
  get openForm(): OpenForm | null {
    const { form } = this;
    return form && this.listing.rows.some((row) => row.name === form.name) ? form : null;
  }

  /** Open a form, or close the open one. */
  setForm(form: OpenForm | null): void {
    this.form = form;
    this.store.refusal = "";
    this.store.notify();
  }

  /** Send the request of the open form, which closes when the kernel has answered. */
  submit(request: TableRequest): void {
    this.form = null;
    void this.store.request(request);
  }

  /** The ticked runs in the order of their curves, including those whose curves have not arrived. */
  get ticked(): readonly string[] {
    return this.requestedTicks ?? this.store.runs.map((run) => run.label);
  }

  /** Tick a run, or remove its tick. */
  tick(name: string, isTicked: boolean): void {
    const others = this.ticked.filter((label) => label !== name);
    const requested = isTicked ? [...others, name] : others;
    this.requestedTicks = requested;
    this.store.notify();
    void this.store.request({ type: "show", names: requested }).then(() => {
      if (this.requestedTicks !== requested) return; // a person has ticked another run since
      this.requestedTicks = null;
      this.store.notify();
    });
  }
}
