/**
 * When to draw next. What a person wants is drawn at once; news of a run when its charts have rested for several times as
 * long as drawing them took: the page shares the machine with the training it shows.
 */

const REST = { times: 10, least: 250, most: 2000 };

export class Pace {
  private frame = 0;
  private timer = 0;
  private spent = 0;
  private restUntil = 0;

  /** `work` draws for a while, and says whether there is more to draw. */
  constructor(private readonly work: () => boolean) {}

  soon(): void {
    window.clearTimeout(this.timer);
    this.timer = 0;
    this.frame ||= requestAnimationFrame(() => this.run());
  }

  later(): void {
    if (this.frame || this.timer) return;
    const wait = this.restUntil - performance.now();
    if (wait <= 0) this.soon();
    else this.timer = window.setTimeout(() => this.soon(), wait);
  }

  dispose(): void {
    cancelAnimationFrame(this.frame);
    window.clearTimeout(this.timer);
  }

  private run(): void {
    this.frame = 0;
    const began = performance.now();
    const more = this.work();
    const now = performance.now();
    this.spent += now - began;
    if (more) {
      this.frame ||= requestAnimationFrame(() => this.run());
      return;
    }
    this.restUntil = now + Math.min(REST.most, Math.max(REST.least, REST.times * this.spent));
    this.spent = 0;
  }
}
