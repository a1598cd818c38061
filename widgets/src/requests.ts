/** What a page has asked the kernel for and not heard of yet. */

import type { Reply } from "./protocol";

/** The part of anywidget's model that widgets of several runs use. */
export interface Model {
  get(name: string): unknown;
  send(content: unknown): void;
  on(event: string, handler: (content: unknown, buffers: DataView[]) => void): void;
  off(event: string, handler: (content: unknown, buffers: DataView[]) => void): void;
}

interface Waiting {
  since: number;
  done: (error: string) => void;
  found?: (text: string) => void;
}

/** After so long without an answer a person is told, ms. */
const PATIENCE_MS = 1500;

export const BUSY = "The kernel is busy with a cell; it answers as soon as that is done.";

export class Requests {
  /** Several pages may show one widget, and each hears every answer: no two of them count from the same number. */
  private last = Math.floor(Math.random() * 2 ** 32) * 2 ** 20;
  private readonly waiting = new Map<number, Waiting>();

  constructor(
    private readonly model: Pick<Model, "send">,
    /** Called when an answer is overdue. */
    private readonly overdue: () => void = () => {},
  ) {}

  /** Asks; resolves to why it was refused, "" when it was not. Without a kernel nobody answers. */
  ask(request: object): Promise<string> {
    return new Promise((done) => this.wait(request, { since: Date.now(), done }));
  }

  /** Asks for a text. Rejects with why there is none. */
  text(request: object): Promise<string> {
    return new Promise((found, refused) => {
      const done = (error: string) => refused(new Error(error));
      this.wait(request, { since: Date.now(), done, found });
    });
  }

  /** Whether an answer is overdue: who waits for one may ask for something else. */
  get late(): boolean {
    const now = Date.now();
    return [...this.waiting.values()].some(({ since }) => now - since >= PATIENCE_MS);
  }

  send(content: unknown): void {
    try {
      this.model.send(content);
    } catch {
      // No kernel: what the snapshot shows stays on the page.
    }
  }

  answer({ request, error }: Reply): void {
    this.waiting.get(request)?.done(error);
    this.waiting.delete(request);
  }

  deliver(request: number, text: DataView | undefined): void {
    this.waiting.get(request)?.found?.(new TextDecoder().decode(text));
    this.waiting.delete(request);
  }

  forget(): void {
    this.waiting.clear();
  }

  private wait(request: object, waiting: Waiting): void {
    this.last += 1;
    const number = this.last;
    this.waiting.set(number, waiting);
    setTimeout(() => this.waiting.has(number) && this.overdue(), PATIENCE_MS);
    this.send({ ...request, request: number });
  }
}
