/** `TokenView`: sequences with every token coloured by a number. */

import type { Dispose } from "./dom";
import { page } from "./page";
import type { Tokens } from "./protocol";
import { TokenStrip } from "./tokens/strip";

export function tokenView(model: { get(name: string): unknown }, el: HTMLElement): Dispose {
  const { root, theme, dispose } = page(el, "Tokens");
  const strip = new TokenStrip(theme);
  root.append(strip.element);
  strip.show(model.get("tokens") as Tokens);
  return () => {
    strip.dispose();
    dispose();
  };
}
