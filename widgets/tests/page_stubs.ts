/** Browser functions that jsdom lacks. Import this module before one that uses them. */

import { vi } from "vitest";

class ResizeObserverStub {
  observe(): void {}
  disconnect(): void {}
}

vi.stubGlobal("ResizeObserver", ResizeObserverStub);
vi.stubGlobal("matchMedia", () => ({ matches: false, addEventListener: () => {}, removeEventListener: () => {} }));
