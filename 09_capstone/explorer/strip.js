// A text in which a position can be pointed at and chosen, each character tinted by a number.

import { element, spoken, visible } from "./show.js";

// `choose(at)` is called for a click or a key, `hover(at)` while the mouse is over a character, and
// `hover(null)` when it has left. Returns what shows a text and what tints it.
export function strip(box, choose, hover) {
  let first = 0, spans = [];
  const positionOf = (event) => {
    const span = event.target.closest("[role=option]");
    return span ? first + spans.indexOf(span) : null;
  };
  box.addEventListener("click", (event) => {
    const at = positionOf(event);
    if (at !== null) choose(at);
  });
  box.addEventListener("pointerover", (event) => {
    if (event.pointerType === "mouse") hover(positionOf(event));
  });
  box.addEventListener("pointerleave", () => hover(null));
  box.addEventListener("keydown", (event) => {
    const now = spans.findIndex((span) => span.ariaSelected === "true");
    const next = {
      ArrowLeft: now - 1, ArrowRight: now + 1, PageUp: now - 10, PageDown: now + 10, Home: 0, End: spans.length - 1,
    }[event.key];
    if (next === undefined || !spans.length) return;
    event.preventDefault();
    choose(first + Math.max(0, Math.min(spans.length - 1, next)));
  });

  // characters from position `start` on; the last `written` of them are the model's own
  function show(characters, start, at, written) {
    first = start;
    spans = characters.map((character, i) => element("span", {
      role: "option",
      id: `${box.id}-${start + i}`,
      class: i >= characters.length - written ? "written" : null,
      "aria-selected": String(start + i === at),
      "aria-label": spoken(character),
    }, visible(character)));
    box.replaceChildren(...spans.flatMap((span, i) => {
      if (characters[i] === "\n") return [span, element("br")];
      return characters[i] === " " ? [span, element("wbr")] : [span];
    }));
    if (at !== null) box.setAttribute("aria-activedescendant", `${box.id}-${at}`);
    else box.removeAttribute("aria-activedescendant");
  }

  // shares from 0 to 1, one for each character that is shown; null for none
  function tint(shares) {
    spans.forEach((span, i) => span.style.setProperty("--v", shares[i] ?? 0));
  }

  return { show, tint };
}
