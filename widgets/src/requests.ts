/** Requests to the kernel that wait for an answer. */

import type { Reply } from "./messages";

/** The part of anywidget's model that this page uses. */
export interface Model {
  get(name: string): unknown;
  send(content: unknown): void;
  on(event: string, handler: (content: unknown, buffers: DataView[]) => void): void;
  off(event: string, handler: (content: unknown, buffers: DataView[]) => void): void;
}

interface PendingRequest {
  sentAtMs: number;
  onReply: (error: string) => void;
  onText?: (text: string) => void;
}

/** An answer that takes longer is reported. */
const LATE_AFTER_MS = 1500;

export const KERNEL_BUSY = "The kernel is busy with a cell; it answers when the cell ends.";

export class Requests {
  /** Several pages may show one widget, and each receives every answer, so each counts from a random number. */
  private lastNumber = Math.floor(Math.random() * 2 ** 32) * 2 ** 20;
  private readonly pending = new Map<number, PendingRequest>();

  constructor(
    private readonly model: Pick<Model, "send">,
    /** Called when an answer is late. */
    private readonly onLate: () => void = () => {},
  ) {}

  /** Send a request. Resolves to the reason for a refusal, or ""; never without a kernel. */
  ask(request: object): Promise<string> {
    return new Promise((onReply) => this.add(request, { sentAtMs: Date.now(), onReply }));
  }

  /** Request a text. Rejects with the reason for a refusal. */
  askText(request: object): Promise<string> {
    return new Promise((onText, reject) => {
      const onReply = (error: string) => reject(new Error(error));
      this.add(request, { sentAtMs: Date.now(), onReply, onText });
    });
  }

  /** Whether an answer is late. A person may then send another request. */
  get late(): boolean {
    const now = Date.now();
    return [...this.pending.values()].some(({ sentAtMs }) => now - sentAtMs >= LATE_AFTER_MS);
  }

  send(content: unknown): void {
    try {
      this.model.send(content);
    } catch {
      // Without a kernel the page keeps showing its snapshot.
    }
  }

  /** Settle the request that `reply` answers. */
  receiveReply({ request, error }: Reply): void {
    this.pending.get(request)?.onReply(error);
    this.pending.delete(request);
  }

  /** Settle the request for a text. */
  receiveText(request: number, text: DataView | undefined): void {
    this.pending.get(request)?.onText?.(new TextDecoder().decode(text));
    this.pending.delete(request);
  }

  /** Drop all pending requests; their promises never settle. */
  clear(): void {
    this.pending.clear();
  }

  private add(request: object, pending: PendingRequest): void {
    this.lastNumber += 1;
    const number = this.lastNumber;
    this.pending.set(number, pending);
    setTimeout(() => this.pending.has(number) && this.onLate(), LATE_AFTER_MS);
    this.send({ ...request, request: number });
  }
}
