/**
 * Decides when to draw next. A change that a person requested is drawn in the next frame. New records of a run are drawn
 * after a pause of several times the last drawing time, because the page shares the machine with the training.
 */

const PAUSE_FACTOR = 10;
const MIN_PAUSE_MS = 250;
const MAX_PAUSE_MS = 2000;

export class DrawScheduler {
  private frame = 0;
  private timer = 0;
  private drawingMs = 0;
  private pauseUntilMs = 0;

  /** @param draw Draws for a short time; returns true if it has to continue in the next frame. */
  constructor(private readonly draw: () => boolean) {}

  /** Draw in the next frame. */
  drawNext(): void {
    window.clearTimeout(this.timer);
    this.timer = 0;
    this.frame ||= requestAnimationFrame(() => this.run());
  }

  /** Draw after the pause. */
  drawLater(): void {
    if (this.frame || this.timer) return;
    const waitMs = this.pauseUntilMs - performance.now();
    if (waitMs <= 0) this.drawNext();
    else this.timer = window.setTimeout(() => this.drawNext(), waitMs);
  }

  dispose(): void {
    cancelAnimationFrame(this.frame);
    window.clearTimeout(this.timer);
  }

  private run(): void {
    this.frame = 0;
    const startMs = performance.now();
    const isUnfinished = this.draw();
    const nowMs = performance.now();
    this.drawingMs += nowMs - startMs;
    if (isUnfinished) {
      this.frame ||= requestAnimationFrame(() => this.run());
      return;
    }
    this.pauseUntilMs = nowMs + Math.min(MAX_PAUSE_MS, Math.max(MIN_PAUSE_MS, PAUSE_FACTOR * this.drawingMs));
    this.drawingMs = 0;
  }
}
